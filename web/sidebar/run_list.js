/**
 * The list of runs: those that live first, then the past ones; below it what is set for all runs.
 */

import { button, icon, keyed, make, setShown, setText } from "./dom.js"
import { clock, duration, fullMoment, moment } from "./formats.js"
import { AskingButton, ProgressBar, StateMark } from "./parts.js"

const BEGINNING = [
  "Put a Discomfort Loop Executor into a workflow here and press Run,",
  "or run a Python script that uses Discomfort on this machine.",
  "Every run shows up here by itself: what it does, its values, its time.",
]

const HELP = [
  ["A run", "is one or many workflows, in a loop if you like, whose ports hand values from one to the next."],
  [
    "Pause",
    "holds a run before its next step. Then its texts, numbers and switches can be changed, and it goes on with them.",
  ],
  ["Step", "lets a paused run go on until one more workflow has finished."],
  [
    "A breakpoint",
    "is the dot before a value: every run is paused when that value has been made, or is about to be read.",
  ],
  ["Stop", "ends a run behind its last step. With a checkpoint folder the same call goes on from there."],
  ["The key D", "opens and closes this tab. All of it can be reached with Tab, Enter and the arrow keys."],
]

class RunCard {
  #name = make("span", { class: "dc-name" })
  #where = make("div", { class: "dc-dim dc-line-text" })
  #mark = new StateMark()
  #bar = new ProgressBar("Iterations done")

