/** Nodes are at least as wide as their title: ComfyUI's classic canvas cuts it off. */

const MIN_WIDTH_PX = 210

/**
 * Keeps a node from being made, or shrunk, too narrow.
 * @param {object} node a LiteGraph node
 */
export function keepMinWidth(node) {
  const computeSize = node.computeSize
  node.computeSize = function (...args) {
    const size = computeSize.apply(this, args)
    size[0] = Math.max(size[0], MIN_WIDTH_PX)
    return size
  }
  if (node.size[0] < MIN_WIDTH_PX) node.setSize([MIN_WIDTH_PX, node.size[1]])
}
