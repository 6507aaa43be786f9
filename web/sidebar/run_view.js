/**
 * One run: its state and controls, what it is paused at, its values, its time, its iterations, and how it ended.
 */

import { openWorkflow, showNode, tell } from "./editor_graph.js"
import { button, icon, keyed, make, setAttribute, setShown, setText } from "./dom.js"
import { clock, duration, fullMoment, number, place } from "./formats.js"
import { IterationList } from "./iteration_list.js"
import { AskingButton, ProgressBar, Section, StateMark } from "./parts.js"
import { PauseView } from "./pause_view.js"
import { sourceWord } from "./run_list.js"
import { outerCount, pace } from "./run_model.js"
import { Timing } from "./timing.js"
import { ValueRows } from "./value_rows.js"

// Which buttons apply in which state.
const CONTROLS = {
  running: ["pause", "stop"],
  pausing: ["continue", "stop"],
  paused: ["continue", "step", "stop"],
}

export class RunView {
  #watch
  #routes
  #id
  #name = make("h2", { class: "dc-run-name" })
  #mark = new StateMark()
  #bar = new ProgressBar("Iterations done")
  #count = make("span")
  #elapsed = make("span", { title: "Time since the start" })
  #left = make("span", { class: "dc-dim" })
  #node = make("div", { class: "dc-node dc-dim" })
  #nodeText = make("span", { class: "dc-line-text" })
  #nodeBar = new ProgressBar("Progress of the node")
  #controls
  #problem = make("p", { class: "dc-problem", role: "alert" })
  #loading = make("p", { class: "dc-dim dc-pad", text: "Reading the run…" })
  #pause
  #failure
  #links
  #values
  #iterations
  #timing = new Timing()
  #valueSection
  #timeSection
  #iterationSection
  #aboutSection
  #about = make("dl", { class: "dc-figures" })
  #aboutDrawn = ""

