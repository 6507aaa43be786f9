/**
 * What happened, iteration by iteration, the latest first. Of ten thousand only those in view are on the page.
 */

import { button, icon, keyed, make, setAttribute, setShown, setText } from "./dom.js"
import { bytes, duration, fullMoment, ownMemory, place } from "./formats.js"
import { pauseWords } from "./pause_view.js"
import { inShort, thumbnail } from "./values.js"

const FIRST = 40
const MORE = 200

/** What of an iteration can have changed. */
function signature(entry) {
  const { steps, conditions, edits, pauses, inputs, failure } = entry
  const last = steps.at(-1)
  const known = steps.reduce((sum, step) => sum + Object.values(step.outputs ?? {}).filter((one) => one.type).length, 0)
  return [
    steps.length,
    last?.seconds ?? "",
    last?.error ? 1 : 0,
    known,
    conditions.length,
    edits.length,
    pauses.length,
    inputs.length,
    failure ? 1 : 0,
  ].join("/")
}

function secondsOf(entry) {
  let seconds = null
  for (const step of entry.steps) if (step.seconds !== null) seconds = (seconds ?? 0) + (step.seconds ?? 0)
  return seconds
}

class IterationRow {
  #toggle
  #time = make("span", { class: "dc-time" })
  #words = make("span", { class: "dc-dim dc-line-text" })
  #sign = make("span", { class: "dc-iteration-sign", "aria-hidden": "true" })
  #details = null
  #seen = ""
  #entry

  constructor(entry, actions) {
    this.actions = actions
    this.#entry = entry
    const name = entry.path.length ? place(entry.path) : "run"
    this.#toggle = make(
      "button",
      { type: "button", class: "dc-iteration", "aria-expanded": "false", "data-iteration": entry.key },
      icon("chevron-right"),
      this.#sign,
      make("span", { class: "dc-index", text: name }),
      this.#words,
      this.#time,
    )
    this.#toggle.addEventListener("click", () => this.#open())
    this.element = make("li", { style: `--depth: ${Math.max(0, entry.path.length - 1)}` }, this.#toggle)
  }

  #open() {
    const isOpen = this.#details === null
    setAttribute(this.#toggle, "aria-expanded", String(isOpen))
    if (isOpen) {
      this.#details = make("div", { class: "dc-iteration-body" })
      this.element.append(this.#details)
      this.#fill()
    } else {
      this.#details.remove()
      this.#details = null
    }
  }

  update(entry) {
    this.#entry = entry
    const now = signature(entry)
    if (now === this.#seen) return
    this.#seen = now
    const seconds = secondsOf(entry)
    setText(this.#time, seconds === null ? "…" : duration(seconds))
    setText(this.#words, this.#inShort(entry))
    setAttribute(
      this.#sign,
      "data-look",
      entry.failure || entry.steps.some((step) => step.error)
        ? "failed"
        : seconds === null
          ? "live"
          : entry.steps.some((step) => step.retries?.length)
            ? "paused"
            : "ok",
    )
    if (this.#details) this.#fill()
  }

  #inShort(entry) {
    const words = []
    const [cached, nodes] = [
      entry.steps.reduce((sum, step) => sum + (step.cached ?? 0), 0),
      entry.steps.reduce((sum, step) => sum + (step.nodes ?? 0), 0),
    ]
    const retries = entry.steps.reduce((sum, step) => sum + (step.retries?.length ?? 0), 0)
    if (entry.failure) words.push(entry.failure.state ?? "failed")
    if (nodes) words.push(`${nodes - cached} of ${nodes} nodes ran`)
    if (retries) words.push(retries === 1 ? "1 retry" : `${retries} retries`)
    if (entry.edits.length) words.push(entry.edits.length === 1 ? "1 edit" : `${entry.edits.length} edits`)
    return words.join(" · ")
  }

  #fill() {
    const entry = this.#entry
    this.#details.replaceChildren(
      make("div", { class: "dc-dim", text: fullMoment(entry.started) }),
      ...entry.inputs.map((event) => line("sign-in", event.name, inShort(event.value))),
      ...entry.pauses.map((event) => line("pause", pauseWords(event).reason, pauseWords(event).where)),
      ...entry.edits.map((event) =>
        line("pencil", event.name, `${inShort(event.before ?? { kind: "other" })} → ${inShort(event.after)}`),
      ),
      ...entry.steps.map((step) => this.#step(step)),
      ...entry.conditions.map((event) =>
        line(
          "filter",
          event.what === "branch" ? "branch" : "loop",
          `${event.text}  →  ${event.result ? "true" : "false"}`,
        ),
      ),
      ...(entry.failure
        ? [
            line(
              "times-circle",
              entry.failure.state ?? "failed",
              entry.failure.error?.message ?? String(entry.failure.error ?? ""),
            ),
          ]
        : []),
    )
  }

  #step(step) {
    const facts = []
    if (step.error) facts.push("failed")
    else if (step.seconds === null) facts.push("runs now")
    else facts.push(duration(step.seconds))
    if (step.recalled) facts.push("from the checkpoint")
    if (step.nodes) facts.push(`${step.nodes - (step.cached ?? 0)} executed, ${step.cached ?? 0} from the cache`)
    if (step.saving_seconds >= 0.05) facts.push(`${duration(step.saving_seconds)} saving`)
    const { server, GPU } = ownMemory(step.memory)
    if (server) facts.push(`server ${bytes(server)}`)
    if (GPU) facts.push(`GPU ${bytes(GPU)}`)
    const outputs = Object.entries(step.outputs ?? {}).map(([name, sketch]) =>
      make(
        "li",
        {},
        thumbnail(sketch, this.actions.thumbnailUrl),
        make("span", { class: "dc-port-name", text: name }),
        make("span", { class: "dc-line-text", text: inShort(sketch) }),
      ),
    )
    const retries = (step.retries ?? []).map((retry) => line("refresh", "tried again", String(retry.reason ?? "")))
    return make(
      "div",
      { class: "dc-step" },
      make(
        "div",
        { class: "dc-step-head" },
        make("span", { text: step.workflow }),
        make("span", { class: "dc-dim", text: facts.join(" · ") }),
      ),
      ...retries,
      step.error ? line("times-circle", step.error.type ?? "failed", step.error.message ?? "") : null,
      outputs.length ? make("ul", { class: "dc-outputs" }, ...outputs) : null,
    )
  }
}

function line(iconName, title, text) {
  return make("div", { class: "dc-fact" }, icon(iconName), make("span", {}, make("b", { text: title }), ` ${text}`))
}

export class IterationList {
  #list = make("ul", { class: "dc-iterations" })
  #more
  #made = new Map()
  #shown = FIRST

  constructor(actions) {
    this.actions = actions
    this.#more = button(
      {
        class: "dc-button dc-more",
        on: {
          click: () => {
            this.#shown += MORE
            this.update(this.run)
          },
        },
      },
      null,
      "Show more",
    )
    this.element = make("div", {}, this.#list, this.#more)
  }

  update(run) {
    this.run = run
    const { iterations } = run
    const shown = iterations.slice(-this.#shown).reverse()
    keyed(
      this.#list,
      shown,
      (entry) => entry.key || "run",
      (entry) => new IterationRow(entry, this.actions),
      this.#made,
    )
    setShown(this.#more, iterations.length > this.#shown)
    setText(
      this.#more.lastElementChild,
      `Show more (${(iterations.length - this.#shown).toLocaleString("en")} earlier)`,
    )
  }
}
