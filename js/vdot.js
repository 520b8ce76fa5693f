/**
 * The pack's front end: the moving preview on VDOT Sampler, the notes that nodes write while they run, and sampler presets.
 *
 * Display only: nodes, workflows and saved values work the same without this file.
 */

import { app } from "../../scripts/app.js"
import { api } from "../../scripts/api.js"
import { colorUnits } from "./colors.js"
import { keepGrowingOrder } from "./growing.js"
import { attachNotes, showNotes } from "./notes.js"
import { attachPreview, previewOf } from "./preview.js"
import { attachPresets } from "./presets.js"
import { loadStrings } from "./strings.js"

const SAMPLER = "VDOTSampler"

/**
 * The node that an execution id such as "7", or "12:7" inside a subgraph, belongs to.
 * @param {string} executionId
 * @returns {object | undefined} the LiteGraph node, or undefined when the open workflow has none
 */
export function findNode(executionId) {
  let graph = app.rootGraph ?? app.graph
  let node
  for (const part of String(executionId).split(":")) {
    node = graph?.getNodeById(Number(part)) ?? graph?.getNodeById(part)
    graph = node?.subgraph
  }
  return node
}

/** The preview of the sampler with this execution id; undefined for every other node. */
function samplerPreview(executionId) {
  if (executionId == null) return undefined
  const node = findNode(executionId)
  return node?.comfyClass === SAMPLER ? previewOf(node) : undefined
}

/** Calls `extra` after the node's own handler, whoever put that there. */
function chain(node, name, extra) {
  const own = node[name]
  node[name] = function (...args) {
    const result = own?.apply(this, args)
    extra(...args)
    return result
  }
}

app.registerExtension({
  name: "vdot",

  async setup() {
    await loadStrings()
    colorUnits(app.canvas.default_connection_color_byType, LGraphCanvas.link_type_colors)
    api.addEventListener("vdot.preview", ({ detail }) => samplerPreview(detail.display_node_id)?.show(detail))
    api.addEventListener("executing", ({ detail }) => samplerPreview(detail?.display_node ?? detail?.node ?? detail)?.start())
    for (const end of ["execution_error", "execution_interrupted"]) {
      api.addEventListener(end, ({ detail }) => samplerPreview(detail.node_id)?.stop())
    }
  },

  nodeCreated(node) {
    if (!node.comfyClass?.startsWith("VDOT")) return
    if (node.comfyClass === SAMPLER) {
      attachPreview(node, chain)
      attachPresets(node, chain)
    }
    keepGrowingOrder(node)
    attachNotes(node, chain)
  },

  /** Nodes of a workflow that is opened again (a tab switched back to) say what they said last. */
  loadedGraphNode(node) {
    if (!node.comfyClass?.startsWith("VDOT")) return
    const output = app.nodeOutputs?.[String(node.id)]
    if (output?.text) showNotes(node, output.text)
  },
})
