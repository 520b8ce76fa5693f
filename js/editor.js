/** The frame around a picture to draw on: a head that folds, tools, the picture, and a slider for the moment. */

import { chain, rememberForUndo } from "./graph.js"
import { addFittingWidget, element } from "./panel.js"
import { text } from "./strings.js"


/** Characters of a text that is drawn: some thousand points. */
export const MAX_TEXT = 20000

/** How often an editor in view looks at the graph. */
const PERIOD_MS = 150

const lookers = new WeakMap()
const inView = new Set()
const observer = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (isIntersecting) inView.add(target)
    else inView.delete(target)
  }
})
setInterval(() => inView.forEach((content) => lookers.get(content)()), PERIOD_MS)

/**
 * Calls `changed` when what an editor is made from has changed, wherever it is set: values come over wires, and other nodes, packs and
 * ComfyUI itself set them without a word. Editors out of view follow when they come into view.
 * @param {HTMLElement} content of the editor
 * @param {() => unknown} state of the graph, as JSON
 * @param {() => void} changed
 */
function follow(content, state, changed) {
  let last
  lookers.set(content, () => {
    const now = JSON.stringify(state())
    if (now === last) return
    last = now
    changed()
  })
  observer.observe(content)
}

/** A small button of the pack's editors. */
export function tool(label, title, act) {
  const button = element("button", "vdot-tool", label)
  Object.assign(button, { type: "button", title })
  button.setAttribute("aria-label", title)
  button.addEventListener("click", act)
  return button
}

/** A slider over a video's frames, with a dot for each marked frame; a click on a dot goes there. */
export class FrameSlider {
  constructor(changed) {
    this.changed = changed
    this.input = element("input", "vdot-slider")
    Object.assign(this.input, { type: "range", min: "0", max: "0", step: "1", value: "0" })
    this.input.setAttribute("aria-label", text("editor_frame"))
    this.input.addEventListener("input", () => changed(this.frame))
    for (const name of ["pointerdown", "keydown"]) this.input.addEventListener(name, (event) => event.stopPropagation())
    this.dots = element("div", "vdot-dots")
    this.label = element("output", "vdot-frame")
    this.element = element("div", "vdot-moment", element("div", "vdot-track", this.input, this.dots), this.label)
  }

  get frame() {
    return Number(this.input.value)
  }

  set frame(frame) {
    this.input.value = String(frame)
    this.changed(this.frame)
  }

  /** Length of the video, the marked frames with their color, and more words on the moment. */
  show(numFrames, marks, more = "") {
    this.element.hidden = numFrames < 2
    this.input.max = String(numFrames - 1)
    this.label.textContent = [`${this.frame} / ${numFrames - 1}`, more].filter(Boolean).join(", ")
    this.dots.replaceChildren(
      ...marks.map(({ frame, color }) => {
        const dot = element("i", "vdot-dot")
        dot.classList.toggle("vdot-here", frame === this.frame)
        dot.style.left = `${(100 * frame) / Math.max(numFrames - 1, 1)}%`
        dot.style.setProperty("--vdot-mark", color)
        dot.title = text("editor_go_to", { frame })
        dot.addEventListener("click", () => (this.frame = frame))
        return dot
      }),
    )
  }
}

/**
 * Adds a folding editor to a node, open unless it was folded, which is saved.
 * @param {object} node a LiteGraph node
 * @param {{name?: string, title: string, tools?: HTMLElement[], parts: HTMLElement[], state: () => unknown, opened: () => void}} options
 *   `state` is what the editor takes from other nodes, as JSON; `opened` reads the graph again.
 */
export function addEditor(node, { name = "vdot_editor", title, tools = [], parts, state, opened }) {
  const folded = `${name}_folded`
  const fold = element("button", "vdot-fold", title)
  fold.type = "button"
  const bar = element("div", "vdot-tools", ...tools)
  const body = element("div", "vdot-editor-body", ...parts)
  const content = element("div", "vdot-editor", element("div", "vdot-strip-head", fold, bar), body)
  const show = () => {
    const isOpen = !node.properties[folded]
    fold.setAttribute("aria-expanded", String(isOpen))
    body.hidden = bar.hidden = !isOpen
    if (isOpen) opened()
  }
  fold.addEventListener("click", () => {
    if (node.properties[folded]) delete node.properties[folded]
    else node.properties[folded] = true
    show()
    rememberForUndo()
  })
  addFittingWidget(node, name, content)
  chain(node, "onConfigure", show)
  // Only in a graph does a node have wires to follow.
  chain(node, "onAdded", () => setTimeout(show))
  follow(content, () => node.graph && !body.hidden && state(), opened)
  show()
}
