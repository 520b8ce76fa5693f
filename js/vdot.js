/**
 * The pack's front end: the moving preview on samplers, sampler presets, and what nodes show of their runs: the strip of
 * what the model is given, notes, and errors.
 *
 * Display only: nodes, workflows and saved values work the same without this file.
 */

import { app } from "../../scripts/app.js"
import { api } from "../../scripts/api.js"
import { attachBoxes, BOX_NODES } from "./boxes.js"
import { labelChoices } from "./choices.js"
import { colorUnits } from "./colors.js"
import { attachErrors, watchErrors } from "./errors.js"
import { attachExtend } from "./extend.js"
import { findNode, PREFIX } from "./graph.js"
import { keepGrowingOrder } from "./growing.js"
import { replaceStale } from "./mounted.js"
import { attachNotes, showNotes } from "./notes.js"
import { attachOutpaint } from "./outpaint.js"
import { loadStyle } from "./panel.js"
import { attachPreview, clearPreviews, previewOf, recallPreview } from "./preview.js"
import { attachPresets } from "./presets.js"
import { isOpen, joinRuns, watchCache } from "./restore.js"
import { attachSpan, SPANS } from "./span.js"
import { loadStrings } from "./strings.js"
import { attachStrip, showStrip, stripSetting } from "./strip.js"
import { keepTemplateViews, sortTemplates } from "./templates.js"
import { attachTimeline, TIMELINES } from "./timeline.js"
import { keepMinWidth } from "./widths.js"

const SAMPLERS = ["VDOTSampler", "VDOTLongVideo"]
const EXTEND = "VDOTExtend"
const OUTPAINT = "VDOTOutpaint"

/** Id of the prompt that runs; not all messages of a run name it. */
let running
let isSetUp = false

/** The preview of the sampler with this execution id; undefined for every other node, and for a run of another workflow. */
function samplerPreview(executionId, promptId = running) {
  if (executionId == null || !isOpen(promptId)) return undefined
  const node = findNode(executionId)
  return SAMPLERS.includes(node?.comfyClass) ? previewOf(node) : undefined
}

// Before the page is set up: a run may go on while it is opened, and ComfyUI logs an error for messages that nobody hears.
api.addEventListener("vdot.preview", ({ detail }) => {
  if (isSetUp) samplerPreview(detail.display_node_id, detail.prompt_id)?.show(detail)
})

app.registerExtension({
  name: "vdot",
  settings: [stripSetting()],

  init() {
    sortTemplates()
    keepTemplateViews()
  },

  beforeConfigureGraph() {
    clearPreviews()
  },

  afterConfigureGraph() {
    // Elements that the page puts into place by itself are there then.
    requestAnimationFrame(() => replaceStale(app.canvas.graph?._nodes ?? []))
  },

  async setup() {
    loadStyle()
    await loadStrings()
    watchErrors()
    watchCache()
    colorUnits(app.canvas.default_connection_color_byType, LGraphCanvas.link_type_colors)
    api.addEventListener("execution_start", ({ detail }) => (running = detail.prompt_id))
    api.addEventListener("executing", ({ detail }) => samplerPreview(detail?.display_node ?? detail?.node ?? detail)?.start())
    for (const end of ["execution_error", "execution_interrupted"]) {
      api.addEventListener(end, ({ detail }) => samplerPreview(detail.node_id, detail.prompt_id)?.end())
    }
    isSetUp = true
    // Not awaited: the page restores its workflow after this.
    joinRuns().then((id) => (running ??= id), console.warn)
  },

  nodeCreated(node) {
    if (!node.comfyClass?.startsWith(PREFIX)) return
    if (SAMPLERS.includes(node.comfyClass)) {
      attachPreview(node)
      attachPresets(node)
    }
    if (BOX_NODES.includes(node.comfyClass)) attachBoxes(node)
    if (node.comfyClass === OUTPAINT) attachOutpaint(node)
    if (node.comfyClass === EXTEND) attachExtend(node)
    if (node.comfyClass in TIMELINES) attachTimeline(node)
    if (node.comfyClass in SPANS) attachSpan(node)
    labelChoices(node)
    keepMinWidth(node)
    keepGrowingOrder(node)
    attachErrors(node)
    attachStrip(node)
    attachNotes(node)
  },

  /** Nodes of a workflow that is opened again (a tab switched back to) say what they said last. */
  loadedGraphNode(node) {
    if (!node.comfyClass?.startsWith(PREFIX)) return
    const output = app.nodeOutputs?.[String(node.id)]
    showStrip(node, output?.vdot_strip?.[0])
    if (output?.text) showNotes(node, output.text)
    if (output) recallPreview(node)
  },
})
