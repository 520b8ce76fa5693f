/** What went wrong, in words, on the node that it concerns: ComfyUI itself only says that there was an error. */

import { app } from "../../scripts/app.js"
import { api } from "../../scripts/api.js"
import { chain, findNode, PREFIX } from "./graph.js"
import { panelSection } from "./panel.js"
import { isOpen, rememberPrompt } from "./restore.js"
import { text, translated } from "./strings.js"

const RUN = "run"
const INPUT = "input"
const shown = new Set()

/** Shows a sentence on a node; `kind` says whether the run or the check of its inputs found it. */
function showError(node, sentence, kind) {
  if (!node?.comfyClass?.startsWith(PREFIX) || !sentence) return
  const section = panelSection(node, "error")
  section.setAttribute("role", "alert")
  section.dataset.kind = kind
  section.textContent = translated(sentence)
  section.hidden = false
  shown.add(node)
}

function hideError(node) {
  const section = panelSection(node, "error", false)
  if (section) section.hidden = true
  shown.delete(node)
}

function hideErrors(...kinds) {
  for (const node of [...shown]) {
    if (kinds.includes(panelSection(node, "error", false)?.dataset.kind)) hideError(node)
  }
}

/** Our nodes raise ValueError for what a person can mend; any other error is named. */
function runSentence({ exception_type: type, exception_message: message }) {
  const sentence = String(message ?? "").trim()
  const kind = String(type ?? "").split(".").pop()
  return !kind || kind === "ValueError" ? sentence : `${kind}: ${sentence}`
}

/** One sentence for each different error that ComfyUI found in a node's inputs before the run. */
function inputSentences(errors) {
  const sentences = errors.map(({ type, message, details, extra_info: extra }) => {
    if (type === "custom_validation_failed") return details.slice(details.indexOf(" - ") + 3)
    if (type === "required_input_missing") return text("error_missing", { input: extra?.input_name ?? details })
    return details ? `${message}: ${details}` : message
  })
  return [...new Set(sentences)].join("\n")
}

function showInputErrors(nodeErrors) {
  for (const [id, { errors }] of Object.entries(nodeErrors ?? {})) {
    if (errors?.length) showError(findNode(id), inputSentences(errors), INPUT)
  }
}

/** ComfyUI tells its extensions nothing about a refused prompt: the answer of the server is read as it passes. */
function watchQueue() {
  const queuePrompt = api.queuePrompt
  api.queuePrompt = function (...args) {
    hideErrors(RUN, INPUT)
    const answer = queuePrompt.apply(this, args)
    answer.then(
      ({ node_errors: errors, prompt_id: id } = {}) => {
        if (id) rememberPrompt(id, args[1]?.output, args[1]?.workflow?.id)
        showInputErrors(errors)
      },
      (error) => showInputErrors(error?.response?.node_errors),
    )
    return answer
  }
}

/** Shows errors on nodes from now on; the next run clears them. */
export function watchErrors() {
  watchQueue()
  api.addEventListener("execution_start", () => hideErrors(RUN))
  api.addEventListener("execution_error", ({ detail }) => {
    const node = findNode(detail.node_id)
    // Another workflow may have been opened since, which has some other node of that number.
    if (node?.comfyClass === detail.node_type && isOpen(detail.prompt_id)) showError(node, runSentence(detail), RUN)
    app.canvas?.setDirty(true, true)
  })
}

/** A refused input that is changed, or connected, is no longer what the sentence speaks of. */
export function attachErrors(node) {
  const changed = () => {
    if (panelSection(node, "error", false)?.dataset.kind === INPUT) hideError(node)
  }
  chain(node, "onWidgetChanged", changed)
  chain(node, "onConnectionsChange", changed)
  chain(node, "onRemoved", () => shown.delete(node))
}
