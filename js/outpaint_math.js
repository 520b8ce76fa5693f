/** Margins of VDOT Outpaint in the clip's pixels, and the size of its result, as vdot_core/vcu/margins.py has them. */

import { typed } from "./typed.js"

const MULTIPLE = 16
export const SIDES = ["left", "right", "top", "bottom"]
const NONE = { left: 0, right: 0, top: 0, bottom: 0 }

const down = (side) => Math.max(MULTIPLE, Math.floor(side / MULTIPLE) * MULTIPLE)
const up = (side) => Math.ceil(side / MULTIPLE) * MULTIPLE

/** 16:9, 16/9, 2.39 as a number; undefined when it is none. */
export function readRatio(text) {
  const parts = typed(text).toLowerCase().replace(",", ".").split(/[:/x\u00d7]/).map((part) => (part.trim() ? Number(part) : NaN))
  const [across, tall = 1] = parts
  const ratio = across / tall
  return parts.length <= 2 && ratio >= 1 / 64 && ratio <= 64 ? ratio : undefined
}

/** Margins that bring a clip to a ratio, shared by the anchor: 0 is left or top, 1 is right or bottom. */
export function ratioPads([width, height], ratio, [x, y]) {
  const across = Math.max(0, Math.ceil(height * ratio - 1e-6) - width)
  const tall = Math.max(0, Math.ceil(width / ratio - 1e-6) - height)
  const [left, top] = [Math.round(across * x), Math.round(tall * y)]
  return { left, right: across - left, top, bottom: tall - top }
}

/**
 * Margins of the node's settings.
 * @param {number[]} clip width and height
 * @param {{mode: string, aspect: string, anchor: number[], size: number[], sides: object}} settings size 0 is the clip's
 */
export function padsOf(clip, { mode, aspect, anchor, size, sides }) {
  if (mode === "aspect") {
    const ratio = readRatio(aspect)
    return ratio ? ratioPads(clip, ratio, anchor) : NONE
  }
  if (!SIDES.some((side) => sides[side]) && size.some(Boolean)) {
    const [width, height] = size.map((side, axis) => down(side || clip[axis]))
    return ratioPads(clip, width / height, anchor)
  }
  const unit = { left: clip[0], right: clip[0], top: clip[1], bottom: clip[1] }
  return Object.fromEntries(SIDES.map((side) => [side, mode === "percent" ? Math.round((sides[side] / 100) * unit[side]) : sides[side]]))
}

/** Width and height of the result. */
export function resultSize(clip, pads, size) {
  const added = [pads.left + pads.right, pads.top + pads.bottom]
  const padded = clip.map((side, axis) => side + added[axis])
  if (size.every(Boolean)) return size.map(down)
  if (size[0]) return [down(size[0]), down((padded[1] * size[0]) / padded[0])]
  if (size[1]) return [down((padded[0] * size[1]) / padded[1]), down(size[1])]
  return padded.map((side, axis) => (added[axis] ? up(side) : down(side)))
}

/** Margins that a drag of some sides leads to; a locked ratio lets the other direction follow. */
export function draggedPads(clip, start, sides, [x, y], ratio) {
  const by = { left: -x, right: x, top: -y, bottom: y }
  const pads = Object.fromEntries(
    SIDES.map((side) => [side, Math.max(0, Math.round(start[side] + (sides.includes(side) ? by[side] : 0)))]),
  )
  if (!ratio) return pads
  const [width, height] = [clip[0] + pads.left + pads.right, clip[1] + pads.top + pads.bottom]
  const follows = sides.some((side) => side === "left" || side === "right") && Math.abs(x) >= Math.abs(y) / ratio
  return follows || sides.length > 1
    ? spread(pads, ["top", "bottom"], Math.max(0, Math.round(width / ratio) - clip[1]))
    : spread(pads, ["left", "right"], Math.max(0, Math.round(height * ratio) - clip[0]))
}

/** A total shared by two margins in their present proportion, evenly where both are 0. */
function spread(pads, [before, after], total) {
  const present = pads[before] + pads[after]
  const first = Math.round(present ? (total * pads[before]) / present : total / 2)
  return { ...pads, [before]: first, [after]: total - first }
}
