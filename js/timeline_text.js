/** Texts of points in time, as nodes/tracks.py reads them; frames may be negative: -1 is the last. */

import { typed } from "./typed.js"

/** Frames of a latent frame, but for the first; the bar's width and the space at its ends, in its own units. */
export const GROUP = 4
export const WIDTH = 1000
export const PAD = 34

const parts = (text) => typed(text).split(/[,;\n]/).map((part) => part.trim()).filter(Boolean)

/** '0, 40, -1' and [{frame: 0}, {frame: 40}, {frame: -1}] of VDOT Keyframes. */
export const POSITIONS = {
  hasValue: false,
  read(text) {
    const numbers = parts(text)
    return numbers.every((part) => /^[+-]?\d{1,9}$/.test(part)) ? numbers.map((part) => ({ frame: Number(part) })) : undefined
  },
  write: (points) => points.map(({ frame }) => frame).join(", "),
}

/** A number as it was read, without an exponent. */
function decimal(value) {
  if (Number.isInteger(value)) return value.toFixed(1)
  return value < 1e-6 ? value.toFixed(20) : String(value)
}

/** '0: 1.0, -1: 0.5' and [{frame: 0, value: 1}, {frame: -1, value: 0.5}] of VDOT Strength. */
export const CURVE = {
  hasValue: true,
  read(text) {
    const matches = parts(text).map((part) => /^(-?\d{1,9})\s*:\s*(\d{0,9}\.?\d{1,20})$/.exec(part))
    if (!matches.length || matches.includes(null)) return undefined
    const points = matches.map(([, frame, value]) => ({ frame: Number(frame), value: Number(value) }))
    const isSingle = new Set(points.map(({ frame }) => frame)).size === points.length
    return isSingle && points.every(({ value }) => value <= 10) ? points : undefined
  },
  write: (points) => points.map(({ frame, value }) => `${frame}: ${decimal(value)}`).join(", "),
}
