/**
 * VDOT Outpaint by its handles: the clip on its new canvas, whose borders are dragged; dragging the clip moves it on a canvas that
 * is given by a ratio or a size. The node's own inputs are what is saved and run; both sides follow each other.
 */

import { addEditor } from "./editor.js"
import { chain, rememberForUndo, setWidget } from "./graph.js"
import { draggedPads, padsOf, readRatio, resultSize, SIDES } from "./outpaint_math.js"
import { element } from "./panel.js"
import { Backdrop } from "./picture.js"
import { onSaid } from "./restore.js"
import { Stage } from "./stage.js"
import { text } from "./strings.js"
import { isWired, numberOf, valueOf, widgetOf } from "./wires.js"

const DEFAULT_CLIP = [832, 480]
const RATIOS = ["16:9", "9:16", "4:3", "3:4", "1:1", "2.39"]
const LOCKED = "vdot_ratio"
const MARGIN = 0.12
const SHAPE = 1.6
const REACH_PX = 9
const HANDLE_PX = 4.5
const FOLLOWED = [...SIDES, "width", "height", "mode", "aspect", "anchor_x", "anchor_y", "feather_px"]
const ARROWS = { ArrowLeft: ["left", "right"], ArrowRight: ["right", "left"], ArrowUp: ["top", "bottom"], ArrowDown: ["bottom", "top"] }
const HATCH_PX = 7
/** Of a unit, in the first line that its node shows after a run. */
const SIZE_SAID = /(\d+)x(\d+), \d+ frames/

class OutpaintEditor {
  #writing = false

