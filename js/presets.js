/**
 * Presets on VDOT Sampler: selecting a preset shows its values, grayed out, so that the shown values are those that run.
 * "custom" makes them editable, starting from the preset's values or your last ones. "auto" hides them: the model decides when
 * it is known, and the node's note says what ran.
 */

import { chain } from "./graph.js"
import { text } from "./strings.js"
import { isWired, valueOf } from "./wires.js"

const CUSTOM = "custom"
const AUTO = "auto"
/** How often a preset that comes over a wire is looked at. */
const PERIOD_MS = 300

/** What each preset stands for. The node itself reads its own table; the browser tests hold the two against each other. */
export const PRESETS = {
  released: { steps: 4, shift: 16, solver: "unipc" },
  trained: { steps: 4, shift: 8, solver: "renoise" },
  sharp: { steps: 4, shift: 3.75, solver: "unipc" },
  vace: { steps: 25, shift: 16, solver: "unipc", cfg: 5 },
}

const GOVERNED = Object.keys(PRESETS.released)

/** The preset that is run. The numbers of one that comes over a wire are not in the widgets: they are hidden, as those of auto. */
function presetOf(node) {
  const preset = valueOf(node, "preset")
  return isWired(node, "preset") && preset !== CUSTOM ? AUTO : preset
}

/** Nodes whose preset comes over a wire, which changes without a word, and what was shown for it. */
const wired = new Map()
setInterval(() => {
  for (const [node, shown] of wired) if (presetOf(node) !== shown) updateDisabled(node)
}, PERIOD_MS)

/** Grays the governed widgets out, hides them, or neither; their values stay, so that a saved workflow opens as it was saved. */
function updateDisabled(node) {
  const widgets = new Map((node.widgets ?? []).map((widget) => [widget.name, widget]))
  const preset = presetOf(node)
  for (const name of Object.keys(PRESETS.vace)) {
    const widget = widgets.get(name)
    if (!widget) continue
    if (!GOVERNED.includes(name)) {
      widget.disabled = name in (PRESETS[valueOf(node, "preset")] ?? {})
      continue
    }
    widget.disabled = preset !== CUSTOM
    widget.hidden = preset === AUTO
    if (widget.options) widget.options.hidden = widget.hidden
  }
  if (isWired(node, "preset")) wired.set(node, preset)
  else wired.delete(node)
  node.setDirtyCanvas?.(true, true)
}

/** A preset with its numbers, which the canvas shows of no grayed-out widget. */
function label(name) {
  const numbers = PRESETS[name]
  return numbers ? text(numbers.cfg ? "preset_guided" : "preset_numbers", { name, ...numbers }) : String(name ?? "")
}

/** The governed widgets' values now, by name. */
function readValues(node) {
  const governed = (node.widgets ?? []).filter((widget) => GOVERNED.includes(widget.name))
  return Object.fromEntries(governed.map((widget) => [widget.name, widget.value]))
}

function writeValues(node, values) {
  for (const [name, value] of Object.entries(values)) {
    const widget = node.widgets?.find((candidate) => candidate.name === name)
    if (widget) widget.value = value
  }
}

/**
 * Ties a sampler's steps, shift and solver to its preset.
 * @param {object} node a LiteGraph node
 */
export function attachPresets(node) {
  const preset = node.widgets?.find((widget) => widget.name === "preset")
  if (!preset) return
  if (preset.options) preset.options.getOptionLabel = label
  let shown = preset.value
  let own
  let cfg = 1
  chain(preset, "callback", (value) => {
    if (value === shown) return
    if (shown === CUSTOM) own = readValues(node)
    const had = "cfg" in (PRESETS[shown] ?? {})
    const has = "cfg" in (PRESETS[value] ?? {})
    if (has && !had) cfg = node.widgets.find((widget) => widget.name === "cfg")?.value ?? 1
    shown = value
    writeValues(node, { ...(had && !has ? { cfg } : {}), ...(PRESETS[value] ?? own ?? {}) })
    updateDisabled(node)
  })
  chain(node, "onRemoved", () => wired.delete(node))
  chain(node, "onConnectionsChange", () => setTimeout(() => updateDisabled(node)))
  chain(node, "onConfigure", () => {
    shown = preset.value
    updateDisabled(node)
  })
  updateDisabled(node)
}
