/** The video as it takes shape, moving, on the VDOT Sampler node. Frames come as JPEGs in the "vdot.preview" message after each step. */

import { chain } from "./graph.js"
import { addElementWidget } from "./mounted.js"
import { element, growToFit } from "./panel.js"
import { Predictions } from "./predictions.js"
import { onSaid } from "./restore.js"
import { stopButton } from "./stop_early.js"
import { text } from "./strings.js"

const WIDGET = "vdot_preview"
const STYLE_ID = "vdot-preview-style"
const IDLE_HEIGHT_PX = 28
const LABEL_HEIGHT_PX = 20
const HEIGHT_RANGE_PX = [120, 320]
const MESSAGE_VERSION = 1

const MAX_REMEMBERED = 16

const previews = new WeakMap()
const alive = new Set()
/** Steps of the samplers of graphs that were open, without decoded pictures: an undo makes the same nodes again. */
const remembered = new Map()

const keyOf = ({ graph, id }) => `${graph?.id}:${id}`

/** Lets go of all pictures: another graph is opened, and ComfyUI does not tell nodes inside of subgraphs that they are removed. */
export function clearPreviews() {
  for (const preview of alive) {
    const key = keyOf(preview.node)
    remembered.delete(key)
    remembered.set(key, preview.predictions.messages)
    if (remembered.size > MAX_REMEMBERED) remembered.delete(remembered.keys().next().value)
    preview.clear()
  }
  alive.clear()
}

/** Shows the steps again that a node of the same graph and number had. */
export function recallPreview(node) {
  for (const message of remembered.get(keyOf(node)) ?? []) previews.get(node)?.show(message)
}

/** The preview that belongs to a sampler node, if it has one. */
export function previewOf(node) {
  return previews.get(node)
}

/** Bytes of base64 text, as a picture ready to draw. */
async function decodeFrame(base64, mime) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0))
  return createImageBitmap(new Blob([bytes], { type: mime }))
}

/** Plays the frames of the latest step in a loop. Holds one step's frames at a time and releases them when the next one is ready. */
class Preview {
  #frames = []
  #position = 0
  #timer = 0
  #newest = 0
  #run = 0
  #waiting = false
  #isNewRun = false
  #shown
  #queue = Promise.resolve()
  #fitted = IDLE_HEIGHT_PX

