/** What a node has to say about its last run ("837x480 -> 832x480"), as read-only lines beneath its widgets. */

const WIDGET = "vdot_notes"
const LINE_HEIGHT_PX = 16
const PADDING_PX = 10
const MAX_LINES = 8
const CHARACTER_PX = 5.5

/** How many rows the text takes at the node's present width; wide (CJK) characters count twice. */
function countRows(lines, width) {
  const perRow = Math.max(10, Math.floor((width - 36) / CHARACTER_PX))
  const measure = (line) => [...line].reduce((sum, character) => sum + (character > "\u2e7f" ? 2 : 1), 0)
  return lines.reduce((rows, line) => rows + Math.max(1, Math.ceil(measure(line) / perRow)), 0)
}

/** The widget is made when there is something to say, so that a fresh node stays small. */
function createWidget(node) {
  const element = document.createElement("div")
  element.className = "vdot-notes"
  element.setAttribute("role", "status")
  Object.assign(element.style, {
    boxSizing: "border-box",
    padding: `${PADDING_PX / 2}px 8px`,
    borderRadius: "6px",
    background: "var(--comfy-input-bg, #222)",
    color: "var(--descrip-text, #999)",
    font: `11px/${LINE_HEIGHT_PX}px var(--font-inter, Inter, Arial, sans-serif)`,
    overflowY: "auto",
    overflowWrap: "anywhere",
    maxHeight: `${MAX_LINES * LINE_HEIGHT_PX + PADDING_PX}px`,
    userSelect: "text",
    whiteSpace: "pre-wrap",
  })
  const height = () =>
    Math.min(MAX_LINES, countRows(widget.vdotLines, node.size[0])) * LINE_HEIGHT_PX + PADDING_PX + 2 * (widget.margin ?? 10)
  const widget = node.addDOMWidget(WIDGET, WIDGET, element, {
    serialize: false,
    hideOnZoom: false,
    hideInPanel: true,
    getMinHeight: () => height(),
    getMaxHeight: () => height(),
  })
  widget.serialize = false
  widget.vdotLines = []
  return widget
}

/**
 * Shows lines of plain text on a node, in place of those shown before.
 * @param {object} node a LiteGraph node
 * @param {string[]} lines
 */
export function showNotes(node, lines) {
  const said = lines.map(String).filter((line) => line.trim())
  let widget = node.widgets?.find((candidate) => candidate.name === WIDGET)
  if (!said.length && !widget) return
  widget ??= createWidget(node)
  widget.vdotLines = said
  widget.element.textContent = said.join("\n")
  widget.element.hidden = !said.length
  growToFit(node)
}

/** Makes room on the canvas for widgets that have grown; a larger node keeps its size. Vue nodes do this by themselves. */
export function growToFit(node) {
  if (!window.LiteGraph?.vueNodesMode) {
    const [width, height] = node.computeSize()
    node.setSize([Math.max(node.size[0], width), Math.max(node.size[1], height)])
  }
  node.setDirtyCanvas?.(true, true)
}

/**
 * Makes a node show the text of its runs.
 * @param {object} node a LiteGraph node
 * @param {(node: object, name: string, extra: Function) => void} chain adds to one of the node's handlers
 */
export function attachNotes(node, chain) {
  chain(node, "onExecuted", (message) => showNotes(node, message?.text ?? []))
}