  /** @param {(promise: Promise) => void} settings changes what holds for all runs */
  constructor(watch, routes, settings) {
    this.#watch = watch
    this.#routes = routes
    this.#id = watch.chosen
    const id = this.#id
    const actions = {
      isLive: () => watch.isLive(id),
      breakpoints: () => watch.breakpoints,
      toggleBreakpoint: (name) => {
        const rest = watch.breakpoints.filter((one) => one !== name)
        settings({ breakpoints: rest.length < watch.breakpoints.length ? rest : [...rest, name] })
      },
      thumbnailUrl: (name) => routes.thumbnailUrl(id, name),
      picture: (name, item, version) => routes.picture(id, name, item, version),
      pictureUrl: (name, item, version) => routes.pictureUrl(id, name, item, version),
      value: (name) => routes.value(id, name),
      set: (name, json) => routes.set(id, name, json),
    }
    this.#controls = new Controls((command) => this.#try(routes.command(id, { command })))
    this.#pause = new PauseView(actions)
    this.#failure = new FailureView(
      (error) => this.#try(this.#showFailedNode(error)),
      () => this.#showRunner(),
    )
    this.#links = new Links({
      report: routes.reportUrl(id),
      stitched: () => this.#try(this.#openStitched()),
      remove: () => this.#try(this.#remove()),
      runner: () => this.#showRunner(),
    })
    this.#values = new ValueRows(actions)
    this.#iterations = new IterationList(actions)
    const again = () => this.update()
    this.#valueSection = new Section("Values", true, again)
    this.#valueSection.body.append(this.#values.element)
    this.#timeSection = new Section("Time and memory", true, again)
    this.#timeSection.body.append(this.#timing.element)
    this.#iterationSection = new Section("Iterations", true, again)
    this.#iterationSection.body.append(this.#iterations.element)
    this.#aboutSection = new Section("About this run", false, again)
    this.#aboutSection.body.append(this.#about, this.#links.workflows)
    const back = button(
      {
        class: "dc-back",
        "aria-label": "Back to all runs",
        title: "All runs",
        on: { click: () => watch.choose(null) },
      },
      "arrow-left",
    )
    this.element = make(
      "article",
      { class: "dc-run", "data-run": id },
      make(
        "header",
        { class: "dc-run-head" },
        make("div", { class: "dc-run-title" }, back, this.#name, this.#mark.element),
        this.#bar.element,
        make("div", { class: "dc-stats" }, this.#count, this.#elapsed, this.#left),
        (this.#node.append(this.#nodeText, this.#nodeBar.element), this.#node),
        this.#controls.element,
        this.#problem,
      ),
      this.#pause.element,
      this.#failure.element,
      this.#links.element,
      this.#loading,
      this.#valueSection.element,
      this.#timeSection.element,
      this.#iterationSection.element,
      this.#aboutSection.element,
    )
  }

  update() {
    const { run } = this.#watch
    const status = this.#watch.status(this.#id)
    const state = this.#watch.state(this.#id)
    const entry = this.#watch.entry(this.#id)
    const isLive = this.#watch.isLive(this.#id)
    setText(this.#name, run.head?.name ?? entry?.name ?? "")
    setAttribute(this.#name, "title", this.#name.textContent)
    this.#mark.update(state)
    setAttribute(this.#bar.element, "data-look", this.#mark.element.dataset.look)
    this.#drawProgress(run, status, entry, isLive)
    this.#controls.update(CONTROLS[isLive ? state : "ended"] ?? [])
    this.#pause.update(state === "paused" ? (run.paused ?? status?.paused_at ?? null) : null)
    this.#failure.update(state, run)
    this.#links.update(run, entry, isLive)
    setShown(this.#loading, run.head === null)
    this.#drawSections(run, entry)
  }

  /** The focus goes to the way back: for a run that was chosen by the keyboard. */
  focus() {
    this.element.querySelector(".dc-back").focus()
  }

  close() {
    this.#values.close()
  }

  #drawProgress(run, status, entry, isLive) {
    const total = status?.iterations || run.head?.iterations || entry?.iterations || 0
    const begun = Math.max(outerCount(run), isLive && status ? Math.min(status.iteration + 1, total || Infinity) : 0)
    const done = run.end ? (run.end.iterations ?? begun) : Math.max(0, begun - 1)
    setShown(this.#bar.element, total > 1)
    this.#bar.update(total ? done / total : null)
    const counts = `${run.end ? done : begun} of ${total} iterations`
    setText(this.#count, total > 1 ? counts : begun > 1 ? `iteration ${begun - 1}` : "")
    const started = run.head?.started ?? run.head?.t ?? entry?.started
    const until = run.end ? run.end.t : isLive ? Date.now() / 1000 : run.lastTime
    setText(
      this.#elapsed,
      started ? (run.end?.seconds !== undefined ? duration(run.end.seconds) : clock(until - started)) : "",
    )
    const { perIteration, left } = pace(run, isLive ? total : 0)
    const rate = perIteration === null ? "" : `${duration(perIteration)} each`
    setText(this.#left, [rate, left === null ? "" : `about ${clock(left)} left`].filter(Boolean).join(", "))
    const node = isLive ? status?.node : null
    setShown(this.#node, Boolean(node))
    if (node) {
      setText(this.#nodeText, node.title || node.class_type)
      setShown(this.#nodeBar.element, typeof status.percent === "number")
      this.#nodeBar.update(typeof status.percent === "number" ? status.percent / 100 : null)
    }
  }

  #drawSections(run, entry) {
    setShown(this.#valueSection.element, run.values.size > 0)
    setShown(this.#timeSection.element, run.steps.length > 0)
    setShown(this.#iterationSection.element, run.iterations.length > 0)
    setShown(this.#aboutSection.element, run.head !== null)
    this.#valueSection.count(String(run.values.size))
    this.#iterationSection.count(run.iterations.length.toLocaleString("en"))
    if (this.#valueSection.isOpen) this.#values.update(run)
    if (this.#timeSection.isOpen) this.#timing.update(run)
    if (this.#iterationSection.isOpen) this.#iterations.update(run)
    if (this.#aboutSection.isOpen) this.#drawAbout(run, entry)
  }

  #drawAbout({ head, end }, entry) {
    if (head === null) return
    const facts = [
      ["started", `${fullMoment(head.t)}, ${sourceWord(head)}`],
      ["process", head.pid ? String(head.pid) : ""],
      ["server", head.server],
      ["workflows", (head.workflows ?? []).map((one) => `${one.name} (${one.nodes} nodes)`).join(", ")],
      ["condition", head.condition],
      ["collects", (head.collect ?? []).join(", ")],
      ["master seed", head.master_seed === null || head.master_seed === undefined ? "" : number(head.master_seed)],
      ["checkpoint", head.checkpoint || entry?.checkpoint],
      ["ended", end ? fullMoment(end.t) : ""],
      ["run", this.#id],
    ].filter(([, text]) => text)
    const drawn = JSON.stringify(facts)
    if (drawn === this.#aboutDrawn) return
    this.#aboutDrawn = drawn
    this.#about.replaceChildren(...facts.flatMap(([term, text]) => [make("dt", { text: term }), make("dd", { text })]))
    this.#links.drawWorkflows(head.workflows ?? [], (workflow) => this.#try(this.#openInner(workflow)))
  }

  async #try(promise) {
    setText(this.#problem, "")
    try {
      await promise
    } catch (error) {
      setText(this.#problem, error.message)
    }
  }

  async #openInner(workflow, isWhole = true) {
    await openWorkflow(await this.#routes.workflow(this.#id, workflow.file), workflow.name, isWhole)
  }

  async #showFailedNode(error) {
    const workflows = this.#watch.run.head?.workflows ?? []
    const workflow = workflows.find((one) => one.name === error.workflow && one.file !== null && one.file !== undefined)
    if (!workflow)
      throw new Error(`“${error.workflow}” was given in the format of the API: there is no workflow to show.`)
    await this.#openInner(workflow, false)
    if (!showNode(error.node_id))
      throw new Error(`“${workflow.name}” has no node ${error.node_id}: it was made while the run went on.`)
  }

  #showRunner() {
    const node = this.#watch.run.head?.outer_node
    if (node && showNode(node.id)) return
    setText(
      this.#problem,
      `The node “${node?.title ?? "?"}” is not in the workflow that is open. Open the one that has been run.`,
    )
  }

  async #openStitched() {
    const { workflow, notes } = await this.#routes.stitched(this.#id)
    await openWorkflow(workflow, `${this.#watch.run.head?.name ?? "run"} stitched`)
    if (notes?.length) tell("info", "Stitched into one workflow", notes.join("\n"))
  }

  async #remove() {
    await this.#routes.remove(this.#id)
    this.#watch.choose(null)
    this.#watch.askState()
  }
}

/** Pause, Continue, Step, Stop: those that apply. */
class Controls {
  #buttons

  constructor(command) {
    const plain = (name, iconName, word, look = "") =>
      button(
        { class: `dc-button ${look}`, "data-command": name, title: TITLES[name], on: { click: () => command(name) } },
        iconName,
        word,
      )
    const stop = new AskingButton({
      label: "Stop",
      iconName: "stop",
      question: "Stop the run?",
      yes: "Stop it",
      action: () => command("stop"),
    })
    this.#buttons = new Map([
      ["continue", plain("continue", "play", "Continue", "dc-primary")],
      ["pause", plain("pause", "pause", "Pause")],
      ["step", plain("step", "step-forward", "Step")],
      ["stop", stop.element],
    ])
    this.element = make(
      "div",
      { class: "dc-controls", role: "toolbar", "aria-label": "Controls of the run" },
      ...this.#buttons.values(),
    )
  }

  update(applying) {
    const focused = document.activeElement
    const hadFocus = this.element.contains(focused)
    for (const [name, element] of this.#buttons) setShown(element, applying.includes(name))
    setShown(this.element, applying.length > 0)
    // The button that was pressed is gone: the keyboard goes on with the one that took its place.
    if (hadFocus && !focused.checkVisibility()) this.element.querySelector(".dc-controls > :not([hidden])")?.focus()
  }
}

const TITLES = {
  continue: "Let the run go on",
  pause: "Hold the run before its next step",
  step: "Let one workflow run, then hold again",
}

/** What ended a run, and the way to the node. */
class FailureView {
  #title = make("strong")
  #message = make("p", { class: "dc-failure-message" })
  #where = make("p", { class: "dc-dim" })
  #trace
  #traceText = make("pre", { class: "dc-text", tabindex: "0" })
  #node
  #runner

  constructor(showNodeOf, showRunner) {
    this.#trace = make("details", {}, make("summary", { text: "Traceback" }), this.#traceText)
    this.#node = button({ class: "dc-button", on: { click: () => showNodeOf(this.error) } }, "map-marker", "Show node")
    this.#runner = button({ class: "dc-button", on: { click: showRunner } }, "sitemap", "Show runner node")
    this.element = make(
      "section",
      { class: "dc-failure", role: "alert" },
      make("div", { class: "dc-failure-head" }, icon("exclamation-circle"), this.#title),
      this.#message,
      this.#where,
      make("div", { class: "dc-row" }, this.#node, this.#runner),
      this.#trace,
    )
  }

  update(state, run) {
    this.error = run.end?.error ?? null
    const isKilled = state === "killed"
    setShown(this.element, isKilled || (this.error !== null && state !== "stopped"))
    if (this.element.hidden) return
    const { error } = this
    setText(this.#title, isKilled ? "The process of this run is gone" : error.type || "Failed")
    const lost =
      "It ended without a word: it was killed, or the machine was. " +
      "With a checkpoint folder the same call goes on behind its last step."
    // A node's error has the server's traceback behind its own words.
    const [message, ...behind] = isKilled ? [lost] : error.message.split(/\n\s*(?=Traceback )/)
    setText(this.#message, message)
    const node = error?.node_id ? `${error.title || error.class_type || "node"} (${error.node_id})` : ""
    const at = error?.path?.length ? `iteration ${place(error.path)}` : ""
    setText(this.#where, [node, error?.workflow, at].filter(Boolean).join(" · "))
    setShown(this.#node, Boolean(error?.node_id && error.workflow))
    setShown(this.#runner, Boolean(error && run.head?.outer_node))
    const lines = Array.isArray(error?.traceback) ? error.traceback.join("") : error?.traceback
    const trace = lines || behind.join("\n")
    setShown(this.#trace, Boolean(trace))
    setText(this.#traceText, trace)
  }
}

/** Where else there is something of this run. */
class Links {
  #report
  #stitched
  #runner
  #remove
  #made = new Map()
  workflows = make("ul", { class: "dc-chips", "aria-label": "Its workflows" })

  constructor({ report, stitched, remove, runner }) {
    this.#report = make(
      "a",
      { class: "dc-link", href: report, target: "_blank", rel: "noopener" },
      icon("file"),
      make("span", { text: "Report" }),
    )
    this.#stitched = button({ class: "dc-link", on: { click: stitched } }, "sitemap", "Open stitched workflow")
    this.#runner = button({ class: "dc-link", on: { click: runner } }, "map-marker", "Runner node")
    this.#remove = new AskingButton({
      label: "Forget",
      iconName: "trash",
      question: "Forget this run?",
      yes: "Forget it",
      action: remove,
      look: "dc-as-link",
    })
    this.element = make(
      "nav",
      { class: "dc-links", "aria-label": "More of this run" },
      this.#stitched,
      this.#report,
      this.#runner,
      this.#remove.element,
    )
  }

  update(run, entry, isLive) {
    setShown(this.#report, Boolean(entry?.has_report))
    setShown(
      this.#stitched,
      (run.head?.workflows ?? []).some((one) => one.file !== null && one.file !== undefined),
    )
    setShown(this.#runner, Boolean(run.head?.outer_node))
    setText(this.#runner.lastElementChild, `Node “${run.head?.outer_node?.title ?? ""}”`)
    setShown(this.#remove.element, !isLive && run.head !== null)
  }

  drawWorkflows(workflows, open) {
    const shown = workflows.filter((one) => one.file !== null && one.file !== undefined)
    keyed(
      this.workflows,
      shown,
      (one) => String(one.file),
      (one) => ({
        element: make(
          "li",
          {},
          button({ class: "dc-link", on: { click: () => open(one) } }, "external-link", `Open ${one.name}`),
        ),
      }),
      this.#made,
    )
  }
}
