/** Values of menus in the language of the interface; the value that is saved and run stays the English one. */

import { choice } from "./strings.js"

/**
 * Labels the menus of a node, but for those that have labels already.
 * @param {object} node a LiteGraph node
 */
export function labelChoices(node) {
  for (const { type, options } of node.widgets ?? []) {
    if (type === "combo" && options && !options.getOptionLabel) options.getOptionLabel = choice
  }
}
