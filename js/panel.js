/**
 * What a node shows beneath its inputs: an error, the strip of its last run, notes. One widget for all, made when there is
 * something to show, so that a fresh node stays small.
 */

import { app } from "../../scripts/app.js"
import { addElementWidget } from "./mounted.js"

const WIDGET = "vdot_panel"
const STYLE_ID = "vdot-style"
const SECTIONS = ["error", "strip", "notes"]
const MARGIN_PX = 10

const panels = new WeakMap()

/** The pack's stylesheet, which takes its colors from ComfyUI's theme. */
export function loadStyle() {
  if (document.getElementById(STYLE_ID)) return
  const link = document.createElement("link")
  Object.assign(link, { id: STYLE_ID, rel: "stylesheet", href: new URL("./vdot.css", import.meta.url).href })
  document.head.append(link)
}

/** An element with a class and children or text. */
export function element(tag, className, ...children) {
  const made = document.createElement(tag)
  made.className = className
  made.append(...children)
  return made
}

/** Makes room below for widgets that have grown by `change` px; a larger node keeps its slack. Vue nodes do this by themselves. */
export function growToFit(node, change = 0) {
  if (!window.LiteGraph?.vueNodesMode) {
    const [, height] = node.computeSize()
    node.setSize([node.size[0], Math.max(node.size[1] + Math.min(change, 0), height)])
  }
  node.setDirtyCanvas?.(true, true)
}

/** The content has about its node's width: ComfyUI's classic canvas gives it that of the page, or none, until it draws the node. */
function hasLayout(node, content) {
  const share = content.offsetWidth / node.size[0]
  return content.offsetParent !== null && (window.LiteGraph?.vueNodesMode || (share > 0.5 && share <= 1))
}

/**
 * Adds a widget that is as high as its content at the node's width, and is no part of a saved workflow.
 * @param {object} node a LiteGraph node
 * @param {string} name of the widget
 * @param {HTMLElement} content
 * @returns {object} the widget; its `vdotFit()` measures the content again
 */
export function addFittingWidget(node, name, content) {
  let height = 0
  const widget = addElementWidget(node, name, element("div", "vdot-widget", content), {
    margin: MARGIN_PX,
    getMinHeight: () => height + 2 * MARGIN_PX,
    getMaxHeight: () => height + 2 * MARGIN_PX,
  })
  // A node out of sight has no layout, and one that has just been restored that of the page: the height that was measured last stays.
  const fit = () => {
    const measured = hasLayout(node, content) ? content.offsetHeight : height
    if (measured === height) return
    const change = measured - height
    height = measured
    growToFit(node, change)
  }
  new ResizeObserver(fit).observe(content)
  return widget
}

/**
 * A part of a node's panel.
 * @param {object} node a LiteGraph node
 * @param {"error" | "strip" | "notes"} name
 * @param {boolean} [make] makes it where it is missing
 * @returns {HTMLElement | undefined}
 */
export function panelSection(node, name, make = true) {
  let panel = panels.get(node)
  if (!panel && !make) return undefined
  if (!panel) {
    panel = element("div", "vdot-panel", ...SECTIONS.map((section) => element("div", `vdot-section vdot-${section}`)))
    for (const section of panel.children) section.hidden = true
    panels.set(node, panel)
    addFittingWidget(node, WIDGET, panel)
    app.canvas?.setDirty(true, true)
  }
  return panel.children[SECTIONS.indexOf(name)]
}
