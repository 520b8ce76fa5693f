/** Sizes of the pictures that nodes give, as far as their widgets tell: vdot_core/vcu/sizes.py has the same classes and rule. */

import { isWired, numberOf, sourceOf, valueOf } from "./wires.js"

export const CLIP_LOADER = "VDOTLoadClip"
const MODEL_LOADER = "VDOTLoad"
const DEMO = "bundled demo"
const MULTIPLE = 16
const NARROWEST = 1 / 8
const USUAL_FRAMES = 81
/** Width, height and most frames of the classes, and of the demo. */
const CLASSES = { "480p": [832, 480, 81], "720p": [1280, 720, 81], demo: [64, 64, 17] }

const snapped = (side) => Math.max(MULTIPLE, Math.floor(side / MULTIPLE) * MULTIPLE)

/** Rounds halves to even numbers, as Python does. */
function rounded(value) {
  return value % 1 === 0.5 ? 2 * Math.round(value / 2) : Math.round(value)
}

/** The node behind the `size` of another; undefined where none is wired. */
function sizeSource(node) {
  const slot = node.inputs?.findIndex((input) => input.name === "size" && input.link != null) ?? -1
  return slot < 0 ? undefined : sourceOf(node, slot)
}

/** The class of VDOT Load behind a node's `size`; undefined where none is wired, or another node gives it. */
function modelClass(node) {
  const source = sizeSource(node)
  if (source?.comfyClass !== MODEL_LOADER) return undefined
  const chosen = valueOf(source, "size_class")
  return chosen in CLASSES ? chosen : valueOf(source, "model") === DEMO ? "demo" : "480p"
}

/** A class's size for the shape of a clip. */
export function fitted(name, [width, height]) {
  const tiles = CLASSES[name][0] * CLASSES[name][1] / MULTIPLE ** 2
  const ratio = Math.max(Math.min(width, height) / Math.max(width, height), NARROWEST)
  const short = Math.max(1, rounded(Math.sqrt(tiles * ratio)))
  const long = Math.max(short, Math.min(Math.floor(tiles / short), rounded(short / ratio)))
  const sides = [long * MULTIPLE, short * MULTIPLE]
  return width >= height ? sides : sides.reverse()
}

/**
 * Most frames that a node makes by its `size`.
 * @returns {{frames: number, isSure: boolean}} Infinity without one; a model file may be for fewer than its class
 */
export function mostOf(node) {
  const source = sizeSource(node)
  const name = modelClass(node)
  const isSure = name ? name === "demo" || valueOf(source, "size_class") === name : !isWired(node, "size")
  return { frames: CLASSES[name]?.[2] ?? Infinity, isSure }
}

/** Most frames that VDOT Load Clip gives. */
export function mostFrames(loader) {
  return numberOf(loader, "length") || CLASSES[modelClass(loader)]?.[2] || USUAL_FRAMES
}

/**
 * The size of what a node gives for pictures of a size: other nodes than these are taken to leave it as it is.
 * @param {object} node a LiteGraph node
 * @param {number[]} size width and height
 */
export function sizeBehind(node, size) {
  if (node.comfyClass === CLIP_LOADER) {
    const resolution = valueOf(node, "resolution")
    const name = resolution in CLASSES ? resolution : resolution === "auto" ? modelClass(node) : undefined
    return name ? fitted(name, size) : size.map(snapped)
  }
  if (node.comfyClass === "ImageScale") {
    const [width, height] = [numberOf(node, "width"), numberOf(node, "height")]
    if (!width && !height) return size
    return [width || Math.max(1, rounded((size[0] * height) / size[1])), height || Math.max(1, rounded((size[1] * width) / size[0]))]
  }
  if (node.comfyClass === "ImageScaleBy") return size.map((side) => rounded(side * (numberOf(node, "scale_by") || 1)))
  return size
}