  constructor(node) {
    this.node = node
    this.canvas = document.createElement("canvas")
    this.label = document.createElement("span")
    this.predictions = new Predictions((message) => this.#open(message))
    this.stop = stopButton(node, () => this.#shown, () => this.predictions.held !== undefined)
    const row = element("div", "vdot-preview-row", this.label, this.stop.element)
    this.element = element("div", "vdot-widget vdot-preview", this.canvas, row, this.predictions.element)
    Object.assign(this.element.style, { display: "flex", flexDirection: "column", minHeight: `${IDLE_HEIGHT_PX}px`, overflow: "hidden" })
    Object.assign(this.canvas.style, {
      display: "none", flex: "1 1 0", minHeight: "0", width: "100%", objectFit: "contain", borderRadius: "6px",
    })
    this.label.textContent = text("preview_idle")
  }

  /** Height in px that suits the frames at a given node width. */
  height(width) {
    const [frame] = this.#frames
    if (!frame) return IDLE_HEIGHT_PX
    const fitting = ((width - 20) * frame.height) / frame.width
    return Math.round(Math.min(Math.max(fitting, HEIGHT_RANGE_PX[0]), HEIGHT_RANGE_PX[1])) + LABEL_HEIGHT_PX + this.predictions.height
  }

  /** The node begins to run: the last run's picture fades until the first new one arrives. */
  start() {
    this.#newest += 1
    this.#run += 1
    this.#waiting = true
    this.#isNewRun = true
    this.element.dataset.moving = String(!isSwitchedOff(this.node))
    this.canvas.style.opacity = "0.35"
    this.label.textContent = text("preview_start")
  }

  /** The run is over; one without a single frame leaves no picture of an earlier run behind. */
  finish() {
    if (this.#waiting) {
      this.clear()
      this.label.textContent = text("preview_off")
    }
    this.#waiting = false
  }

  /** The run ended early; what was reached stays. */
  end() {
    this.#newest += 1
    this.#waiting = false
    this.canvas.style.opacity = "1"
    this.label.textContent = text("preview_stopped")
  }

  /**
   * Takes in one step's frames, and shows them where no other step is held.
   * @param {{version: number, frames: string[], mime: string, fps: number, step: number, num_steps: number}} message
   */
  show(message) {
    if (message.version !== MESSAGE_VERSION) {
      console.warn(`vdot.preview message has version ${message.version}, this page knows ${MESSAGE_VERSION}; reload the page`)
      return
    }
    this.#waiting = false
    alive.add(this)
    const run = this.#run
    this.#queue = this.#queue.then(() => this.#take(message, run), console.error)
  }

  /** Steps come in order, one after the other, however long their pictures take; those of a run that is gone are dropped. */
  async #take(message, run) {
    if (run !== this.#run) return
    const ticket = this.#newest
    const middle = await decodeFrame(message.frames[message.frames.length >> 1], message.mime)
    if (ticket === this.#newest || this.predictions.held) {
      if (this.#isNewRun) this.predictions.clear()
      this.#isNewRun = false
      this.predictions.add(message, middle)
    }
    middle.close()
    if (ticket === this.#newest && (this.predictions.held ?? message) === message) await this.#open(message)
  }

  /** Shows a step in the large picture. */
  async #open(message) {
    const ticket = (this.#newest += 1)
    const frames = await Promise.all(message.frames.map((frame) => decodeFrame(frame, message.mime)))
    if (ticket !== this.#newest || !frames.length) {
      frames.forEach((frame) => frame.close())
      return
    }
    this.#shown = message
    this.#replaceFrames(frames)
    this.canvas.style.opacity = "1"
    this.label.textContent = text(message.sigma === undefined ? "preview_step" : "preview_told", message)
    this.element.dataset.step = String(message.step)
    this.stop.update()
    this.#play(message.fps)
  }

  /** Lets go of frames and timer. A node that comes back (undo, moved into a subgraph) can show frames again. */
  clear() {
    this.#newest += 1
    this.#run += 1
    this.#shown = undefined
    this.predictions.clear()
    this.stop.update()
    this.#replaceFrames([])
  }

  #replaceFrames(frames) {
    clearInterval(this.#timer)
    this.#timer = 0
    this.#frames.forEach((frame) => frame.close())
    this.#frames = frames
    this.#position = Math.min(this.#position, Math.max(frames.length - 1, 0))
    this.canvas.style.display = frames.length ? "block" : "none"
    if (frames.length) {
      this.canvas.width = frames[0].width
      this.canvas.height = frames[0].height
      this.#draw()
    }
    const height = this.height(this.node.size[0])
    if (Math.abs(height - this.#fitted) > 1) {
      this.element.style.minHeight = `${height}px`
      growToFit(this.node)
    }
    this.#fitted = height
  }

  #play(fps) {
    const still = window.matchMedia("(prefers-reduced-motion: reduce)").matches
    if (still || this.#frames.length < 2) return
    this.#timer = setInterval(() => {
      if (document.hidden || !this.canvas.isConnected) return
      this.#position = (this.#position + 1) % this.#frames.length
      this.#draw()
    }, 1000 / Math.min(Math.max(fps, 1), 30))
  }

  #draw() {
    this.canvas.getContext("2d").drawImage(this.#frames[this.#position], 0, 0)
    this.element.dataset.frame = String(this.#position)
  }
}

/**
 * Puts a preview on a sampler node.
 * @param {object} node a LiteGraph node
 */
export function attachPreview(node) {
  const preview = new Preview(node)
  const widget = addElementWidget(node, WIDGET, preview.element, {
    getMinHeight: () => preview.height(node.size[0]) + 2 * (widget.margin ?? 10),
  })
  previews.set(node, preview)
  hideStillPreview(node, preview.element)
  onSaid(node, () => preview.finish())
  chain(node, "onRemoved", () => {
    preview.clear()
    alive.delete(preview)
  })
}

/**
 * ComfyUI shows its own still preview of the same frame below ours; the node shows one picture, the moving one. With the node's
 * `preview` switched off, the still is left alone.
 */
function hideStillPreview(node, element) {
  const draw = node.onDrawBackground
  node.onDrawBackground = function (...args) {
    if (isSwitchedOff(this)) draw?.apply(this, args)
  }
  element.dataset.moving = "true"
  if (document.getElementById(STYLE_ID)) return
  const still = '[data-testid^="node-body"]:has(.vdot-preview[data-moving="true"]) > img[src^="blob:"]'
  const style = document.createElement("style")
  style.id = STYLE_ID
  style.textContent = `${still}, ${still} + div { display: none }`
  document.head.append(style)
}

function isSwitchedOff(node) {
  return node.widgets?.find((widget) => widget.name === "preview")?.value === false
}
