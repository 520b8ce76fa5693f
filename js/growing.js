/**
 * Keeps growing inputs (images.image0, images.image1, ..) in their group when a saved or copied node is restored.
 *
 * ComfyUI restores a node by putting the inputs of its definition first and those that it grew behind all others, while pasting, and
 * packing or unpacking a subgraph, reconnect links by the inputs' places in the copied node: wires of grown inputs land elsewhere.
 */

/** The group that an input grew in, or undefined for one that stands alone. */
function groupOf(input) {
  const end = input.name.lastIndexOf(".")
  return end > 0 ? input.name.slice(0, end) : undefined
}

/**
 * Inputs with every group together at the place of its first member, its members in their saved order.
 * @param {{name: string}[]} inputs as ComfyUI has restored them
 * @param {string[]} savedNames the inputs' names in the saved node, in order
 */
function regroup(inputs, savedNames) {
  const place = (input) => (savedNames.includes(input.name) ? savedNames.indexOf(input.name) : savedNames.length)
  const done = new Set()
  return inputs.flatMap((input) => {
    const group = groupOf(input)
    if (group === undefined) return [input]
    if (done.has(group)) return []
    done.add(group)
    return inputs.filter((other) => groupOf(other) === group).sort((a, b) => place(a) - place(b))
  })
}

/**
 * Gives every link the place that its input has: ComfyUI does not, when a group of growing inputs above loses one.
 * @param {object} node a LiteGraph node
 */
function numberLinks(node) {
  node.inputs?.forEach((input, slot) => {
    const link = input.link == null ? undefined : node.graph?.getLink?.(input.link)
    if (link?.target_id === node.id) link.target_slot = slot
  })
}

/**
 * Makes a node keep its growing inputs' order, and their links' places, whenever it is saved, copied or restored.
 * @param {object} node a LiteGraph node
 */
export function keepGrowingOrder(node) {
  const serialize = node.serialize
  node.serialize = function (...rest) {
    numberLinks(this) // a copy takes its links after its nodes
    return serialize.apply(this, rest)
  }
  const configure = node.configure
  node.configure = function (saved, ...rest) {
    const savedNames = (saved?.inputs ?? []).map((input) => input.name)
    const result = configure.call(this, saved, ...rest)
    const ordered = regroup(this.inputs ?? [], savedNames)
    ordered.forEach((input, slot) => (this.inputs[slot] = input))
    numberLinks(this)
    return result
  }
}
