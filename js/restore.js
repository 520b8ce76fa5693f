/**
 * What a page that was opened late cannot have heard. After a run that fails, ComfyUI says nothing of the nodes that it took from its
 * cache: what they said is in the history. Of a run that goes on while the page is opened, the queue knows the workflow, and the
 * history at its end what its nodes said before.
 */

import { app } from "../../scripts/app.js"
import { api } from "../../scripts/api.js"
import { chain, findNode, PREFIX } from "./graph.js"

const MAX_RUNS = 32

/** The prompts that this page has queued, their workflows, and the nodes that their runs took from the cache, by prompt id. */
const prompts = new Map()
const workflows = new Map()
const cached = new Map()
/** Runs that failed so soon that the answer to their queueing is still on its way. */
const early = new Set()
/** Runs that went on when the page was opened. */
const joined = new Set()

/**
 * Numbers nodes of prompts by all that they are made from: the same number, the same result. Each node is looked at once, however
 * many ways lead to it.
 */
export class Signatures {
  #numbers = new Map()
  #known = new Map()

  /** @returns {number | undefined} of a node; undefined for one that the prompt has not */
  of(prompt, id) {
    const node = prompt?.[id]
    if (!node) return undefined
    if (!this.#known.has(prompt)) this.#known.set(prompt, new Map())
    const known = this.#known.get(prompt)
    if (!known.has(id)) known.set(id, this.#number(prompt, node))
    return known.get(id)
  }

  #number(prompt, node) {
    const inputs = Object.entries(node.inputs ?? {}).sort(([a], [b]) => (a < b ? -1 : 1))
    const isLink = (value) => Array.isArray(value) && value.length === 2 && prompt[value[0]]
    const text = JSON.stringify([
      node.class_type,
      inputs.map(([name, value]) => (isLink(value) ? [name, this.of(prompt, value[0]), value[1]] : [name, value])),
    ])
    if (!this.#numbers.has(text)) this.#numbers.set(text, this.#numbers.size)
    return this.#numbers.get(text)
  }
}

/** Nodes of the pack that have said nothing on this page. */
function silent(ids) {
  return ids.filter((id) => findNode(id)?.comfyClass?.startsWith(PREFIX) && !app.nodeOutputs?.[id])
}

async function restore(promptId) {
  const ids = isOpen(promptId) ? silent(cached.get(promptId) ?? []) : []
  const prompt = prompts.get(promptId)
  if (!ids.length) return
  const runs = Object.values(await (await api.fetchApi(`/history?max_items=${MAX_RUNS}`)).json()).reverse()
  const signatures = new Signatures()
  for (const id of ids) {
    const own = signatures.of(prompt, id)
    const run = runs.find((other) => other.outputs?.[id] && signatures.of(other.prompt?.[2], id) === own)
    if (run && silent([id]).length) findNode(id).onExecuted?.(run.outputs[id])
  }
}

/** Nodes say what a run that the page has joined said before. */
async function recall(promptId) {
  const { outputs = {} } = (await (await api.fetchApi(`/history/${promptId}`)).json())[promptId] ?? {}
  if (isOpen(promptId)) silent(Object.keys(outputs)).forEach((id) => findNode(id).onExecuted?.(outputs[id]))
}

/** @returns {Promise<string | undefined>} id of the run that goes on; its workflow, and those of the runs that wait, are known then */
export async function joinRuns() {
  const { queue_running: running, queue_pending: pending } = await (await api.fetchApi("/queue")).json()
  // Of many, the last that are noted stay: those that run first.
  for (const [, id, prompt, extra] of [...pending.toReversed(), ...running]) {
    if (!prompts.has(id)) rememberPrompt(id, prompt, extra?.extra_pnginfo?.workflow?.id)
  }
  running.forEach(([, id]) => joined.add(id))
  return running[0]?.[1]
}

function end(promptId) {
  if (prompts.has(promptId)) restore(promptId).finally(() => cached.delete(promptId))
  else early.add(promptId)
}

/** Id of the prompt whose message is being delivered: handlers of nodes are not told. */
let speaking

// A module is read before ComfyUI begins to listen, so that this comes before the nodes hear of the message.
api.addEventListener("executed", ({ detail }) => (speaking = detail.prompt_id))

/**
 * Calls `extra` with what a run says of a node. A run goes on when another workflow is opened, which may have another node of that
 * number: what is said of a node of another workflow is left out.
 * @param {object} node a LiteGraph node
 * @param {(message: object) => void} extra
 */
export function onSaid(node, extra) {
  chain(node, "onExecuted", (message) => {
    if (isOpen(speaking)) extra(message)
  })
}

/** Whether the workflow that a prompt was made from is the open one; true where it is not known. */
export function isOpen(promptId) {
  const id = workflows.get(promptId)
  return id === undefined || id === (app.rootGraph ?? app.graph).id
}

/** Notes a prompt that this page has queued, and the id of its workflow. */
export function rememberPrompt(promptId, prompt, workflowId) {
  prompts.set(promptId, prompt)
  workflows.set(promptId, workflowId)
  for (const known of [prompts, workflows]) if (known.size > MAX_RUNS) known.delete(known.keys().next().value)
  if (early.delete(promptId)) end(promptId)
}

/**
 * What a run of another workflow says is taken from ComfyUI's memory of the open one, which would show it whenever that is opened
 * again. ComfyUI has noted it for its own workflow.
 */
function forgetForeign({ detail }) {
  const id = String(detail.display_node ?? detail.node)
  if (!isOpen(detail.prompt_id) && findNode(id)?.comfyClass?.startsWith(PREFIX)) delete app.nodeOutputs?.[id]
  speaking = undefined
}

/** From now on, nodes say what they said when a later one fails. */
export function watchCache() {
  api.addEventListener("executed", forgetForeign)
  // Without a node: a run is over, and in the history.
  api.addEventListener("executing", ({ detail }) => {
    if (detail) return
    joined.forEach(recall)
    joined.clear()
  })
  api.addEventListener("execution_cached", ({ detail }) => cached.set(detail.prompt_id, detail.nodes))
  api.addEventListener("execution_success", ({ detail }) => cached.delete(detail.prompt_id))
  for (const event of ["execution_error", "execution_interrupted"]) {
    api.addEventListener(event, ({ detail }) => end(detail.prompt_id))
  }
}
