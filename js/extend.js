/**
 * What VDOT Extend keeps and generates, on a bar of the video: the first clip, the gap, the last clip. The video's end is dragged,
 * in latent frames; the node's own `length` is what is saved and run.
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
import { isWired, widgetOf } from "./wires.js"

const HEIGHT = 170
const RULER_PX = 21
const REACH_PX = 12
const USUAL = 81
const STEPS = { ArrowLeft: -GROUP, ArrowRight: GROUP }

class ExtendBar {
  #total = USUAL

  constructor(node) {
    this.node = node
    this.height = HEIGHT
    this.ends = ["first", "last"].map((name) => ({ name, picture: new Backdrop(node, () => this.show()) }))
    this.video = new VideoLength(node, () => this.ends.map(({ picture }) => picture.state), () => this.show())
    this.stage = new Stage(text("extend_keys"), {
      draw: (context, unit) => this.draw(context, unit),
      cursor: (point) => (this.isAtEnd(point) ? "ew-resize" : "default"),
      press: (point) => this.press(point),
      key: (event) => this.key(event),
    })
    this.stage.view = { x: 0, y: 0, width: WIDTH, height: HEIGHT }
    this.label = element("output", "vdot-size")
    const length = widgetOf(node, "length")
    if (length) chain(length, "callback", () => this.show())
    addEditor(node, {
      title: text("extend_title"),
      parts: [this.stage.element, this.label],
      state: () => [this.video.state, this.isWired],
      opened: () => this.read(),
    })
    chain(node, "onConfigure", () => this.read())
    chain(node, "onConnectionsChange", () => setTimeout(() => this.read()))
  }

  get length() {
    return this.video.frames || USUAL
  }

  /** The length comes over a wire: its bar cannot be dragged. */
  get isWired() {
    return isWired(this.node, "length")
  }

  /** Frames on the bar, which stands still while its end is dragged. */
  get numFrames() {
    return this.#total
  }

  get floor() {
    return HEIGHT - RULER_PX * this.stage.unit
  }

  xOf(frame) {
    return PAD + (frame / Math.max(this.#total - 1, 1)) * (WIDTH - 2 * PAD)
  }

  /** Looks at the graph again. */
  read() {
    if (!this.stage) return
    for (const end of this.ends) {
      end.picture.slot = this.node.inputs?.findIndex((input) => input.name === end.name)
      end.picture.refresh()
    }
    this.show()
  }

  show() {
    if (!this.stage) return
    if (!this.stage.dragging) this.#total = Math.max(USUAL, Math.ceil((this.length * 1.25 - 1) / GROUP) * GROUP + 1)
    const [kept, length] = [Math.min(this.keptFrames.reduce((a, b) => a + b), this.length), this.length]
    this.label.textContent = text("extend_said", { kept, made: length - kept, length })
    this.stage.redraw()
  }

  /** Frames that the first and the last clip give. */
  get keptFrames() {
    return this.ends.map(({ picture }) => Math.min(picture.numFrames ?? 0, this.length))
  }

  draw(context, unit) {
    drawRuler(this, context, unit)
    const [top, height] = [6 * unit, this.floor - 12 * unit]
    const [first, last] = this.keptFrames
    const part = (from, to, color, alpha) => {
      context.globalAlpha = alpha
      context.fillStyle = this.stage.color(color)
      context.fillRect(this.xOf(from), top, Math.max(this.xOf(to) - this.xOf(from), 2 * unit), height)
      context.globalAlpha = 1
    }
    part(0, this.length - 1, "free", 0.35)
    for (const [frames, from, { picture }] of [[first, 0, this.ends[0]], [last, this.length - last, this.ends[1]]]) {
      if (!frames) continue
      const to = Math.min(from + frames - 1, this.length - 1)
      part(from, to, "kept", 0.8)
      const side = Math.min(height - 4 * unit, 120)
      const x = Math.min(Math.max(this.xOf(from), PAD), this.xOf(this.length - 1) - side)
      picture.drawCover(context, Math.max(x, PAD), top + 2 * unit, side, height - 4 * unit)
    }
    context.fillStyle = this.stage.color(document.activeElement === this.stage.canvas ? "text" : "accent")
    context.fillRect(this.xOf(this.length - 1) - 2 * unit, top - 3 * unit, 4 * unit, height + 6 * unit)
  }

  isAtEnd({ x }) {
    return !this.isWired && Math.abs(x - this.xOf(this.length - 1)) <= REACH_PX * this.stage.unit
  }

  press(point) {
    if (!this.isAtEnd(point)) return undefined
    return {
      move: ({ x }) => this.set(Math.round(((x - PAD) / (WIDTH - 2 * PAD)) * (this.#total - 1))),
      end: () => {
        rememberForUndo()
        setTimeout(() => this.show())
      },
    }
  }

  /** Sets the length to the nearest 4n+1 that the model was made for. */
  set(last) {
    const length = Math.max(Math.round(last / GROUP), 1) * GROUP + 1
    setWidget(this.node, "length", Math.min(length, this.video.most))
    this.show()
  }

  key(event) {
    const step = STEPS[event.key]
    if (!step || this.isWired) return event.key === "Delete" || event.key === "Backspace"
    this.set(this.length - 1 + step)
    rememberForUndo()
    return true
  }
}

/** Puts the bar on VDOT Extend. */
export function attachExtend(node) {
  new ExtendBar(node)
}
