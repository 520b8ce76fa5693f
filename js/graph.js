/** Finding nodes, adding to their handlers, and telling ComfyUI that one was changed. */

import { app } from "../../scripts/app.js"

/** Node ids of the pack begin with this. */
export const PREFIX = "VDOT"

const MAX_REROUTES = 12

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

/** Calls `extra` after the node's own handler, whoever put that there. */
export function chain(node, name, extra) {
  const own = node[name]
  node[name] = function (...args) {
    const result = own?.apply(this, args)
    extra(...args)
    return result
  }
}

/** A node's widget by name. */
export function widgetOf(node, name) {
  return node.widgets?.find((widget) => widget.name === name)
}

/** The node at the other end of an input's wire; a node that is not in a graph yet has none. */
export function sourceOf(node, slot) {
  return node.graph ? node.getInputNode?.(slot) : undefined
}

/** The input that a widget's value comes by instead, if it is wired. */
function wireOf(node, name) {
  return node.inputs?.findIndex((input) => input.name === name && input.link != null) ?? -1
}

/** Some of these inputs come over wires: their widgets do not count, and an editor does not write them. */
export function isWired(node, ...names) {
  return names.some((name) => wireOf(node, name) >= 0)
}

/**
 * A value of a node that is run: its widget's, or that of the node of one value that is wired to it, through Reroutes.
 * @returns the widget's own where a wire's is not known before the run; undefined where there is none
 */
export function valueOf(node, name) {
  const own = widgetOf(node, name)?.value
  let slot = wireOf(node, name)
  let source = node
  for (let depth = 0; slot >= 0 && source && depth < MAX_REROUTES; depth++) {
    source = sourceOf(source, slot)
    slot = source?.inputs?.length === 1 && source.inputs[0].type === "*" ? 0 : -1
  }
  const wired = source === node ? undefined : widgetOf(source ?? {}, "value")?.value
  return wired === undefined || (own !== undefined && typeof wired !== typeof own) ? own : wired
}

/** A number of a node that is run, as `valueOf`; 0 where there is none. */
export function numberOf(node, name) {
  return Number(valueOf(node, name)) || 0
}

/** The first length that is set on a node behind this one, by its wires of a type; 0 where none is. */
export function lengthBehind(node, type, seen = new Set()) {
  if (seen.has(node)) return 0
  seen.add(node)
  for (const [slot, input] of (node.inputs ?? []).entries()) {
    const source = input.link != null && [type, "*"].includes(String(input.type)) ? sourceOf(node, slot) : undefined
    const length = source && (numberOf(source, "length") || lengthBehind(source, type, seen))
    if (length) return length
  }
  return 0
}

/** Sets a widget as a person does: its handlers run, and other widgets of the node see it. */
export function setWidget(node, name, value) {
  const widget = widgetOf(node, name)
  if (!widget || widget.value === value) return
  widget.value = value
  if (!widget.element) widget.callback?.(value, app.canvas, node)
  node.setDirtyCanvas?.(true, true)
}

/** Makes the graph's present state an undo step; changes by mouse are noticed by ComfyUI itself. */
export function rememberForUndo() {
  const tracker = app.extensionManager?.workflow?.activeWorkflow?.changeTracker
  if (tracker?.captureCanvasState) tracker.captureCanvasState()
  else tracker?.checkState?.()
}
