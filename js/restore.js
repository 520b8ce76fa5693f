/**
 * After a run that fails, ComfyUI says nothing of the nodes that it took from its cache, so a page that was opened since their last
 * run would not show what they said: it is in the history.
 */

import { app } from "../../scripts/app.js"
import { api } from "../../scripts/api.js"
import { findNode, PREFIX } from "./graph.js"

const MAX_RUNS = 32

/** The prompts that this page has queued, and the nodes that their runs took from the cache, by prompt id. */
const prompts = new Map()
const cached = new Map()
/** Runs that failed so soon that the answer to their queueing is still on its way. */
const early = new Set()

/** A node of a prompt with all that it is made from, as text: the same text, the same result. */
function signature(prompt, id) {
  const node = prompt?.[id]
  if (!node) return undefined
  const inputs = Object.entries(node.inputs ?? {}).sort(([a], [b]) => (a < b ? -1 : 1))
  const isLink = (value) => Array.isArray(value) && value.length === 2 && prompt[value[0]]
  return JSON.stringify([
    node.class_type,
    inputs.map(([name, value]) => [name, isLink(value) ? [signature(prompt, value[0]), value[1]] : value]),
  ])
}

/** Nodes of the pack that have said nothing on this page. */
function silent(ids) {
  return ids.filter((id) => findNode(id)?.comfyClass?.startsWith(PREFIX) && !app.nodeOutputs?.[id])
}

async function restore(promptId) {
  const ids = silent(cached.get(promptId) ?? [])
  const prompt = prompts.get(promptId)
  if (!ids.length) return
  const runs = Object.values(await (await api.fetchApi(`/history?max_items=${MAX_RUNS}`)).json()).reverse()
  for (const id of ids) {
    const own = signature(prompt, id)
    const run = runs.find((other) => other.outputs?.[id] && signature(other.prompt?.[2], id) === own)
    if (run && silent([id]).length) findNode(id).onExecuted?.(run.outputs[id])
  }
}

function end(promptId) {
  if (prompts.has(promptId)) restore(promptId).finally(() => cached.delete(promptId))
  else early.add(promptId)
}

/** Notes a prompt that this page has queued. */
export function rememberPrompt(promptId, prompt) {
  prompts.set(promptId, prompt)
  if (prompts.size > MAX_RUNS) prompts.delete(prompts.keys().next().value)
  if (early.delete(promptId)) end(promptId)
}

/** From now on, nodes say what they said when a later one fails. */
export function watchCache() {
  api.addEventListener("execution_cached", ({ detail }) => cached.set(detail.prompt_id, detail.nodes))
  api.addEventListener("execution_success", ({ detail }) => cached.delete(detail.prompt_id))
  for (const event of ["execution_error", "execution_interrupted"]) {
    api.addEventListener(event, ({ detail }) => end(detail.prompt_id))
  }
}
