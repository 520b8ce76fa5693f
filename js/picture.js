/** The picture or clip behind a node: the file of the loader that its images come from, as far as the graph tells. */

import { api } from "../../scripts/api.js"
import { CLIP_LOADER, mostFrames, sizeBehind } from "./sizes.js"
import { isWired, numberOf, sourceOf, valueOf } from "./wires.js"

const FILE_WIDGETS = ["image", "video", "file"]
const IMAGE_FILE = /\.(png|jpe?g|webp|gif|bmp|avif)$/i
const VIDEO_FILE = /\.(mp4|webm|mov|m4v|mkv)$/i
/** Types of wires that pictures come by; a Reroute takes any. */
const FOLLOWED = ["IMAGE", "VIDEO", "MASK", "VDOT_VCU", "*"]
const MAX_DEPTH = 12
/** Of the model, and of clips whose loader says nothing. */
const FRAMES_PER_SECOND = 16
/** Of a latent frame, in whose multiples and one the clip loader gives frames. */
const GROUP = 4
/** A size by which two ways through nodes are compared. */
const PROBE = [1920, 1080]

/** The address of a file named in a loader, as "folder/name.png [output]". */
function address(value) {
  const [, path, type = "input"] = /^(.*?)(?: \[(input|output|temp)\])?$/.exec(value)
  const slash = path.lastIndexOf("/")
  const query = new URLSearchParams({ filename: path.slice(slash + 1), subfolder: path.slice(0, Math.max(slash, 0)), type })
  return api.apiURL(`/view?${query}`)
}

function fileOf(node) {
  if (node.comfyClass === CLIP_LOADER && isWired(node, "video")) return undefined // it reads that instead
  for (const name of FILE_WIDGETS) {
    const value = valueOf(node, name)
    if (typeof value !== "string") continue
    const bare = value.replace(/ \[\w+\]$/, "")
    const isVideo = VIDEO_FILE.test(bare)
    if (isVideo || IMAGE_FILE.test(bare)) return { url: address(value), video: isVideo, loader: node, through: [] }
  }
  return undefined
}

/** The part of its file that a loader reads: its first moment in seconds, frames a second, and most frames. */
function spanOf(loader) {
  const isClip = loader?.comfyClass === CLIP_LOADER
  return {
    start: (isClip && numberOf(loader, "start")) || 0,
    rate: (isClip && numberOf(loader, "fps")) || FRAMES_PER_SECOND,
    most: isClip ? mostFrames(loader) : (loader && numberOf(loader, "length")) || Infinity,
  }
}

/**
 * The file behind a node, found by following its wires of pictures backwards, images before masks; each node is looked at once.
 * `through` are the nodes that its pictures come through, the loader first.
 */
function findFile(node, depth = 0, seen = new Set()) {
  const file = findBehind(node, depth, seen)
  if (!file || !depth) return file
  const loader = node.comfyClass === CLIP_LOADER ? node : file.loader
  return { ...file, loader, through: [...file.through, node] }
}

function findBehind(node, depth, seen) {
  if (!node || depth > MAX_DEPTH || seen.has(node)) return undefined
  seen.add(node)
  const own = depth > 0 && !node.mode ? fileOf(node) : undefined // a node that is bypassed or off loads nothing
  if (own) return own
  for (const type of FOLLOWED) {
    for (const [slot, input] of (node.inputs ?? []).entries()) {
      const found = input.link != null && String(input.type) === type ? findFile(sourceOf(node, slot), depth + 1, seen) : undefined
      if (found) return found
    }
  }
  return undefined
}

/** Width and height of a file's pictures of a size, after the nodes that they come through. */
function givenSize({ through }, size) {
  return through.reduce((given, node) => sizeBehind(node, given), size)
}

/** The picture behind one node; loads it when the graph names another file, and calls `changed` when there is something to draw. */
export class Backdrop {
  #url
  #source
  #video = false
  #loader
  #through = []
  #frame = 0
  /** Of the node, to look behind it alone; undefined for all. */
  slot

  constructor(node, changed) {
    this.node = node
    this.changed = changed
  }

  get #file() {
    return this.slot === undefined ? findFile(this.node) : findFile(sourceOf(this.node, this.slot), 1)
  }

  /** What the graph says of the picture, to be compared: its address and the part of it that is read. */
  get state() {
    const file = this.#file
    return file ? [file.url, ...Object.values(spanOf(file.loader)), ...givenSize(file, PROBE)] : []
  }

  /** Looks at the graph again. */
  refresh() {
    const file = this.#file
    this.#loader = file?.loader
    this.#through = file?.through ?? []
    if (file?.url === this.#url) return this.seek(this.#frame)
    this.#url = file?.url
    this.#video = Boolean(file?.video)
    this.#source = undefined
    if (!file) return this.changed()
    const source = document.createElement(file.video ? "video" : "img")
    const ready = () => {
      if (file.url !== this.#url) return
      this.#source = source
      this.seek(this.#frame)
      this.changed()
    }
    if (file.video) {
      Object.assign(source, { muted: true, preload: "auto", playsInline: true })
      source.addEventListener("loadeddata", ready)
      source.addEventListener("seeked", () => this.changed())
    } else {
      source.addEventListener("load", ready)
    }
    source.src = file.url
  }

  /** Width and height in pixels of the file's own picture, or undefined without one. */
  get #ownSize() {
    const source = this.#source
    return source && [source.videoWidth ?? source.naturalWidth, source.videoHeight ?? source.naturalHeight]
  }

  /** Width and height in pixels of what the node is given, or undefined without a picture. */
  get size() {
    return this.#source && givenSize({ through: this.#through }, this.#ownSize)
  }

  /** Number of frames of the part of a clip that its loader reads; 1 for an image; undefined without a picture. */
  get numFrames() {
    if (!this.#source) return undefined
    const { start, rate, most } = spanOf(this.#loader)
    if (!this.#video) return 1
    const count = Math.min(most, Math.max(1, Math.round((this.#source.duration - start) * rate) || 1))
    return this.#loader.comfyClass === CLIP_LOADER ? Math.floor((count - 1) / GROUP) * GROUP + 1 : count
  }

  /** Shows a clip's frame, counted from the first that its loader reads. */
  seek(frame) {
    this.#frame = frame
    if (!this.#video || !this.#source) return
    const { start, rate } = spanOf(this.#loader)
    const time = Math.min(start + (frame + 0.5) / rate, Math.max(0, this.#source.duration - 0.001))
    if (Math.abs(this.#source.currentTime - time) > 0.001) this.#source.currentTime = time
  }

  /** Draws the picture so that it covers a rectangle, as VDOT's nodes scale; answers false without one. */
  drawCover(context, x, y, width, height) {
    if (!this.#source) return false
    const [own, tall] = this.#ownSize
    const scale = Math.max(width / own, height / tall)
    const part = [width / scale, height / scale]
    context.drawImage(this.#source, (own - part[0]) / 2, (tall - part[1]) / 2, ...part, x, y, width, height)
    return true
  }
}
