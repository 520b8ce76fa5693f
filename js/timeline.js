/**
 * Points in time, dragged on a bar of the video: the moments of VDOT Keyframes, with their pictures, and the curve of VDOT Strength.
 * The text input stays what is saved and run; both sides follow each other. A point snaps to latent frames, which are frame 0 and
 * then groups of four: to the last frame of its group; with Shift it stands where it is put.
 */

import { addEditor, MAX_TEXT } from "./editor.js"
import { chain, rememberForUndo, setWidget } from "./graph.js"
import { element } from "./panel.js"
import { VideoLength } from "./length.js"
import { Backdrop } from "./picture.js"
import { Stage } from "./stage.js"
import { text } from "./strings.js"
import { CURVE, GROUP, PAD, POSITIONS, WIDTH } from "./timeline_text.js"
import { drawTimeline } from "./timeline_view.js"
import { widgetOf } from "./wires.js"

/** The text input and its form, by node; `numFrames` where the node does not know its video's length. */
export const TIMELINES = {
  VDOTKeyframes: { widget: "positions", form: POSITIONS, pictures: "images", height: 190 },
  VDOTStrength: { widget: "curve", form: CURVE, numFrames: 81, height: 260 },
}

const RULER_PX = 21
const REACH_PX = 10
const MAX_STRENGTH_SHOWN = 2
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }

class Timeline {
  points = []
  selected = -1
  problem = ""
  #writing = false
  #text = ""

  constructor(node, { widget, form, pictures, numFrames, height }) {
    Object.assign(this, { node, name: widget, form, pictures, length: numFrames, height })
    this.thumbnails = []
    const behind = new Backdrop(node, () => {})
    this.video = new VideoLength(node, () => behind.state, () => this.read())
    this.stage = new Stage(text(form.hasValue ? "curve_keys" : "timeline_keys"), {
      draw: (context, unit) => {
        this.follow()
        drawTimeline(this, context, unit)
      },
      cursor: (point) => (this.hit(point) >= 0 ? "grab" : form.hasValue && !this.problem ? "crosshair" : "default"),
      press: (point) => this.press(point),
      key: (event) => this.key(event),
    })
    this.message = element("div", "vdot-stage-message")
    this.stage.element.append(this.message)
    this.stage.view = { x: 0, y: 0, width: WIDTH, height }
    this.label = element("output", "vdot-size")
    for (const name of [widget, "length"]) {
      const followed = widgetOf(node, name)
      if (followed) chain(followed, "callback", () => this.read())
    }
    addEditor(node, {
      title: text(form.hasValue ? "curve_title" : "timeline_title"),
      parts: [this.stage.element, this.label],
      state: () => [this.video.written, this.video.state, this.thumbnails.map((thumbnail) => thumbnail.state)],
      opened: () => this.read(),
    })
    chain(node, "onConfigure", () => this.read())
    chain(node, "onConnectionsChange", () => setTimeout(() => this.read()))
  }

  /** Length of the video; else of a usual one, or to the last point. */
  get numFrames() {
    return this.video.written || Math.max(this.length, ...this.points.map(({ frame }) => frame + 1))
  }

  get text() {
    return String(widgetOf(this.node, this.name)?.value ?? "")
  }

