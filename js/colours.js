/** Wires and sockets of the pack's own type get a colour of their own, unless the user's colour palette gives them one. */

const TYPE = "VDOT_VCU"
const COLOUR = "#e8a0bf"

/**
 * Gives the type its colour in both renderers.
 * @param {Record<string, string>[]} maps LiteGraph's colour tables, by type; ComfyUI empties unknown types when a palette is loaded
 */
export function colourUnits(...maps) {
  for (const map of maps) {
    let chosen = map[TYPE]
    Object.defineProperty(map, TYPE, {
      configurable: true,
      enumerable: true,
      get: () => chosen || COLOUR,
      set: (colour) => (chosen = colour),
    })
  }
  const style = document.createElement("style")
  style.textContent = `:root { --color-datatype-${TYPE}: ${COLOUR} }`
  document.head.append(style)
}
