/**
 * A picture that can be drawn on: one canvas with pointer, keyboard, theme colors and sharp pixels at any zoom of the graph.
 *
 * An owner gives it hooks: `draw(context, scale)` in the picture's own pixels, `cursor(point)`, `press(point, event)`, which
 * answers a drag `{move(point, event), end()}` or nothing, and `key(event)`, which answers true for a key that it uses.
 */

import { element } from "./panel.js"

const MAX_ZOOM = 2

export class Stage {
  #drag
  #pending = false
  #view = { x: 0, y: 0, width: 1, height: 1 }

  /**
   * @param {string} label for screen readers, with the keys
   * @param {object} hooks see above
   */
  constructor(label, hooks) {
    this.hooks = hooks
    this.canvas = element("canvas", "vdot-stage-canvas")
    this.canvas.tabIndex = 0
    this.canvas.setAttribute("role", "application")
    this.canvas.setAttribute("aria-label", label)
    this.canvas.title = label
    this.element = element("div", "vdot-stage", this.canvas)
    this.#listen()
    new ResizeObserver(() => this.redraw()).observe(this.canvas)
  }

  /** The part of the picture's plane that is shown, in its pixels. */
  get view() {
    return this.#view
  }

  set view(view) {
    this.#view = view
    this.element.style.setProperty("--vdot-ratio", String(view.width / view.height))
    this.redraw()
  }

  get dragging() {
    return Boolean(this.#drag)
  }

  /** A color of the theme, by the name of its variable in vdot.css. */
  color(name) {
    return getComputedStyle(this.canvas).getPropertyValue(`--vdot-${name}`).trim()
  }

  /** How many of the picture's pixels one pixel of the page is. */
  get unit() {
    return this.#view.width / Math.max(this.canvas.clientWidth, 1)
  }

  /** Draws once before the next frame of the page. */
  redraw() {
    if (this.#pending) return
    this.#pending = true
    requestAnimationFrame(() => {
      this.#pending = false
      this.#draw()
    })
  }

  #draw() {
    const { clientWidth: width, clientHeight: height } = this.canvas
    if (!width || !height) return
    const zoom = this.canvas.getBoundingClientRect().width / width
    const density = window.devicePixelRatio * Math.min(Math.max(zoom, 1), MAX_ZOOM)
    const pixels = [Math.round(width * density), Math.round(height * density)]
    if (this.canvas.width !== pixels[0]) this.canvas.width = pixels[0]
    if (this.canvas.height !== pixels[1]) this.canvas.height = pixels[1]
    const context = this.canvas.getContext("2d")
    const scale = pixels[0] / this.#view.width
    context.setTransform(1, 0, 0, 1, 0, 0)
    context.clearRect(0, 0, ...pixels)
    context.setTransform(scale, 0, 0, scale, -this.#view.x * scale, -this.#view.y * scale)
    this.hooks.draw(context, this.unit)
  }

  #point(event) {
    const { left, top, width, height } = this.canvas.getBoundingClientRect()
    return {
      x: this.#view.x + ((event.clientX - left) / width) * this.#view.width,
      y: this.#view.y + ((event.clientY - top) / height) * this.#view.height,
    }
  }

  #listen() {
    const { canvas } = this
    canvas.addEventListener("pointerdown", (event) => {
      event.stopPropagation()
      if (event.button !== 0) return
      canvas.focus({ preventScroll: true })
      this.#drag = this.hooks.press(this.#point(event), event)
      if (this.#drag) canvas.setPointerCapture(event.pointerId)
      this.redraw()
    })
    canvas.addEventListener("pointermove", (event) => {
      if (!this.#drag) {
        canvas.style.cursor = this.hooks.cursor(this.#point(event))
        return
      }
      event.stopPropagation()
      this.#drag.move(this.#point(event), event)
      this.redraw()
    })
    for (const end of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(end, () => {
        this.#drag?.end()
        this.#drag = undefined
        this.redraw()
      })
    }
    canvas.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || !this.hooks.key(event)) return
      event.preventDefault()
      event.stopPropagation() // ComfyUI deletes the node on Delete
      this.redraw()
    })
    for (const change of ["focus", "blur"]) canvas.addEventListener(change, () => this.redraw())
  }
}
