/**
 * What a task node tells the model: moments of its frames with the mask hatched, references, and a bar of the entire video; of
 * VDOT Crop, the window that it cuts out.
 */

import { chain } from "./graph.js"
import { element, panelSection } from "./panel.js"
import { onSaid } from "./restore.js"
import { text } from "./strings.js"

const SETTING = "VDOT.ShowStrip"
const CLOSED = "vdot_strip_closed"
const VERSION = 1
const MAX_REFERENCES = 1000
const LEGEND = ["kept", "guided", "free"]

const nodes = new Set()
let isSwitchedOn = true

/** The setting that hides all strips. */
export function stripSetting() {
  return {
    id: SETTING,
    category: ["VDOT", "Nodes", "Strip"],
    name: "Show on task nodes what the model is given",
    tooltip: "A small picture after each run: kept, guided and generated regions, and references.",
    type: "boolean",
    defaultValue: true,
    onChange: (value) => {
      isSwitchedOn = value !== false
      nodes.forEach(update)
    },
  }
}

function isClosed(node) {
  return Boolean(node.properties?.[CLOSED])
}

/** Brings visibility and the button's state in step with the setting and the node's own choice. */
function update(node) {
  const section = panelSection(node, "strip", false)
  const button = section?.querySelector("button")
  if (!button) return
  section.hidden = !isSwitchedOn
  button.setAttribute("aria-expanded", String(!isClosed(node)))
  section.querySelector(".vdot-strip-body").hidden = isClosed(node)
}

function toggle(node) {
  if (isClosed(node)) delete node.properties[CLOSED]
  else node.setProperty?.(CLOSED, true)
  update(node)
}

function fill(section, node, strip) {
  const button = element("button", "vdot-fold", text(`${strip.kind}_title`))
  button.type = "button"
  button.addEventListener("click", () => toggle(node))
  const parts = strip.kind === "task" ? LEGEND : []
  const legend = element("div", "vdot-legend", ...parts.map((part) => element("span", `vdot-${part}`, text(`strip_${part}`))))
  const picture = element("img", "vdot-strip-picture")
  picture.src = strip.image
  picture.draggable = false
  const references = Array.from({ length: strip.references }, (_, number) => text("strip_reference", { number: number + 1 }))
  picture.alt = text("strip_alt", { frames: strip.frames.join(", "), references: strip.references })
  const labels = [...strip.frames, ...references].map((label) => element("span", "", String(label)))
  const body = element("div", "vdot-strip-body", picture, element("div", "vdot-strip-labels", ...labels))
  section.replaceChildren(element("div", "vdot-strip-head", button, legend), body)
}

/** A strip as it was sent; undefined for what is none, such as that of another version in a history. */
function readStrip(sent) {
  let strip
  try {
    strip = JSON.parse(sent)
  } catch {
    return undefined
  }
  const { version, image, frames, references } = strip ?? {}
  const isWhole = Array.isArray(frames) && references >= 0 && references <= MAX_REFERENCES
  return version === VERSION && String(image).startsWith("data:image/webp;base64,") && isWhole ? strip : undefined
}

/**
 * Shows a node's strip in place of the one before.
 * @param {object} node a LiteGraph node
 * @param {string | undefined} sent JSON of {version, kind, image, frames, references}
 */
export function showStrip(node, sent) {
  const strip = readStrip(sent)
  if (!strip) return
  fill(panelSection(node, "strip"), node, strip)
  nodes.add(node)
  update(node)
}

/**
 * Makes a node show the strip of its runs.
 * @param {object} node a LiteGraph node
 */
export function attachStrip(node) {
  onSaid(node, (message) => showStrip(node, message?.vdot_strip?.[0]))
  chain(node, "onRemoved", () => nodes.delete(node))
}
