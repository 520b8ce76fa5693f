/** Follows wires backwards: through Reroutes, nodes that are bypassed, and the borders of subgraphs. */

import { app } from "../../scripts/app.js"

const MAX_STEPS = 64
const NEVER = 2
const BYPASS = 4

/** A node's widget by name. */
export function widgetOf(node, name) {
  return node.widgets?.find((widget) => widget.name === name)
}

/** The input that a widget's value comes by instead, if it is wired; else -1. */
function wireOf(node, name) {
  return node.inputs?.findIndex((input) => input.name === name && input.link != null) ?? -1
}

/** Some of these inputs come over wires: their widgets do not count, and an editor does not write them. */
export function isWired(node, ...names) {
  return names.some((name) => wireOf(node, name) >= 0)
}

/** The node that a subgraph is in; of several that share it, the first. */
function hostOf(subgraph, graph = app.rootGraph ?? app.graph, seen = new Set()) {
  if (seen.has(graph)) return undefined
  seen.add(graph)
  for (const node of graph?.nodes ?? graph?._nodes ?? []) {
    if (!node.subgraph) continue
    const host = node.subgraph === subgraph ? node : hostOf(subgraph, node.subgraph, seen)
    if (host) return host
  }
  return undefined
}

/** The next end of a wire: an output `{node, slot}`, or the widget of a subgraph's input, `{widget}`. */
function origin(graph, linkId) {
  const link = linkId == null ? undefined : graph?.getLink?.(linkId)
  if (!link) return undefined
  if (link.origin_id !== graph.inputNode?.id) {
    const node = graph.getNodeById(link.origin_id)
    return node ? { node, slot: link.origin_slot } : undefined
  }
  const host = hostOf(graph)
  const name = graph.inputs?.[link.origin_slot]?.name
  const input = host?.inputs?.find((other) => other.name === name)
  if (input?.link != null) return origin(host.graph, input.link)
  const widget = input && widgetOf(host, input.widget?.name ?? name)
  return widget && { widget }
}

/** The wire that a node only passes on: one that is bypassed, by the output's type, or a Reroute and its like; else undefined. */
function passedLink({ node, slot }) {
  if (node.mode === BYPASS) {
    const type = node.outputs?.[slot]?.type
    return [node.inputs?.[slot], ...(node.inputs ?? [])].find((input) => input && input.type === type)?.link
  }
  return node.isVirtualNode && !node.subgraph ? node.getInputLink?.(slot)?.id : undefined
}

/**
 * What gives the value of an input.
 * @param {object} node a LiteGraph node
 * @param {number} slot of the input
 * @returns {{node: object, slot: number} | {widget: object} | undefined} an output of a node that runs, or the widget of a
 *   subgraph's input; undefined where nothing is wired, or what is wired does not run
 */
export function endOf(node, slot) {
  let end = origin(node.graph, node.inputs?.[slot]?.link)
  for (let step = 0; end?.node && step < MAX_STEPS; step++) {
    const { subgraph, mode, graph } = end.node
    if (mode === NEVER) return undefined
    const passed = passedLink(end)
    if (passed != null) end = origin(graph, passed)
    else if (mode === BYPASS) return undefined
    else if (subgraph) end = origin(subgraph, subgraph.outputs?.[end.slot]?.linkIds?.[0])
    else return end
  }
  return end
}

/** The node that an input's value comes from; undefined for none, and for one that is not in a graph yet. */
export function sourceOf(node, slot) {
  return endOf(node, slot)?.node
}

/**
 * The widget whose value a node gives: "value"; of ComfyUI's Primitive, which is named as what it is wired to, the first; of a node of
 * another pack, its only one.
 */
function givingWidget(node) {
  const widgets = node.widgets?.filter(({ type }) => type !== "button") ?? []
  const isAlone = widgets.length === 1 && !node.inputs?.some((input) => input.link != null)
  return widgetOf(node, "value") ?? (node.type === "PrimitiveNode" || isAlone ? widgets[0] : undefined)
}

/** The widget that gives an input its value: the node's own, or that at the end of its wire; undefined where that is not known. */
export function giverOf(node, name) {
  const slot = wireOf(node, name)
  if (slot < 0) return widgetOf(node, name)
  const end = endOf(node, slot)
  return end?.widget ?? (end?.node && givingWidget(end.node))
}

/**
 * A value of a node that is run: its widget's, or that of the widget at the end of its wire.
 * @returns the widget's own where a wire's is not known before the run; undefined where there is none
 */
export function valueOf(node, name) {
  const own = widgetOf(node, name)?.value
  const given = giverOf(node, name)?.value
  return given === undefined || (own !== undefined && typeof given !== typeof own) ? own : given
}

/** A number of a node that is run, as `valueOf`; 0 where there is none. */
export function numberOf(node, name) {
  return Number(valueOf(node, name)) || 0
}
