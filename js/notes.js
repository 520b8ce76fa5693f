/** What a node has to say about its last run ("837x480 -> 832x480"), as read-only lines beneath its widgets. */

import { panelSection } from "./panel.js"
import { onSaid } from "./restore.js"
import { translated } from "./strings.js"

/**
 * Shows lines of plain text on a node, in place of those shown before.
 * @param {object} node a LiteGraph node
 * @param {string[] | string} lines
 */
export function showNotes(node, lines) {
  const said = [lines].flat().map(String).filter((line) => line.trim())
  const section = panelSection(node, "notes", said.length > 0)
  if (!section) return
  section.setAttribute("role", "status")
  section.textContent = translated(said.join("\n"))
  section.hidden = !said.length
}

/**
 * Makes a node show the text of its runs.
 * @param {object} node a LiteGraph node
 */
export function attachNotes(node) {
  onSaid(node, (message) => showNotes(node, message?.text ?? []))
}