  constructor(node) {
    this.node = node
    this.backdrop = new Backdrop(node, () => this.show())
    this.stage = new Stage(text("outpaint_keys"), {
      draw: (context, unit) => this.draw(context, unit),
      cursor: (point) => cursorOf(this.hit(point)),
      press: (point) => this.press(point),
      key: (event) => this.key(event),
    })
    this.ratio = element("select", "vdot-select", ...["", ...RATIOS].map((ratio) => new Option(ratio || text("outpaint_free"), ratio)))
    this.ratio.title = text("outpaint_ratio")
    this.ratio.setAttribute("aria-label", text("outpaint_ratio"))
    this.ratio.addEventListener("change", () => this.lock(this.ratio.value))
    this.label = element("output", "vdot-size")
    for (const name of FOLLOWED) {
      const widget = widgetOf(node, name)
      if (widget) chain(widget, "callback", () => !this.#writing && this.show())
    }
    addEditor(node, {
      title: text("outpaint_title"),
      tools: [this.ratio],
      parts: [this.stage.element, this.label],
      state: () => [this.settings, this.backdrop.state],
      opened: () => this.read(),
    })
    chain(node, "onConfigure", () => this.read())
    chain(node, "onConnectionsChange", () => setTimeout(() => this.read()))
    onSaid(node, (message) => {
      this.said = { size: SIZE_SAID.exec(message?.text?.[0] ?? "")?.slice(1), of: this.madeFrom }
      this.read()
    })
  }

  value(name) {
    return valueOf(this.node, name)
  }

  /** What a drag of the borders would write comes over a wire. */
  get isFixed() {
    return isWired(this.node, "mode", ...SIDES)
  }

  get clip() {
    return this.backdrop.size ?? DEFAULT_CLIP
  }

  get settings() {
    return {
      mode: this.value("mode"),
      aspect: this.value("aspect"),
      anchor: [Number(this.value("anchor_x")), Number(this.value("anchor_y"))],
      size: [numberOf(this.node, "width"), numberOf(this.node, "height")],
      sides: Object.fromEntries(SIDES.map((side) => [side, numberOf(this.node, side)])),
    }
  }

  /** What a run's result was made from, to be compared. */
  get madeFrom() {
    return JSON.stringify([this.settings, this.backdrop.state])
  }

  get pads() {
    return padsOf(this.clip, this.settings)
  }

  /** The canvas is given by a ratio or a size: the clip is placed on it. */
  get isAnchored() {
    const { mode, size, sides } = this.settings
    return mode === "aspect" || (size.some(Boolean) && !SIDES.some((side) => sides[side]))
  }

  read() {
    if (!this.stage) return
    this.backdrop.refresh()
    this.show()
  }

  show() {
    if (!this.stage) return
    const { clip, pads } = this
    if (!this.stage.dragging) this.stage.view = framed(clip, pads)
    const from = this.backdrop.size ? [`${clip[0]} x ${clip[1]}`] : []
    const to = SIDES.some((side) => pads[side]) || this.isFixed ? this.resultText(clip, pads) : text("outpaint_hint")
    this.label.textContent = [...from, to].join(" \u2192 ")
    this.ratio.value = this.lockedRatio
    this.ratio.disabled = this.isFixed || isWired(this.node, "aspect")
    this.stage.redraw()
  }

  /** The result's size; where the model gives it, that of the last run with these settings, before it the ratio alone. */
  resultText(clip, pads) {
    const { size } = this.settings
    const fits = !size.some(Boolean) && this.node.inputs?.some((input) => input.name === "size" && input.link != null)
    if (!fits) return resultSize(clip, pads, size).join(" x ")
    if (this.said?.size && this.said.of === this.madeFrom) return this.said.size.join(" x ")
    const ratio = (clip[0] + pads.left + pads.right) / (clip[1] + pads.top + pads.bottom)
    return text("outpaint_fitted", { ratio: ratio.toFixed(2) })
  }

  get lockedRatio() {
    const ratio = this.value("mode") === "aspect" ? this.value("aspect") : this.node.properties[LOCKED]
    return RATIOS.includes(ratio) ? ratio : ""
  }

  /** A ratio makes the canvas; none leaves the margins as they are. */
  lock(ratio) {
    const { pads } = this
    this.#writing = true
    if (ratio) {
      this.node.properties[LOCKED] = ratio
      for (const side of SIDES) setWidget(this.node, side, 0)
      setWidget(this.node, "aspect", ratio)
      setWidget(this.node, "mode", "aspect")
    } else {
      delete this.node.properties[LOCKED]
      if (this.isAnchored) this.writePads(pads)
    }
    this.#writing = false
    this.show()
    rememberForUndo()
  }

  /** Writes margins in pixels, or in percent where the node counts so. */
  writePads(pads) {
    this.#writing = true
    if (this.value("mode") === "aspect") setWidget(this.node, "mode", "pixels")
    const percent = this.value("mode") === "percent"
    const [width, height] = this.clip
    for (const side of SIDES) {
      const length = side === "left" || side === "right" ? width : height
      setWidget(this.node, side, percent ? Math.round((100 * pads[side]) / length) : pads[side])
    }
    this.#writing = false
    this.show()
  }

  /** Borders of the canvas under a point, "clip" inside a clip that can be placed, or nothing. */
  hit({ x, y }) {
    const { clip, pads } = this
    const reach = REACH_PX * this.stage.unit
    const [left, top, right, bottom] = [-pads.left, -pads.top, clip[0] + pads.right, clip[1] + pads.bottom]
    const within = x > left - reach && x < right + reach && y > top - reach && y < bottom + reach
    if (!within) return undefined
    const near = { left: Math.abs(x - left), right: Math.abs(x - right), top: Math.abs(y - top), bottom: Math.abs(y - bottom) }
    const sides = SIDES.filter((side) => near[side] <= reach)
    if (sides.length && !this.isFixed) return sides
    return this.isAnchored && !isWired(this.node, "anchor_x", "anchor_y") && x > 0 && y > 0 && x < clip[0] && y < clip[1] ? "clip" : undefined
  }

  press(point) {
    const hit = this.hit(point)
    if (!hit) return undefined
    const { clip, pads } = this
    const end = () => {
      setTimeout(() => this.show()) // the view grows with the canvas when the drag is over
      rememberForUndo()
    }
    if (hit === "clip") return { move: ({ x, y }) => this.place(pads, x - point.x, y - point.y), end }
    const ratio = this.lockedRatio && readRatio(this.lockedRatio)
    return { move: ({ x, y }) => this.writePads(draggedPads(clip, pads, hit, [x - point.x, y - point.y], ratio)), end }
  }

  /** Moves the clip on its canvas. */
  place(pads, byX, byY) {
    const share = (before, after, by) => Math.min(Math.max((before + by) / (before + after), 0), 1)
    const rounded = (value) => Math.round(value * 100) / 100
    this.#writing = true
    if (pads.left + pads.right) setWidget(this.node, "anchor_x", rounded(share(pads.left, pads.right, byX)))
    if (pads.top + pads.bottom) setWidget(this.node, "anchor_y", rounded(share(pads.top, pads.bottom, byY)))
    this.#writing = false
    this.show()
  }

  key(event) {
    const sides = ARROWS[event.key]
    if (!sides || this.isFixed) return false
    const step = event.shiftKey ? 64 : 16
    const [side, amount] = event.altKey ? [sides[1], -step] : [sides[0], step]
    const by = { left: [-amount, 0], right: [amount, 0], top: [0, -amount], bottom: [0, amount] }[side]
    const ratio = this.lockedRatio && readRatio(this.lockedRatio)
    this.writePads(draggedPads(this.clip, this.pads, [side], by, ratio))
    rememberForUndo()
    return true
  }

  draw(context, unit) {
    const { clip, pads } = this
    const canvas = [-pads.left, -pads.top, clip[0] + pads.left + pads.right, clip[1] + pads.top + pads.bottom]
    drawHatched(context, canvas, this.stage.color("free"), unit)
    context.fillStyle = this.stage.color("surface")
    context.fillRect(0, 0, ...clip)
    this.backdrop.drawCover(context, 0, 0, ...clip)
    context.strokeStyle = this.stage.color("kept")
    context.lineWidth = 1.5 * unit
    context.strokeRect(0, 0, ...clip)
    this.drawFeather(context, unit)
    context.strokeStyle = this.stage.color("free")
    context.lineWidth = 2 * unit
    context.strokeRect(...canvas)
    drawHandles(context, canvas, unit)
  }

  /** How far the clip is generated again, along borders that have a margin. */
  drawFeather(context, unit) {
    const feather = Number(this.value("feather_px")) || 0
    if (!feather) return
    const { clip, pads } = this
    const inset = Object.fromEntries(SIDES.map((side) => [side, pads[side] ? feather : 0]))
    context.setLineDash([4 * unit, 3 * unit])
    context.strokeRect(inset.left, inset.top, clip[0] - inset.left - inset.right, clip[1] - inset.top - inset.bottom)
    context.setLineDash([])
  }
}

/** The canvas with room to drag, always in one shape: a node that grew under the pointer would be hard to hit. */
function framed(clip, pads) {
  const space = MARGIN * Math.max(...clip)
  const width = clip[0] + pads.left + pads.right + 2 * space
  const height = clip[1] + pads.top + pads.bottom + 2 * space
  const view = { width: Math.max(width, height * SHAPE), height: Math.max(height, width / SHAPE) }
  return { x: -pads.left - space - (view.width - width) / 2, y: -pads.top - space - (view.height - height) / 2, ...view }
}

/** The area to generate, in the strip's amber. */
function drawHatched(context, [left, top, width, height], color, unit) {
  context.save()
  context.beginPath()
  context.rect(left, top, width, height)
  context.clip()
  context.fillStyle = context.strokeStyle = color
  context.globalAlpha = 0.14
  context.fillRect(left, top, width, height)
  context.globalAlpha = 0.5
  context.lineWidth = 1.5 * unit
  context.beginPath()
  for (let x = left - height; x < left + width; x += HATCH_PX * unit) {
    context.moveTo(x, top + height)
    context.lineTo(x + height, top)
  }
  context.stroke()
  context.restore()
}

function drawHandles(context, [left, top, width, height], unit) {
  const side = HANDLE_PX * unit
  context.fillStyle = "#fff"
  context.lineWidth = 1.25 * unit
  for (const x of [left, left + width / 2, left + width]) {
    for (const y of [top, top + height / 2, top + height]) {
      if (x === left + width / 2 && y === top + height / 2) continue
      context.beginPath()
      context.rect(x - side, y - side, 2 * side, 2 * side)
      context.fill()
      context.stroke()
    }
  }
}

function cursorOf(hit) {
  if (!hit) return "default"
  if (hit === "clip") return "move"
  if (hit.length === 1) return hit[0] === "left" || hit[0] === "right" ? "ew-resize" : "ns-resize"
  return hit.join() === "left,top" || hit.join() === "right,bottom" ? "nwse-resize" : "nesw-resize"
}

/** Puts the editor on VDOT Outpaint. */
export function attachOutpaint(node) {
  new OutpaintEditor(node)
}