  /** Other code may have set the text without a word. */
  follow() {
    if (this.text !== this.#text) this.read()
  }

  /** Takes the node's text and pictures over. */
  read() {
    if (this.#writing || !this.stage) return
    const wired = this.node.inputs?.some((input) => input.name === this.name && input.link != null)
    this.#text = this.text
    const isLong = this.#text.length > MAX_TEXT
    const points = isLong ? undefined : this.form.read(this.#text)
    const unread = isLong ? text("text_long") : text("boxes_unclear")
    this.problem = wired ? text("timeline_wired", { input: this.name }) : points ? "" : unread
    this.points = wired ? [] : (points ?? [])
    this.message.textContent = this.problem
    if (this.pictures) this.readPictures()
    this.show()
  }

  /** Draws the points; one that the run refuses, which stands at the bar's end, is named. */
  show() {
    const length = this.video.written
    const outside = length && this.points.find(({ frame }) => frame >= length || frame < -length)
    const said = outside && text("timeline_outside", { frame: outside.frame, last: length - 1 })
    this.label.textContent = said || this.video.along
    this.label.hidden = !this.label.textContent
    this.stage.redraw()
  }

  readPictures() {
    const slots = [...this.node.inputs.keys()].filter((slot) => this.node.inputs[slot].name.startsWith(`${this.pictures}.`))
    this.thumbnails = slots.map((slot, index) => {
      const thumbnail = this.thumbnails[index] ?? new Backdrop(this.node, () => this.stage.redraw())
      thumbnail.slot = slot
      thumbnail.refresh()
      return thumbnail
    })
  }

  write() {
    // The order of moments is that of the pictures; a curve is written in order of time.
    const points = this.form.hasValue ? this.points.toSorted((a, b) => this.frameOf(a) - this.frameOf(b)) : this.points
    this.#writing = true
    this.#text = this.form.write(points)
    setWidget(this.node, this.name, this.#text)
    this.#writing = false
    this.show()
  }

  frameOf(point) {
    const last = this.numFrames - 1
    return Math.min(Math.max(point.frame < 0 ? last + 1 + point.frame : point.frame, 0), last)
  }

  /** Where the ruler begins. */
  get floor() {
    return this.height - RULER_PX * this.stage.unit
  }

  xOf(frame) {
    return PAD + (frame / Math.max(this.numFrames - 1, 1)) * (WIDTH - 2 * PAD)
  }

  yOf(value) {
    const bottom = this.floor
    return bottom - (Math.min(value, MAX_STRENGTH_SHOWN) / this.top) * (bottom - 24)
  }

  /** The strength at the upper border. */
  get top() {
    return Math.min(MAX_STRENGTH_SHOWN, Math.max(1.2, ...this.points.map((point) => (point.value ?? 0) * 1.1)))
  }

  place(point) {
    return [this.xOf(this.frameOf(point)), this.form.hasValue ? this.yOf(point.value) : (this.floor) / 2]
  }

  hit(at) {
    if (this.problem) return -1
    const reach = REACH_PX * this.stage.unit
    const near = this.points.map((point) => this.place(point)).map(([x, y]) => Math.hypot(at.x - x, this.form.hasValue ? at.y - y : 0))
    const index = near.indexOf(Math.min(...near))
    const width = this.form.hasValue ? reach : Math.max(reach, this.thumbnailSize / 2)
    return index >= 0 && near[index] <= width ? index : -1
  }

  press(at) {
    this.follow()
    if (this.problem) return undefined
    this.selected = this.hit(at)
    if (this.selected < 0) {
      if (!this.form.hasValue) return undefined
      const frame = this.frameAt(at.x, false)
      const own = this.points.findIndex((point) => this.frameOf(point) === frame)
      if (own < 0) this.points = [...this.points, { frame, value: 1 }]
      this.selected = own < 0 ? this.points.length - 1 : own
      this.move(this.selected, at, false)
    }
    const index = this.selected
    return { move: (to, event) => this.move(index, to, event.shiftKey), end: rememberForUndo }
  }

  /** The frame at a place on the bar: of latent frames, or any. */
  frameAt(x, free) {
    const last = this.numFrames - 1
    const exact = ((x - PAD) / (WIDTH - 2 * PAD)) * last
    return Math.min(Math.max(free ? Math.round(exact) : Math.round(exact / GROUP) * GROUP, 0), last)
  }

  /** Puts a point under the pointer; two points of a curve never share a frame. */
  move(index, at, free) {
    const frame = this.frameAt(at.x, free)
    const bottom = this.floor
    const value = Math.min(Math.max(((bottom - at.y) / (bottom - 24)) * this.top, 0), MAX_STRENGTH_SHOWN)
    // A typed strength above the border stays as long as its point does.
    const kept = value > 0.95 * MAX_STRENGTH_SHOWN && this.points[index].value > MAX_STRENGTH_SHOWN
    this.set(index, frame, kept ? this.points[index].value : Math.round(value * 20) / 20)
  }

  set(index, frame, value) {
    const last = this.numFrames - 1
    const point = this.points[index]
    const taken = this.points.some((other) => other !== point && this.frameOf(other) === frame)
    if (!taken) point.frame = frame > 0 && frame === last ? -1 : frame
    if (this.form.hasValue) point.value = value
    this.write()
  }

  key(event) {
    this.follow()
    const arrow = ARROWS[event.key]
    const point = this.points[this.selected]
    if (this.problem) return false
    if (arrow && point) {
      const step = event.shiftKey ? 1 : GROUP
      const frame = Math.min(Math.max(this.frameOf(point) + arrow[0] * step, 0), this.numFrames - 1)
      const moved = Math.min(Math.max(point.value + arrow[1] * 0.05, 0), Math.max(point.value, MAX_STRENGTH_SHOWN))
      this.set(this.selected, frame, arrow[1] ? Math.round(moved * 100) / 100 : point.value)
      rememberForUndo()
      return true
    }
    if (event.key === "Enter" || event.key === " ") this.selected = this.points.length ? (this.selected + 1) % this.points.length : -1
    else if (event.key === "Escape") this.selected = -1
    else if ((event.key === "Delete" || event.key === "Backspace") && this.form.hasValue && this.points.length > 1 && point) {
      this.points = this.points.filter((other) => other !== point)
      this.selected = -1
      this.write()
      rememberForUndo()
    } else return event.key === "Delete" || event.key === "Backspace"
    return true
  }

  get thumbnailSize() {
    return Math.min(130, (WIDTH - 2 * PAD) / Math.max(this.points.length, 1) - 8)
  }
}

/** Puts the timeline on a node that has one. */
export function attachTimeline(node) {
  new Timeline(node, TIMELINES[node.comfyClass])
}
