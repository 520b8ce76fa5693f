/**
 * The text of boxes over time, and the things that it describes: `frame: left, top, right, bottom` a line, or two numbers for the
 * middle of a box on a path; an empty line begins the next thing. nodes/tracks.py reads the same.
 */

import { typed } from "./typed.js"

const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i
const FRAME = /^-?\d{1,9}$/
/** Of a detector's boxes, whose x and y are a corner, not the middle. */
const SIDE_KEYS = ["width", "height", "w", "h"]

/** @typedef {{keyed: boolean, keys: {frame: number, values: number[]}[]}} Thing frames may be negative: -1 is the last */

function readRow(part) {
  const numbers = part.trim().split(/[,;\s]+/)
  const row = numbers.every((number) => NUMBER.test(number)) ? numbers.map(Number) : []
  return [2, 4].includes(row.length) && row.every(Number.isFinite) ? row : undefined
}

function readThing(lines) {
  const keyed = lines[0].includes(":")
  const keys = []
  for (const line of lines) {
    const colon = line.indexOf(":")
    const values = colon >= 0 === keyed ? readRow(line.slice(colon + 1)) : undefined
    const frame = line.slice(0, Math.max(colon, 0)).trim()
    if (!values || values.length !== (keys[0]?.values ?? values).length) return undefined
    if (keyed && (!FRAME.test(frame) || keys.some((key) => key.frame === Number(frame)))) return undefined
    keys.push({ frame: keyed ? Number(frame) : keys.length, values })
  }
  return { keyed, keys }
}

/** Paths as path-drawing nodes write them: a list of {x, y}, or a list of such lists. */
function readJson(text) {
  try {
    const parsed = JSON.parse(text.includes('"') ? text : text.replaceAll("'", '"')) // as Python writes them, too
    const paths = parsed.length && !Array.isArray(parsed[0]) ? [parsed] : parsed
    if (paths.flat().some((point) => SIDE_KEYS.some((key) => key in point))) return undefined
    const things = paths
      .filter((path) => path.length)
      .map((path) => ({ keyed: false, keys: path.map(({ x, y }, frame) => ({ frame, values: [Number(x), Number(y)] })) }))
    const numbers = things.flatMap((thing) => thing.keys.flatMap((key) => key.values))
    return numbers.every(Number.isFinite) ? things : undefined
  } catch {
    return undefined
  }
}

/**
 * The things of a text.
 * @param {string} text
 * @returns {Thing[] | undefined} undefined when it is not understood; an empty text has no things
 */
export function readBoxes(text) {
  const trimmed = typed(text).trim()
  if (!trimmed) return []
  if (trimmed.startsWith("[")) return readJson(trimmed)
  const blocks = trimmed.split(/\n[ \t\r]*\n/).map((block) => block.split(/\r?\n/).map((line) => line.trim()).filter(Boolean))
  const things = blocks.filter((lines) => lines.length).map(readThing)
  return things.includes(undefined) ? undefined : things
}

/** The text of things. */
export function writeBoxes(things) {
  const line = ({ frame, values }, keyed) => (keyed ? `${frame}: ` : "") + values.join(", ")
  return things.map((thing) => thing.keys.map((key) => line(key, thing.keyed)).join("\n")).join("\n\n")
}

/** The frame that a key stands for in a video of so many frames. */
export function frameOf(thing, key, numFrames) {
  if (thing.keyed) return Math.min(Math.max(key.frame < 0 ? numFrames + key.frame : key.frame, 0), numFrames - 1)
  const count = thing.keys.length
  return count < 2 ? 0 : Math.round((thing.keys.indexOf(key) * (numFrames - 1)) / (count - 1))
}

/** Keys by frame, in order. */
export function sortedKeys(thing, numFrames) {
  return thing.keys.map((key) => ({ key, frame: frameOf(thing, key, numFrames) })).sort((a, b) => a.frame - b.frame)
}

/** A thing's numbers in a frame: linear between its keys, still before the first and after the last. */
export function valuesAt(thing, frame, numFrames) {
  const keys = sortedKeys(thing, numFrames)
  const next = keys.findIndex((entry) => entry.frame >= frame)
  if (next < 0) return keys.at(-1).key.values
  if (next === 0) return keys[0].key.values
  const [before, after] = [keys[next - 1], keys[next]]
  const part = (frame - before.frame) / (after.frame - before.frame)
  return before.key.values.map((value, index) => value + (after.key.values[index] - value) * part)
}

/** Gives every key its frame, where the text left them to be spread evenly. */
function keyAll(thing, numFrames) {
  if (thing.keyed) return
  const byFrame = new Map(sortedKeys(thing, numFrames).map(({ key, frame }) => [frame, key.values]))
  thing.keys = [...byFrame].map(([frame, values]) => ({ frame: written(frame, numFrames), values }))
  thing.keyed = true
}

/** Gives a thing numbers in a frame: a key of that frame is changed, else one is added. The last frame is written as -1. */
export function setValues(thing, frame, values, numFrames) {
  keyAll(thing, numFrames)
  const rounded = values.map((value) => Math.round(value))
  const own = thing.keys.find((key) => frameOf(thing, key, numFrames) === frame)
  if (own) own.values = rounded
  else thing.keys.push({ frame: written(frame, numFrames), values: rounded })
  thing.keys = sortedKeys(thing, numFrames).map((entry) => entry.key)
}

/** A thing with one key. */
export function newThing(frame, values, numFrames) {
  const thing = { keyed: true, keys: [] }
  setValues(thing, frame, values, numFrames)
  return thing
}

/** Removes a thing's key of a frame; answers false when it has none there. */
export function removeKey(thing, frame, numFrames) {
  const has = thing.keys.some((key) => frameOf(thing, key, numFrames) === frame)
  if (!has) return false
  keyAll(thing, numFrames)
  thing.keys = thing.keys.filter((key) => frameOf(thing, key, numFrames) !== frame)
  return true
}

function written(frame, numFrames) {
  return frame > 0 && frame === numFrames - 1 ? -1 : frame
}
