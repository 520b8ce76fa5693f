/** The few words that the pack's own widgets show, in the language of the interface (locales/<language>/main.json, key "vdot"). */

import { app } from "../../scripts/app.js"
import { api } from "../../scripts/api.js"

let strings = {}

/** Reads the strings once; ComfyUI serves every pack's locales in one answer. */
export async function loadStrings() {
  const locales = await api.getCustomNodesI18n()
  const language = app.extensionManager?.setting?.get("Comfy.Locale") ?? "en"
  strings = { ...locales.en?.vdot, ...locales[language]?.vdot }
}

/**
 * The string for a key, with `{name}` places filled in.
 * @param {string} key a key of "vdot" in locales/en/main.json
 * @param {Record<string, string | number>} [values]
 * @returns {string} the text; the key itself when the locales could not be read
 */
export function text(key, values = {}) {
  return (strings[key] ?? key).replace(/\{(\w+)\}/g, (place, name) => String(values[name] ?? place))
}

/** The label of a menu's value: its translation, else the value itself. */
export function choice(value) {
  return strings.choices?.[value] ?? String(value ?? "")
}
