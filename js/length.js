/** How many frames the video of a node has, for every editor: as far as the graph tells, else as the last run said. */

import { chain } from "./graph.js"
import { onSaid } from "./restore.js"
import { mostOf } from "./sizes.js"
import { text } from "./strings.js"
import { GROUP } from "./timeline_text.js"
import { giverOf, numberOf, sourceOf } from "./wires.js"

const UNIT = "VDOT_VCU"
/** Nodes whose positions are written for the length that is set on them; of those with masks, boxes alone are. */
const MOVED = ["VDOTKeyframes", "VDOTLayout", "VDOTMove"]
/** Of a unit, in the first line that its node shows after a run. */
const LENGTH_SAID = /\d+x\d+, (\d+) frames?/

const rounded = (length) => length && Math.floor((Math.max(length, 1) - 1) / GROUP) * GROUP + 1

const isWiredTo = (node, prefix) => node.inputs?.some((input) => input.name.startsWith(prefix) && input.link != null)

/**
 * Of the graph: a unit behind decides, then the node's own length, which `size` limits.
 * @returns {{frames: number, isSure: boolean}} frames: 0 where the graph does not tell
 */
function told(node, seen = new Set()) {
  if (seen.has(node)) return { frames: 0, isSure: false }
  seen.add(node)
  for (const [slot, input] of (node.inputs ?? []).entries()) {
    const source = input.link != null && [UNIT, "*"].includes(String(input.type)) ? sourceOf(node, slot) : undefined
    const behind = source && told(source, seen)
    if (behind?.frames) return behind
  }
  const most = mostOf(node)
  const frames = Math.min(numberOf(node, "length"), most.frames)
  return { frames: rounded(frames), isSure: frames > 0 && most.isSure && giverOf(node, "length") !== undefined }
}

/** The length of the video that a node makes. */
export class VideoLength {
  #said

  /**
   * @param {object} node a LiteGraph node
   * @param {() => unknown} clips what else the length is made from, as JSON: another state of it, and what a run said is forgotten
   * @param {() => void} changed called when a run has said it
   */
  constructor(node, clips, changed) {
    this.node = node
    this.clips = clips
    chain(node, "onConnectionsChange", () => (this.#said = undefined))
    onSaid(node, (message) => {
      this.#said = { frames: Number(LENGTH_SAID.exec(message?.text?.[0] ?? "")?.[1]) || 0, of: this.#madeFrom }
      changed()
    })
  }

  get #madeFrom() {
    return JSON.stringify([told(this.node), this.clips()])
  }

  /** What the length is made from, to be compared, as JSON. */
  get state() {
    return [told(this.node), this.clips(), this.#said, this.isMoved]
  }

  /** Frames that a run makes; 0 where nothing tells. */
  get frames() {
    const { frames, isSure } = told(this.node)
    return isSure || !this.#said || this.#said.of !== this.#madeFrom ? frames : this.#said.frames || frames
  }

  /** The node's own positions are moved along with `size`, to fewer frames than are set. */
  get isMoved() {
    return MOVED.includes(this.node.comfyClass) && isWiredTo(this.node, "size") && !isWiredTo(this.node, "masks.")
  }

  /** Frames that the node's own positions are written for. */
  get written() {
    return this.isMoved ? rounded(numberOf(this.node, "length")) : this.frames
  }

  /** Most frames that can be set: what the model was made for. */
  get most() {
    return mostOf(this.node).frames
  }

  /** Frames that a run makes, where they are other than those that positions are written for; else 0. */
  get other() {
    return this.isMoved && this.frames !== this.written ? this.frames : 0
  }

  /** Words on that, for an editor to show; "" where positions stay. */
  get along() {
    return this.other ? text("moved_along", { frames: this.other }) : ""
  }

  /** The frame of the video for one that positions are written for. */
  moved(frame) {
    return this.other ? Math.round((frame * (this.other - 1)) / (this.written - 1)) : frame
  }
}
