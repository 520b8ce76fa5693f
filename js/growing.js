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
 * Makes a node keep its growing inputs' order whenever it is configured from saved data.
 * @param {object} node a LiteGraph node
 */
export function keepGrowingOrder(node) {
  const configure = node.configure
  node.configure = function (saved, ...rest) {
    const savedNames = (saved?.inputs ?? []).map((input) => input.name)
    const result = configure.call(this, saved, ...rest)
    const ordered = regroup(this.inputs ?? [], savedNames)
    ordered.forEach((input, slot) => {
      this.inputs[slot] = input
      const link = input.link == null ? undefined : this.graph?.getLink?.(input.link)
      if (link?.target_id === this.id) link.target_slot = slot
    })
    return result
  }
}
