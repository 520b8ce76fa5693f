/**
 * The frames that a control guides, on a bar of the video: its start and end are dragged, and snap to the borders between latent
 * frames (0, 1, 5, 9, ..). The node's own `start_frame` and `end_frame` are what is saved and run; an end of 0 is the video's.
 */

import { addEditor } from "./editor.js"
import { chain, rememberForUndo, setWidget } from "./graph.js"
import { element } from "./panel.js"
import { VideoLength } from "./length.js"
import { Backdrop } from "./picture.js"
import { Stage } from "./stage.js"
import { text } from "./strings.js"
import { GROUP, PAD, WIDTH } from "./timeline_text.js"
import { drawRuler } from "./timeline_view.js"
import { isWired, numberOf, widgetOf } from "./wires.js"

/** Nodes with a span, and the input whose clip is shown. */
export const SPANS = { VDOTControl: "frames", VDOTDepth: "depth", VDOTLayout: "picture" }

const HEIGHT = 230
const RULER_PX = 21
const REACH_PX = 12
const USUAL = 81
const ENDS = ["start_frame", "end_frame"]
const STEPS = { ArrowLeft: -1, ArrowRight: 1 }

class SpanBar {
  #selected = 0

  constructor(node, input) {
    this.node = node
    this.input = input
    this.height = HEIGHT
    this.pictures = ENDS.map(() => new Backdrop(node, () => this.show()))
    this.video = new VideoLength(node, () => this.pictures[0].state, () => this.show())
    this.stage = new Stage(text("span_keys"), {
      draw: (context, unit) => this.draw(context, unit),
      cursor: (point) => (this.hit(point) < 0 ? "default" : "ew-resize"),
      press: (point) => this.press(point),
      key: (event) => this.key(event),
    })
    this.stage.view = { x: 0, y: 0, width: WIDTH, height: HEIGHT }
    this.label = element("output", "vdot-size")
    for (const name of [...ENDS, "length"]) {
      const widget = widgetOf(node, name)
      if (widget) chain(widget, "callback", () => this.show())
    }
    addEditor(node, {
      name: "vdot_span",
      title: text("span_title"),
      parts: [this.stage.element, this.label],
      state: () => [this.numFrames, this.span, this.video.state],
      opened: () => this.read(),
    })
    chain(node, "onConfigure", () => this.read())
    chain(node, "onConnectionsChange", () => setTimeout(() => this.read()))
  }

  number(name) {
    return Math.max(numberOf(this.node, name), 0)
  }

  /** Frames of the video that the span is written for; else of the clip. */
  get numFrames() {
    const length = this.video.written || this.pictures[0].numFrames || USUAL
    return Math.floor((Math.max(length, 1) - 1) / GROUP) * GROUP + 1
  }

  /** First frame that is guided, and first that is free again. */
  get span() {
    const total = this.numFrames
    return [Math.min(this.number(ENDS[0]), total), Math.min(this.number(ENDS[1]) || total, total)]
  }

  get floor() {
    return HEIGHT - RULER_PX * this.stage.unit
  }

  xOf(frame) {
    return PAD + (frame / this.numFrames) * (WIDTH - 2 * PAD)
  }

  /** Looks at the graph again. */
  read() {
    if (!this.stage) return
    const slot = this.node.inputs?.findIndex((input) => input.name === this.input)
    for (const picture of this.pictures) {
      picture.slot = slot
      picture.refresh()
    }
    this.show()
  }

  show() {
    if (!this.stage) return
    const [start, end] = this.span
    this.pictures[0].seek(this.video.moved(start))
    this.pictures[1].seek(this.video.moved(end - 1))
    const values = { start, last: end - 1, frames: this.numFrames }
    const isAll = start === 0 && end === this.numFrames
    const part = end - start === 1 ? "span_one" : start < end ? "span_said" : "span_empty"
    const said = [text(isAll ? "span_all" : part, values), this.video.along]
    this.label.textContent = said.filter(Boolean).join(", ")
    this.stage.redraw()
  }

  draw(context, unit) {
    drawRuler(this, context, unit)
    const [top, height] = [6 * unit, this.floor - 12 * unit]
    const [from, to] = this.span.map((frame) => this.xOf(frame))
    const part = (left, right, color, alpha) => {
      context.globalAlpha = alpha
      context.fillStyle = this.stage.color(color)
      context.fillRect(left, top, Math.max(right - left, 0), height)
      context.globalAlpha = 1
    }
    part(PAD, WIDTH - PAD, "free", 0.35)
    part(from, to, "guided", 0.8)
    const side = Math.min(height - 4 * unit, (to - from) / 2)
    if (side > 8 * unit) {
      this.pictures[0].drawCover(context, from + 2 * unit, top + 2 * unit, side - 2 * unit, height - 4 * unit)
      this.pictures[1].drawCover(context, to - side, top + 2 * unit, side - 2 * unit, height - 4 * unit)
    }
    for (const [index, x] of [from, to].entries()) {
      const isSelected = index === this.#selected && document.activeElement === this.stage.canvas
      context.fillStyle = this.stage.color(isSelected ? "text" : "accent")
      context.fillRect(x - 2 * unit, top - 3 * unit, 4 * unit, height + 6 * unit)
    }
  }

  /** An end of the span that comes over a wire cannot be dragged. */
  isFixed(index) {
    return isWired(this.node, ENDS[index])
  }

  /** The end of the span at a point, 0 or 1; -1 for none. */
  hit({ x }) {
    const distances = this.span.map((frame, index) => (this.isFixed(index) ? Infinity : Math.abs(x - this.xOf(frame))))
    const index = distances[1] <= distances[0] ? 1 : 0
    return distances[index] <= REACH_PX * this.stage.unit ? index : -1
  }

  press(point) {
    const index = this.hit(point)
    if (index < 0) return undefined
    this.#selected = index
    return {
      move: ({ x }) => this.set(index, this.borderAt(((x - PAD) / (WIDTH - 2 * PAD)) * this.numFrames)),
      end: rememberForUndo,
    }
  }

  /** The number of the border next to a frame: 0, then one for each latent frame's end. */
  borderAt(frame) {
    return frame < 0.5 ? 0 : Math.round((frame - 1) / GROUP) + 1
  }

  /** Moves one end to a border; at least one latent frame stays guided. */
  set(index, border) {
    const last = (this.numFrames - 1) / GROUP + 1
    const other = this.borderAt(this.span[1 - index])
    const [low, high] = index ? [Math.min(other + 1, last), last] : [0, Math.max(other - 1, 0)]
    const placed = Math.min(Math.max(border, low), high)
    const frame = placed && (placed - 1) * GROUP + 1
    setWidget(this.node, ENDS[index], index && placed === last ? 0 : frame)
    this.show()
  }

  key(event) {
    const step = STEPS[event.key]
    if (step) {
      if (this.isFixed(this.#selected)) return true
      this.set(this.#selected, this.borderAt(this.span[this.#selected]) + step)
      rememberForUndo()
    } else if (event.key === "Enter" || event.key === " ") this.#selected = 1 - this.#selected
    else return event.key === "Delete" || event.key === "Backspace"
    return true
  }
}

/** Puts the bar on a node with a span. */
export function attachSpan(node) {
  new SpanBar(node, SPANS[node.comfyClass])
}
