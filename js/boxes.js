/**
 * Boxes over time, drawn on the picture: VDOT Layout, VDOT Move and VDOT Box Mask. The text input stays what is saved and run;
 * both sides follow each other.
 */

import { newThing, readBoxes, removeKey, setValues, sortedKeys, valuesAt, writeBoxes } from "./boxes_text.js"
import { boxOf, drawBackdrop, drawBox, drawPath, hitBox, ordered, PALETTE } from "./boxes_view.js"
import { addEditor, FrameSlider, MAX_TEXT, tool } from "./editor.js"
import { chain, rememberForUndo, setWidget } from "./graph.js"
import { element } from "./panel.js"
import { VideoLength } from "./length.js"
import { Backdrop } from "./picture.js"
import { Stage } from "./stage.js"
import { text } from "./strings.js"
import { typed } from "./typed.js"
import { isWired, numberOf, valueOf, widgetOf } from "./wires.js"

/** Nodes whose `boxes` are drawn. */
export const BOX_NODES = ["VDOTLayout", "VDOTMove", "VDOTBoxMask"]

const DEFAULT_SIZE = [832, 480]
const MULTIPLE = 16
const MIN_DRAWN_PX = 6
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }
const FOLLOWED = ["boxes", "colors", "width", "height", "length", "box_width", "box_height"]

class BoxEditor {
  things = []
  selected = -1
  /** The text could not be read, or comes over a wire: nothing can be drawn. */
  problem = ""
  #writing = false
  #text = ""

  constructor(node) {
    this.node = node
    this.backdrop = new Backdrop(node, () => this.show())
    this.video = new VideoLength(node, () => this.backdrop.state, () => this.read())
    this.slider = new FrameSlider(() => this.show())
    this.stage = new Stage(text("boxes_keys"), {
      draw: (context, unit) => this.draw(context, unit),
      cursor: (point) => this.hit(point)?.cursor ?? (this.problem ? "not-allowed" : "crosshair"),
      press: (point) => this.press(point),
      key: (event) => this.key(event),
    })
    this.message = element("div", "vdot-stage-message")
    this.stage.element.append(this.message)
    this.paint = element("input", "vdot-color")
    Object.assign(this.paint, { type: "color", title: text("boxes_color") })
    this.paint.setAttribute("aria-label", text("boxes_color"))
    this.paint.addEventListener("change", () => this.setColor(this.paint.value))
    const tools = [
      tool("+", text("boxes_add"), () => this.add()),
      ...(widgetOf(node, "colors") ? [this.paint] : []),
      tool("\u2715", text("boxes_remove"), () => this.remove(true)),
    ]
    for (const name of FOLLOWED) {
      const widget = widgetOf(node, name)
      if (widget) chain(widget, "callback", () => this.read())
    }
    addEditor(node, {
      title: text("boxes_title"),
      tools,
      parts: [this.stage.element, this.slider.element],
      state: () => [this.size, this.numFrames, this.boxSize, this.colors, this.video.state],
      opened: () => this.read(),
    })
    chain(node, "onConfigure", () => this.read())
    chain(node, "onConnectionsChange", () => setTimeout(() => this.read()))
  }

  number(name) {
    return numberOf(this.node, name)
  }

  /** Size of the video: the node's widgets, else the picture behind. */
  get size() {
    const snapped = (side) => Math.max(MULTIPLE, Math.floor(side / MULTIPLE) * MULTIPLE)
    if (!widgetOf(this.node, "width")) return this.backdrop.size ?? DEFAULT_SIZE
    const own = this.backdrop.size ?? DEFAULT_SIZE
    return [snapped(this.number("width") || own[0]), snapped(this.number("height") || own[1])]
  }

  get numFrames() {
    return this.video.written || (this.backdrop.numFrames ?? 1)
  }

  get boxSize() {
    return [this.number("box_width") || 128, this.number("box_height") || 128]
  }

  get boxes() {
    return this.things.map((thing) => boxOf(valuesAt(thing, this.slider.frame, this.numFrames), this.boxSize))
  }

