/**
 * The predictions of a run as small pictures, one for each quarter of its steps: of four steps, all. Pressing one holds it in the
 * large preview, until it is pressed again.
 */

import { element } from "./panel.js"
import { text } from "./strings.js"

const NUM_PICTURES = 4

/** Height in px of the row, with its gap. */
export const ROW_PX = 42

/** A row of pictures; keeps the messages whose frames a press shows again. */
export class Predictions {
  #slots = new Map()
  #held

  /** @param {(message: object) => void} show what a press shows: the pressed step's message, or at release the newest */
  constructor(show) {
    this.show = show
    this.element = element("div", "vdot-predictions")
    this.element.hidden = true
  }

  /** The message that is held, if one is. */
  get held() {
    return this.#held
  }

  /** The messages of the steps, in order. */
  get messages() {
    return [...this.#slots.values()].map(({ message }) => message)
  }

  /** One picture alone would repeat the preview. */
  get height() {
    return this.#slots.size > 1 ? ROW_PX : 0
  }

  /**
   * Takes a step in; a later step of the same quarter replaces an earlier one.
   * @param {object} message of the step
   * @param {ImageBitmap} picture a frame of it, which the caller closes
   */
  add(message, picture) {
    const slot = Math.floor(((message.step - 1) * NUM_PICTURES) / message.num_steps)
    const entry = this.#slots.get(slot) ?? this.#entry(slot)
    if (this.#held && this.#held === entry.message) this.#held = message
    entry.message = message
    Object.assign(entry.canvas, { width: picture.width, height: picture.height })
    entry.canvas.getContext("2d").drawImage(picture, 0, 0)
    entry.button.title = text("preview_hold", { step: message.step })
    entry.button.setAttribute("aria-label", entry.button.title)
    this.element.hidden = this.#slots.size < 2
  }

  clear() {
    this.#held = undefined
    this.#slots.clear()
    this.element.replaceChildren()
    this.element.hidden = true
  }

  #entry(slot) {
    const canvas = document.createElement("canvas")
    const button = element("button", "vdot-prediction", canvas)
    button.type = "button"
    button.setAttribute("aria-pressed", "false")
    const entry = { canvas, button }
    button.addEventListener("click", () => this.#press(entry))
    this.#slots.set(slot, entry)
    this.element.append(button)
    return entry
  }

  #press(entry) {
    this.#held = this.#held === entry.message ? undefined : entry.message
    for (const { button, message } of this.#slots.values()) button.setAttribute("aria-pressed", String(message === this.#held))
    this.show(this.#held ?? [...this.#slots.values()].at(-1).message)
  }
}
