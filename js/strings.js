/**
 * The few words that the pack's own widgets show, and the most frequent sentences of its nodes, in the language of the interface
 * (locales/<language>/main.json, key "vdot").
 */

import { app } from "../../scripts/app.js"
import { api } from "../../scripts/api.js"

/** Nodes write no longer sentences; a report of another program's fault may be. */
const MAX_CHARACTERS = 400
const PLACE = /\{(\w+)\}/g
/** Places whose words are sentences of their own; without a translation of theirs, all stays English. */
const PARTS = ["what", "expected", "cure", "task", "sound"]
/** Places that hold no words: a longer English phrase there would stay English. */
const FORMS = { source: "\\d+x\\d+", scaled: "\\d+x\\d+" }

let strings = {}
let patterns = []

/** Reads the strings once; ComfyUI serves every pack's locales in one answer. */
export async function loadStrings() {
  const locales = await api.getCustomNodesI18n()
  const language = app.extensionManager?.setting?.get("Comfy.Locale") ?? "en"
  strings = { ...locales.en?.vdot, ...locales[language]?.vdot }
  const isEnglish = language === "en" || !locales[language]?.vdot?.sentences
  const sentences = isEnglish ? {} : locales.en.vdot.sentences
  patterns = Object.entries(sentences).map(([key, sentence]) => [sentencePattern(sentence), key])
}

/** Matches the sentence with anything in its places but FORMS'; "(s)" stands for a plural. */
function sentencePattern(sentence) {
  const escaped = sentence.replace(/[.*+?^$()|[\]\\]/g, "\\$&").replaceAll("\\(s\\)", "s?")
  return new RegExp(`^${escaped.replace(PLACE, (_, name) => `(?<${name}>${FORMS[name] ?? ".+?"})`)}$`)
}

/** "1 frame(s)" and "2 frame(s)" as English writes them. */
function counted(sentence) {
  return sentence.replace(/(\d+) (\w+)\(s\)/g, (_, count, word) => `${count} ${word}${count === "1" ? "" : "s"}`)
}

function fill(sentence, values) {
  return sentence.replace(PLACE, (place, name) => String(values[name] ?? place))
}

/**
 * The string for a key, with `{name}` places filled in.
 * @param {string} key a key of "vdot" in locales/en/main.json
 * @param {Record<string, string | number>} [values]
 * @returns {string} the text; the key itself when the locales could not be read
 */
export function text(key, values = {}) {
  return counted(fill(strings[key] ?? key, values))
}

/** The label of a menu's value: its translation, else the value itself. */
export function choice(value) {
  return strings.choices?.[value] ?? String(value ?? "")
}

/** A node's English text in the language of the interface, line by line; lines that the locales do not have stay as they are. */
export function translated(lines) {
  return lines.split("\n").map(translatedLine).join("\n")
}

function translatedLine(line) {
  return line.length > MAX_CHARACTERS ? line : (translation(line) ?? line)
}

/** The translation of a sentence or of a part of one; undefined for those that the locales do not have. */
function translation(line) {
  for (const [pattern, key] of patterns) {
    const match = pattern.exec(line)
    if (!match) continue
    const entries = Object.entries(match.groups ?? {}).map(([name, words]) => [name, PARTS.includes(name) ? translation(words) : words])
    if (entries.every(([, words]) => words !== undefined)) return fill(strings.sentences[key], Object.fromEntries(entries))
  }
  return undefined
}
