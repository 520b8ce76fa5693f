/** Drawing of boxes and paths on a stage, and what lies under the pointer. */

import { sortedKeys } from "./boxes_text.js"

export const PALETTE = ["#e5484d", "#0ea5e9", "#f59e0b", "#22c55e", "#a855f7", "#ec4899", "#14b8a6", "#84cc16"]
const HANDLE_PX = 4
const REACH_PX = 7
const GRID = 64
/** Across a picture; sizes of a workflow may be of any order. */
const MAX_LINES = 256
const MIN_SIDE_PX = 2
/** Sides that a handle moves: left, top, right, bottom. */
const HANDLES = [
  [1, 1, 0, 0], [0, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 0], [0, 0, 1, 1], [0, 0, 0, 1], [1, 0, 0, 1], [1, 0, 0, 0],
]
const CURSORS = ["nwse-resize", "ns-resize", "nesw-resize", "ew-resize"]

/** Left, top, right and bottom from a thing's numbers; two numbers are the middle of a box of `boxSize`. */
export function boxOf(values, boxSize) {
  if (values.length === 4) return values
  const [x, y] = values
  return [x - boxSize[0] / 2, y - boxSize[1] / 2, x + boxSize[0] / 2, y + boxSize[1] / 2]
}

const middle = ([left, top, right, bottom]) => [(left + right) / 2, (top + bottom) / 2]

function handleAt(box, index) {
  const [left, top, right, bottom] = box
  const [x, y] = middle(box)
  const sides = HANDLES[index]
  return [sides[0] ? left : sides[2] ? right : x, sides[1] ? top : sides[3] ? bottom : y]
}

/**
 * What of the boxes is under a point: a handle of the selected one first, then the smallest box there.
 * @returns {{index: number, sides: number[], cursor: string} | undefined} sides that a drag moves; all four move the box
 */
export function hitBox(boxes, selected, point, unit) {
  const reach = REACH_PX * unit
  if (boxes[selected]) {
    const handle = HANDLES.findIndex((_, index) => {
      const [x, y] = handleAt(boxes[selected], index)
      return Math.abs(point.x - x) <= reach && Math.abs(point.y - y) <= reach
    })
    if (handle >= 0) return { index: selected, sides: HANDLES[handle], cursor: CURSORS[handle % 4] }
  }
  const area = ([left, top, right, bottom]) => (right - left) * (bottom - top)
  const inside = boxes
    .map((box, index) => ({ box, index }))
    .filter(({ box: [left, top, right, bottom] }) => point.x >= left && point.x <= right && point.y >= top && point.y <= bottom)
    .sort((a, b) => area(a.box) - area(b.box))
  const index = inside.some((entry) => entry.index === selected) ? selected : inside[0]?.index
  return index === undefined ? undefined : { index, sides: [1, 1, 1, 1], cursor: "move" }
}

/** A box whose dragged sides stay a little apart from the others. */
export function ordered([left, top, right, bottom], sides) {
  const [fromLeft, fromTop, fromRight, fromBottom] = sides
  if (fromLeft && !fromRight) left = Math.min(left, right - MIN_SIDE_PX)
  if (fromTop && !fromBottom) top = Math.min(top, bottom - MIN_SIDE_PX)
  return [left, top, Math.max(right, left + MIN_SIDE_PX), Math.max(bottom, top + MIN_SIDE_PX)]
}

/** The picture behind, or a quiet grid. */
export function drawBackdrop(context, stage, backdrop, [width, height], unit) {
  const hasPicture = backdrop.drawCover(context, 0, 0, width, height)
  if (hasPicture) return
  context.strokeStyle = stage.color("line")
  context.globalAlpha = 0.5
  context.lineWidth = unit
  context.beginPath()
  const step = GRID * Math.ceil(Math.max(width, height) / GRID / MAX_LINES)
  for (let x = step; x < width; x += step) context.rect(x, 0, 0, height)
  for (let y = step; y < height; y += step) context.rect(0, y, width, 0)
  context.stroke()
  context.globalAlpha = 1
}

/** A thing's way through the video: a line through its middles and a dot for each key. */
export function drawPath(context, thing, numFrames, boxSize, color, unit) {
  const points = sortedKeys(thing, numFrames).map(({ key }) => middle(boxOf(key.values, boxSize)))
  if (points.length < 2) return
  context.strokeStyle = context.fillStyle = color
  context.lineWidth = 1.5 * unit
  context.setLineDash([4 * unit, 3 * unit])
  context.beginPath()
  points.forEach(([x, y]) => context.lineTo(x, y))
  context.stroke()
  context.setLineDash([])
  for (const [x, y] of points) {
    context.beginPath()
    context.arc(x, y, 3 * unit, 0, 2 * Math.PI)
    context.fill()
  }
}

/** A box with its number; handles where it is selected; outlined in white so that it shows on any picture. */
export function drawBox(context, box, label, color, unit, { selected, isKey }) {
  const [left, top, right, bottom] = box
  const rectangle = [left, top, right - left, bottom - top]
  context.fillStyle = color
  context.globalAlpha = selected ? 0.18 : 0.1
  context.fillRect(...rectangle)
  context.globalAlpha = 1
  context.lineWidth = (selected ? 4 : 3) * unit
  context.strokeStyle = "rgb(255 255 255 / 55%)"
  context.strokeRect(...rectangle)
  context.lineWidth = (selected ? 2 : 1.5) * unit
  context.strokeStyle = color
  context.setLineDash(isKey ? [] : [5 * unit, 3 * unit])
  context.strokeRect(...rectangle)
  context.setLineDash([])
  drawLabel(context, label, left, top, color, unit)
  if (!selected) return
  context.fillStyle = "#fff"
  context.lineWidth = 1.25 * unit
  for (const index of HANDLES.keys()) {
    const [x, y] = handleAt(box, index)
    const side = HANDLE_PX * unit
    context.beginPath()
    context.rect(x - side, y - side, 2 * side, 2 * side)
    context.fill()
    context.stroke()
  }
}

function drawLabel(context, label, left, top, color, unit) {
  context.font = `600 ${11 * unit}px Inter, Arial, sans-serif`
  const width = context.measureText(label).width + 9 * unit
  const y = top - 16 * unit >= 0 ? top - 16 * unit : top
  context.fillStyle = color
  context.beginPath()
  context.roundRect(left - unit, y, width, 16 * unit, 3 * unit)
  context.fill()
  context.fillStyle = "#fff"
  context.textBaseline = "middle"
  context.fillText(label, left + 3.5 * unit, y + 8.5 * unit)
}