  constructor(run, watch) {
    this.watch = watch
    this.run = run
    const open = button({ class: "dc-card", "data-run": run.run_id, on: { click: () => watch.choose(run.run_id) } })
    open.append(make("div", { class: "dc-card-head" }, this.#name, this.#mark.element), this.#bar.element, this.#where)
    this.element = make("li", {}, open)
  }

  update(run) {
    this.run = run
    const status = this.watch.status(run.run_id)
    const isLive = this.watch.isLive(run.run_id)
    setText(this.#name, run.name)
    this.#mark.update(this.watch.state(run.run_id))
    const total = status?.iterations || run.iterations || 0
    setShown(this.#bar.element, isLive && total > 0)
    if (isLive) this.#bar.update(total ? (status?.iteration ?? 0) / total : null)
    setText(this.#where, isLive ? this.#now(status, total) : this.#then())
    this.element.firstElementChild.title = `${run.name}\nstarted ${fullMoment(run.started)}`
  }

  #now(status, total) {
    const words = []
    if (status)
      words.push(
        total > 1
          ? `${Math.min(total, status.iteration + 1)} of ${total} iterations`
          : total
            ? ""
            : `iteration ${status.iteration}`,
      )
    words.push(clock(Date.now() / 1000 - this.run.started), sourceWord(this.run))
    return words.filter(Boolean).join(" · ")
  }

  #then() {
    const { end, started } = this.run
    const words = [moment(started)]
    if (end) {
      words.push(duration(end.seconds))
      if (end.iterations > 1) words.push(`${end.iterations} iterations`)
      if (end.error) words.push(end.error.message.split("\n")[0])
    }
    return [...words, end?.error ? "" : sourceWord(this.run)].filter(Boolean).join(" · ")
  }
}

/** Where a run came from. */
export function sourceWord({ source, outer_node: node }) {
  return node ? `by “${node.title}”` : source === "editor" ? "from the editor" : "from a script"
}

export class RunList {
  #live = make("ul", { class: "dc-cards", "aria-label": "Runs that go on" })
  #past = make("ul", { class: "dc-cards dc-past", "aria-label": "Past runs" })
  #pastTitle = make("h3", { class: "dc-title", text: "Before" })
  #more
  #begin
  #help
  #waiting = make("p", { class: "dc-dim dc-pad", text: "Looking for runs…" })
  #made = new Map()
  #madePast = new Map()
  #shown = 30
  #settings
  #server

  constructor(watch, settings) {
    this.watch = watch
    this.#more = button(
      {
        class: "dc-button dc-more",
        on: {
          click: () => {
            this.#shown += 70
            this.update()
          },
        },
      },
      null,
      "Show more",
    )
    this.#help = make(
      "div",
      { class: "dc-help", id: "discomfort-help" },
      make("dl", {}, ...HELP.flatMap(([term, text]) => [make("dt", { text: term }), make("dd", { text })])),
      make("a", {
        href: "https://github.com/fidecastro/comfyui-discomfort#readme",
        target: "_blank",
        rel: "noopener",
        text: "The documentation",
      }),
    )
    setShown(this.#help, false)
    const helpButton = button(
      { class: "dc-link", "aria-expanded": "false", "aria-controls": "discomfort-help" },
      "question-circle",
      "How this works",
    )
    helpButton.addEventListener("click", () => {
      setShown(this.#help, this.#help.hidden)
      helpButton.setAttribute("aria-expanded", String(!this.#help.hidden))
    })
    this.#begin = make(
      "div",
      { class: "dc-empty" },
      make("span", { class: "dc-empty-sign", "aria-hidden": "true" }, icon("sync")),
      make("strong", { text: "No runs yet" }),
      make("p", { text: BEGINNING.join(" ") }),
    )
    this.#settings = new AllRuns(watch, settings)
    this.#server = new KeptServer(watch, settings)
    this.element = make(
      "div",
      { class: "dc-list" },
      this.#waiting,
      this.#begin,
      this.#live,
      this.#pastTitle,
      this.#past,
      this.#more,
      make("footer", { class: "dc-footer" }, this.#settings.element, this.#server.element, helpButton, this.#help),
    )
  }

  update() {
    const { watch } = this
    const runs = watch.runs ?? []
    const live = runs.filter((one) => watch.isLive(one.run_id))
    const past = runs.filter((one) => !watch.isLive(one.run_id))
    const create = (run) => new RunCard(run, watch)
    setShown(this.#waiting, watch.runs === null && !watch.problem)
    setShown(this.#begin, watch.runs !== null && !runs.length)
    keyed(this.#live, live, (run) => run.run_id, create, this.#made)
    keyed(this.#past, past.slice(0, this.#shown), (run) => run.run_id, create, this.#madePast)
    setShown(this.#live, live.length > 0)
    setShown(this.#pastTitle, live.length > 0 && past.length > 0)
    setShown(this.#more, past.length > this.#shown)
    this.#settings.update()
    this.#server.update()
  }
}

/** What holds for all runs: whether new ones begin paused, and the breakpoints. */
class AllRuns {
  #atStart = make("input", { type: "checkbox", id: "discomfort-pause-at-start" })
  #breakpoints = make("ul", { class: "dc-chips", "aria-label": "Breakpoints" })
  #made = new Map()

  constructor(watch, settings) {
    this.watch = watch
    this.#atStart.addEventListener("change", () => settings({ pause_at_start: this.#atStart.checked }))
    this.create = (name) => ({
      element: make(
        "li",
        {},
        make("span", { class: "dc-breakpoint-dot", "aria-hidden": "true" }),
        make("span", { text: name }),
        button(
          {
            class: "dc-chip-close",
            "aria-label": `Remove the breakpoint ${name}`,
            on: { click: () => settings({ breakpoints: watch.breakpoints.filter((one) => one !== name) }) },
          },
          "times",
        ),
      ),
    })
    this.element = make(
      "div",
      { class: "dc-all-runs" },
      make(
        "label",
        { class: "dc-check", for: "discomfort-pause-at-start" },
        this.#atStart,
        make("span", { text: "Pause new runs at their start" }),
      ),
      this.#breakpoints,
    )
  }

  update() {
    this.#atStart.checked = this.watch.pausesAtStart
    keyed(this.#breakpoints, this.watch.breakpoints, (name) => name, this.create, this.#made)
    setShown(this.#breakpoints, this.watch.breakpoints.length > 0)
  }
}

/** The nested server that the runner nodes keep between their runs. */
class KeptServer {
  #text = make("span")

  constructor(watch, settings) {
    this.watch = watch
    const stop = new AskingButton({
      label: "Stop",
      question: "Stop the server?",
      yes: "Stop it",
      action: () => settings(null),
    })
    this.element = make("div", { class: "dc-server" }, icon("server"), this.#text, stop.element)
  }

  update() {
    const { server } = this.watch
    const isThere = Boolean(server) && server.state !== "stopped"
    setShown(this.element, isThere)
    if (!isThere) return
    const idle = server.idle_timeout ? `, ends after ${duration(server.idle_timeout)} without work` : ""
    setText(this.#text, `Server of the runner nodes: ${server.description || server.state}${idle}`)
  }
}
