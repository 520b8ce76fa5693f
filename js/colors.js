/** Wires and sockets of the pack's own type get a color of their own, unless the user's color palette gives them one. */

const TYPE = "VDOT_VCU"
const COLOR = "#e8a0bf"

/**
 * Gives the type its color in both renderers.
 * @param {Record<string, string>[]} maps LiteGraph's color tables, by type; ComfyUI empties unknown types when a palette is loaded
 */
export function colorUnits(...maps) {
  for (const map of maps) {
    let chosen = map[TYPE]
    Object.defineProperty(map, TYPE, {
      configurable: true,
      enumerable: true,
      get: () => chosen || COLOR,
      set: (color) => (chosen = color),
    })
  }
  const style = document.createElement("style")
  style.textContent = `:root { --color-datatype-${TYPE}: ${COLOR} }`
  document.head.append(style)
}
