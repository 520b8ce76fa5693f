/**
 * Choosing a composition: after a run, a press makes the next ones stop at the step that is held; a later press runs all steps
 * with the seed of the video on the node, which the full run finishes.
 */

import { chain, rememberForUndo, setGiven, setWidget } from "./graph.js"
import { element } from "./panel.js"
import { text } from "./strings.js"
import { giverOf, valueOf, widgetOf } from "./wires.js"

const EARLY = { leftover_noise: false }
const CONTROL = "control_after_generate"
const FULL = { end_step: 0, leftover_noise: true, [CONTROL]: "fixed" }

/**
 * The button for it; hidden where there is nothing to choose.
 * @param {object} node a sampler
 * @param {() => object | undefined} shown the message of the step that the preview shows
 * @param {() => boolean} isHeld whether that step was chosen by hand
 * @returns {{element: HTMLElement, update: () => void}}
 */
export function stopButton(node, shown, isHeld) {
  const button = element("button", "vdot-tool vdot-stop")
  button.type = "button"
  button.hidden = true
  const isEarly = () => (valueOf(node, "end_step") ?? 0) > 0
  const update = () => {
    const message = shown()
    const canStop = isHeld() && message.step < message.num_steps && message.first !== undefined
    button.hidden = !message || !widgetOf(node, "end_step") || !(isEarly() ? message.seed !== undefined : canStop)
    if (button.hidden) return
    button.textContent = text(isEarly() ? "stop_finish" : "stop_here")
    button.disabled = !giverOf(node, "end_step") || (isEarly() && !giverOf(node, "seed"))
    const values = { step: message.first + message.step, seed: message.seed }
    button.title = text(button.disabled ? "stop_wired" : isEarly() ? "stop_finish_more" : "stop_here_more", values)
  }
  button.addEventListener("click", () => {
    const message = shown()
    const isFinish = isEarly()
    const values = isFinish ? { ...FULL, seed: message.seed } : { ...EARLY, end_step: message.first + message.step }
    for (const [name, value] of Object.entries(values)) setGiven(node, name, value)
    const giver = giverOf(node, "seed")?.node
    if (isFinish && giver) setWidget(giver, CONTROL, "fixed")
    rememberForUndo()
    update()
  })
  const steps = widgetOf(node, "end_step")
  if (steps) chain(steps, "callback", update)
  return { element: button, update }
}
