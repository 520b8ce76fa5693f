/** Finding nodes, adding to their handlers, and telling ComfyUI that one was changed. */

import { app } from "../../scripts/app.js"
import { giverOf, widgetOf } from "./wires.js"

/** Node ids of the pack begin with this. */
export const PREFIX = "VDOT"

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

/** Sets a node's widget as a person does: its handlers run, and other widgets of the node see it. */
export function setWidget(node, name, value) {
  change(widgetOf(node, name), value, node)
}

/** Sets the value of an input where it comes from, as by `setWidget`. */
export function setGiven(node, name, value) {
  const widget = giverOf(node, name)
  change(widget, value, widget?.node ?? node)
}

function change(widget, value, node) {
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