  get colors() {
    return typed(valueOf(this.node, "colors") ?? "").split(",").map((name) => name.trim()).filter(Boolean)
  }

  /** The keys of the selected thing, or of all, for the slider. */
  get marks() {
    const shown = this.selected < 0 ? [...this.things.keys()] : [this.selected]
    return shown.flatMap((index) =>
      sortedKeys(this.things[index], this.numFrames).map(({ frame }) => ({ frame, color: this.colorOf(index) })),
    )
  }

  colorOf(index) {
    const { colors } = this
    const own = colors.length === 1 ? colors[0] : colors[index]
    return own && CSS.supports("color", own) ? own : PALETTE[index % PALETTE.length]
  }

  get text() {
    return String(widgetOf(this.node, "boxes")?.value ?? "")
  }

  /** Other code may have set the text without a word. */
  follow() {
    if (this.text !== this.#text) this.read()
  }

  /** Takes the node's text over. */
  read() {
    if (this.#writing || !this.stage) return
    this.backdrop.refresh()
    const wired = this.node.inputs?.some((input) => input.name === "boxes" && input.link != null)
    this.#text = this.text
    const isLong = this.#text.length > MAX_TEXT
    const things = isLong ? undefined : readBoxes(this.#text)
    this.problem = wired ? text("boxes_wired") : isLong ? text("text_long") : things ? "" : text("boxes_unclear")
    this.things = wired ? [] : (things ?? [])
    if (this.selected >= this.things.length) this.selected = this.things.length - 1
    this.show()
  }

  /** Writes the things into the node's text. */
  write() {
    this.#writing = true
    this.#text = writeBoxes(this.things)
    setWidget(this.node, "boxes", this.#text)
    this.#writing = false
    this.show()
  }

  /** Brings the picture and the slider in step with what is known. */
  show() {
    if (!this.stage) return
    const [width, height] = this.size
    const { view } = this.stage
    if (view.width !== width || view.height !== height) this.stage.view = { x: 0, y: 0, width, height }
    const thing = this.things[this.selected]
    this.slider.show(this.numFrames, this.marks, this.video.along)
    this.backdrop.seek(this.video.moved(this.slider.frame))
    this.message.textContent = this.problem || (this.things.length ? "" : text("boxes_hint"))
    this.paint.disabled = !thing || isWired(this.node, "colors")
    if (thing && this.colorOf(this.selected).startsWith("#")) this.paint.value = this.colorOf(this.selected)
    this.stage.redraw()
  }

  draw(context, unit) {
    this.follow()
    drawBackdrop(context, this.stage, this.backdrop, this.size, unit)
    const { boxes, numFrames, boxSize } = this
    const order = [...boxes.keys()].sort((a, b) => (a === this.selected) - (b === this.selected))
    for (const index of order) {
      const isKey = sortedKeys(this.things[index], numFrames).some(({ frame }) => frame === this.slider.frame)
      drawPath(context, this.things[index], numFrames, boxSize, this.colorOf(index), unit)
      drawBox(context, boxes[index], String(index + 1), this.colorOf(index), unit, { selected: index === this.selected, isKey })
    }
  }

  hit(point) {
    return this.problem ? undefined : hitBox(this.boxes, this.selected, point, this.stage.unit)
  }

  press(point) {
    this.follow()
    if (this.problem) return undefined
    const hit = this.hit(point)
    if (!hit) return this.drawNew(point)
    this.selected = hit.index
    this.show()
    const box = this.boxes[hit.index]
    const frame = this.slider.frame
    return {
      move: ({ x, y }) => {
        const by = [x - point.x, y - point.y, x - point.x, y - point.y]
        this.place(hit.index, frame, box.map((side, index) => side + by[index] * hit.sides[index]), hit.sides)
      },
      end: rememberForUndo,
    }
  }

  /** A drag on the free picture draws the next thing; a click there only drops the selection. */
  drawNew(start) {
    const before = this.things
    this.selected = -1
    return {
      move: ({ x, y }) => {
        const box = [Math.min(start.x, x), Math.min(start.y, y), Math.max(start.x, x), Math.max(start.y, y)]
        const drawn = Math.min(box[2] - box[0], box[3] - box[1]) >= MIN_DRAWN_PX * this.stage.unit
        this.things = drawn ? [...before, newThing(this.slider.frame, box, this.numFrames)] : before
        this.selected = drawn ? before.length : -1
      },
      end: () => {
        if (this.things === before) return this.show()
        this.fitColors(before.length)
        this.write()
        rememberForUndo()
      },
    }
  }

  /** Puts a thing's box somewhere in a frame; the middle of one on a path, whose size is the node's. */
  place(index, frame, box, sides) {
    const thing = this.things[index]
    const [left, top, right, bottom] = ordered(box, sides).map(Math.round)
    if (thing.keys[0].values.length === 2) {
      this.#writing = true
      setWidget(this.node, "box_width", right - left)
      setWidget(this.node, "box_height", bottom - top)
      this.#writing = false
      setValues(thing, frame, [(left + right) / 2, (top + bottom) / 2], this.numFrames)
    } else {
      setValues(thing, frame, [left, top, right, bottom], this.numFrames)
    }
    this.write()
  }

  /** A new box in the middle of the picture. */
  add() {
    if (this.problem) return
    const [width, height] = this.size
    const step = 12 * (this.things.length % 5)
    const box = [width * 0.35, height * 0.3, width * 0.65, height * 0.7].map((side) => Math.round(side + step))
    this.things = [...this.things, newThing(this.slider.frame, box, this.numFrames)]
    this.selected = this.things.length - 1
    this.fitColors(this.selected)
    this.write()
    rememberForUndo()
  }

  /** Removes the selected thing, or only its key of this frame. */
  remove(entirely) {
    const thing = this.things[this.selected]
    if (!thing || this.problem) return
    if (entirely || !removeKey(thing, this.slider.frame, this.numFrames) || !thing.keys.length) {
      const { colors } = this
      this.things = this.things.filter((other) => other !== thing)
      if (colors.length > 1) this.writeColors(colors.toSpliced(this.selected, 1))
      this.selected = Math.min(this.selected, this.things.length - 1)
    }
    this.write()
    rememberForUndo()
  }

  /** One color for each thing, or one for all: a thing that was added to several gets its own. */
  fitColors(before) {
    const { colors } = this
    if (colors.length > 1 && colors.length === before) this.writeColors([...colors, PALETTE[before % PALETTE.length]])
  }

  setColor(color) {
    if (!this.things[this.selected]) return
    const { colors } = this
    const each = this.things.map((_, index) => (colors.length === 1 ? colors[0] : (colors[index] ?? "black")))
    this.writeColors(each.with(this.selected, color))
    this.show()
    rememberForUndo()
  }

  writeColors(colors) {
    this.#writing = true
    setWidget(this.node, "colors", colors.join(", "))
    this.#writing = false
  }

  key(event) {
    this.follow()
    const arrow = ARROWS[event.key]
    const box = this.boxes[this.selected]
    if (arrow && box && !this.problem) {
      const by = event.shiftKey ? MULTIPLE : 1
      const sides = event.altKey ? [0, 0, 1, 1] : [1, 1, 1, 1]
      this.place(this.selected, this.slider.frame, box.map((side, index) => side + by * arrow[index % 2] * sides[index]), sides)
      rememberForUndo()
      return true
    }
    const step = { PageUp: 1, PageDown: -1, Home: -Infinity, End: Infinity }[event.key]
    if (step) {
      this.slider.frame = Math.min(Math.max(this.slider.frame + step, 0), this.numFrames - 1)
      return true
    }
    if (event.key === "Delete" || event.key === "Backspace") this.remove(event.shiftKey)
    else if (event.key === "n" || event.key === "Insert") this.add()
    else if (event.key === "Enter" || event.key === " ") this.selected = this.things.length ? (this.selected + 1) % this.things.length : -1
    else if (event.key === "Escape") this.selected = -1
    else return false
    this.show()
    return true
  }

}

/** Puts the editor on a node that has boxes. */
export function attachBoxes(node) {
  new BoxEditor(node)
}
