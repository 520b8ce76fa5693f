/**
 * Templates in the order of their numbers, opened where their note can be read: ComfyUI lists them as the disk does, and shows the
 * entire graph of a template, too small for any text.
 */

import { app } from "../../scripts/app.js"
import { api } from "../../scripts/api.js"
import { PREFIX } from "./graph.js"

const RESTORE_VIEW = "Comfy.EnableWorkflowViewRestore"
const [, PACK] = /\/extensions\/([^/]+)\//.exec(new URL(import.meta.url).pathname) ?? []

/** Sorts this pack's templates in ComfyUI's list. */
export function sortTemplates() {
  const list = api.getWorkflowTemplates
  if (!list || !PACK) return
  api.getWorkflowTemplates = async function (...rest) {
    const templates = await list.apply(this, rest)
    templates[decodeURIComponent(PACK)]?.sort()
    return templates
  }
}

/** Lets templates of this pack's nodes open at the place and zoom that they are saved with. */
export function keepTemplateViews() {
  const load = app.loadGraphData
  app.loadGraphData = async function (graph, ...rest) {
    const view = graph?.extra?.ds
    const isTemplate = rest.some((option) => option?.openSource === "template")
    const isOurs = graph?.nodes?.some((node) => String(node.type).startsWith(PREFIX))
    const result = await load.call(this, graph, ...rest)
    if (view && isTemplate && isOurs && app.extensionManager.setting.get(RESTORE_VIEW) !== false) {
      app.canvas.ds.offset = [...view.offset]
      app.canvas.ds.scale = view.scale
      app.canvas.setDirty(true, true)
    }
    return result
  }
}
