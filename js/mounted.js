/**
 * Widgets made of HTML. Nodes 2.0 puts a widget's element into the page once for each number of a node: an undo makes all nodes again,
 * and the page would go on showing, and editing, the elements of nodes that are gone.
 */

/**
 * Adds a widget made of HTML that is no part of a saved workflow.
 * @param {object} node a LiteGraph node
 * @param {string} name of the widget
 * @param {HTMLElement} element
 * @param {object} options of ComfyUI's widget, such as its height
 * @returns {object} the widget
 */
export function addElementWidget(node, name, element, options) {
  element.dataset.vdotWidget = name
  const widget = node.addDOMWidget(name, name, element, { serialize: false, hideOnZoom: false, hideInPanel: true, ...options })
  widget.serialize = false
  return widget
}

/**
 * Puts the elements of a graph's widgets in the places of those that earlier nodes of the same numbers left in the page.
 * @param {object[]} nodes LiteGraph nodes that the page shows
 */
export function replaceStale(nodes) {
  for (const node of nodes) {
    for (const { element } of node.widgets ?? []) {
      const name = element?.dataset?.vdotWidget
      if (!name || element.isConnected) continue
      document.querySelector(`[data-node-id="${node.id}"] [data-vdot-widget="${name}"]`)?.replaceWith(element)
    }
  }
}
