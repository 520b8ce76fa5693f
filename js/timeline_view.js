/** Drawing of the timeline: latent frames, a curve, pictures at their moments, and the points. */

import { GROUP, PAD, WIDTH } from "./timeline_text.js"

const TICKS = [1, 5, 10, 20, 50, 100, 200, 500, 1000]

/**
 * Draws a timeline.
 * @param {object} bar the Timeline
 * @param {CanvasRenderingContext2D} context in its units
 * @param {number} unit how many of them are a pixel of the page
 */
export function drawTimeline(bar, context, unit) {
  drawRuler(bar, context, unit)
  if (bar.form.hasValue) drawCurve(bar, context, unit)
  for (const [index, point] of bar.points.entries()) {
    if (!bar.form.hasValue) drawThumbnail(bar, context, index, unit)
    const [x, y] = bar.place(point)
    context.fillStyle = bar.stage.color(index === bar.selected ? "text" : "accent")
    context.strokeStyle = bar.stage.color("surface")
    context.lineWidth = 2 * unit
    context.beginPath()
    context.arc(x, bar.form.hasValue ? y : bar.floor, 5 * unit, 0, 2 * Math.PI)
    context.fill()
    context.stroke()
    if (index === bar.selected) drawValue(bar, context, point, x, y, unit)
  }
}

/** Latent frames as alternating stripes, where they are wide enough to be seen, and frame numbers. */
export function drawRuler(bar, context, unit) {
  const last = bar.numFrames - 1
  const bottom = bar.floor
  context.fillStyle = bar.stage.color("text")
  context.globalAlpha = 0.06
  const areSeen = bar.xOf(GROUP) - bar.xOf(0) >= unit
  for (let end = 2 * GROUP; areSeen && end <= last; end += 2 * GROUP) {
    context.fillRect(bar.xOf(end - GROUP), 0, bar.xOf(end) - bar.xOf(end - GROUP), bottom)
  }
  context.globalAlpha = 1
  context.font = `${10 * unit}px Inter, Arial, sans-serif`
  context.textAlign = "center"
  context.textBaseline = "alphabetic"
  const room = 46 * unit
  const step = TICKS.find((tick) => bar.xOf(tick) - bar.xOf(0) >= room) ?? last
  context.fillStyle = bar.stage.color("text")
  for (let frame = 0; frame < last; frame += step) {
    if (frame > 0 && bar.xOf(last) - bar.xOf(frame) < room) continue
    context.fillText(String(frame), bar.xOf(frame), bar.height - 4 * unit)
  }
  context.fillText(String(last), bar.xOf(last), bar.height - 4 * unit)
  context.fillRect(PAD, bottom - unit / 2, WIDTH - 2 * PAD, unit)
}

function drawCurve(bar, context, unit) {
  const points = [...bar.points].sort((a, b) => bar.frameOf(a) - bar.frameOf(b)).map((point) => bar.place(point))
  if (!points.length) return
  const line = [[PAD, points[0][1]], ...points, [WIDTH - PAD, points.at(-1)[1]]]
  context.beginPath()
  line.forEach(([x, y]) => context.lineTo(x, y))
  context.strokeStyle = context.fillStyle = bar.stage.color("accent")
  context.lineWidth = 2 * unit
  context.stroke()
  context.lineTo(WIDTH - PAD, bar.floor)
  context.lineTo(PAD, bar.floor)
  context.globalAlpha = 0.16
  context.fill()
  context.globalAlpha = 0.5
  context.setLineDash([3 * unit, 4 * unit])
  context.lineWidth = unit
  context.strokeStyle = bar.stage.color("text")
  context.strokeRect(PAD, bar.yOf(1), WIDTH - 2 * PAD, 0)
  context.setLineDash([])
  context.globalAlpha = 1
}

function drawThumbnail(bar, context, index, unit) {
  const side = bar.thumbnailSize
  const height = Math.min(side, bar.floor - 20)
  const x = Math.min(Math.max(bar.xOf(bar.frameOf(bar.points[index])) - side / 2, 2), WIDTH - side - 2)
  const top = (bar.floor - height) / 2 - 2
  context.fillStyle = bar.stage.color("hover")
  context.fillRect(x, top, side, height)
  if (!bar.thumbnails[index]?.drawCover(context, x, top, side, height)) {
    context.fillStyle = bar.stage.color("text")
    context.font = `600 ${12 * unit}px Inter, Arial, sans-serif`
    context.textAlign = "center"
    context.textBaseline = "middle"
    context.fillText(String(index), x + side / 2, top + height / 2)
  }
  context.strokeStyle = bar.stage.color(index === bar.selected ? "text" : "accent")
  context.lineWidth = 1.5 * unit
  context.strokeRect(x, top, side, height)
}

function drawValue(bar, context, point, x, y, unit) {
  const label = bar.form.hasValue ? `${bar.frameOf(point)}: ${point.value}` : String(bar.frameOf(point))
  context.font = `600 ${11 * unit}px Inter, Arial, sans-serif`
  context.textAlign = "center"
  context.textBaseline = "middle"
  const width = context.measureText(label).width + 10 * unit
  const left = Math.min(Math.max(x - width / 2, 2), WIDTH - width - 2)
  const top = bar.form.hasValue ? Math.max(y - 24 * unit, 2) : 2
  context.fillStyle = bar.stage.color("text")
  context.beginPath()
  context.roundRect(left, top, width, 16 * unit, 3 * unit)
  context.fill()
  context.fillStyle = bar.stage.color("surface")
  context.fillText(label, left + width / 2, top + 8.5 * unit)
}
