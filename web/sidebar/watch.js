/**
 * What the tab knows: the list of runs, the settings, and the run that was chosen. Asks the server for what is new when
 * the server says that there is something, and only while the tab is open.
 */

import { addEvents, newRun, stateOf } from "./run_model.js"

// Times, and milliseconds between them: a process that is killed may keep its lock for a moment after its connection.
const CHECKS = 5
const CHECK_AFTER = 1000

const CHOSEN = "discomfort.sidebar.run"

export class Watch {
  /** Listeners: onChange() of anything that is shown; onLive() of how many runs live, and what they do. */
  onChange = () => {}
  onLive = () => {}

  isOpen = false
  // null until the server has answered.
  runs = null
  breakpoints = []
  pausesAtStart = false
  server = null
  // A sentence, while the server cannot be asked.
  problem = ""
  chosen = null
  run = null
  // False until all events so far are there.
  isComplete = false

  #routes
  #statuses = new Map()
  // What was heard by itself is newer than an answer that was asked for before: counted, by run.
  #heard = 0
  #heardAt = new Map()
  #offset = 0
  #isAskingState = false
  // How often more to ask whether a run that has let go of the server lives.
  #checksLeft = 0
  #wantsState = false
  #isAskingEvents = false
  #wantsEvents = false

  constructor(routes) {
    this.#routes = routes
  }

  /** The tab is there: ask for everything. */
  open() {
    this.isOpen = true
    if (this.chosen === null && sessionStorage.getItem(CHOSEN)) this.choose(sessionStorage.getItem(CHOSEN))
    this.askState()
    this.#askEvents()
  }

  close() {
    this.isOpen = false
  }

  /** Show this run; null shows the list. */
  choose(runId) {
    if (runId === this.chosen) return
    this.chosen = runId
    this.run = runId === null ? null : newRun()
    this.isComplete = false
    this.#offset = 0
    if (runId === null) sessionStorage.removeItem(CHOSEN)
    else sessionStorage.setItem(CHOSEN, runId)
    this.onChange()
    this.#askEvents()
  }

  entry(runId = this.chosen) {
    return this.runs?.find((one) => one.run_id === runId) ?? null
  }

  status(runId = this.chosen) {
    return this.#statuses.get(runId) ?? null
  }

  isLive(runId = this.chosen) {
    const status = this.status(runId)
    return status ? status.state !== "ended" : Boolean(this.entry(runId)?.live)
  }

  state(runId = this.chosen) {
    const end = (runId === this.chosen && this.run?.end) || this.entry(runId)?.end
    return stateOf(this.isLive(runId), this.status(runId), end)
  }

  /** "discomfort.run": a run tells where it is. */
  hearRun(status) {
    this.#heardAt.set(status.run_id, ++this.#heard)
    this.#note(status.run_id, status.state === "ended" ? null : status)
    this.#tellLive()
    if (!this.isOpen) return
    if (this.entry(status.run_id) === null || status.state === "ended") this.askState()
    if (status.run_id === this.chosen && status.offset > this.#offset) this.#askEvents()
    this.onChange()
  }

  /** "discomfort.runs": one more, or one less. A run that was killed is told by this alone. */
  hearRuns() {
    this.#checksLeft = CHECKS
    if (this.isOpen || this.#statuses.size) this.askState()
    if (this.isOpen) this.#askEvents()
  }

  /** "discomfort.settings" */
  hearSettings({ breakpoints, pause_at_start }) {
    this.breakpoints = breakpoints
    this.pausesAtStart = pause_at_start
    this.onChange()
  }

  /** The connection was lost and is there again: what was said meanwhile is unknown. */
  hearReconnected() {
    if (!this.isOpen) return
    this.askState()
    this.#askEvents()
  }

  /** GET /state; one at a time, and once more where something happened meanwhile. */
  async askState() {
    this.#wantsState = true
    if (this.#isAskingState) return
    this.#isAskingState = true
    try {
      while (this.#wantsState) {
        this.#wantsState = false
        const asked = this.#heard
        this.#takeState(await this.#routes.state(), asked)
        this.problem = ""
      }
    } catch (error) {
      this.problem = `The list of runs cannot be read: ${error.message}`
    } finally {
      this.#isAskingState = false
    }
    if (this.#checksLeft > 0 && this.runs?.some((one) => one.live && !this.status(one.run_id))) {
      this.#checksLeft -= 1
      setTimeout(() => this.isOpen && this.askState(), CHECK_AFTER)
    }
    this.onChange()
  }

  #takeState({ runs, breakpoints, pause_at_start, server }, asked) {
    this.runs = runs
    this.breakpoints = breakpoints
    this.pausesAtStart = pause_at_start
    this.server = server
    const said = new Map(runs.filter((one) => one.live && one.status).map((one) => [one.run_id, one.status]))
    for (const runId of new Set([...said.keys(), ...this.#statuses.keys()])) {
      if (!this.#isNewer(runId, asked)) this.#note(runId, said.get(runId) ?? null)
    }
    this.#tellLive()
  }

  /** GET /events, until there are no more. */
  async #askEvents() {
    this.#wantsEvents = true
    if (this.#isAskingEvents || !this.isOpen || this.chosen === null) return
    this.#isAskingEvents = true
    try {
      while (this.#wantsEvents && this.isOpen && this.chosen !== null) {
        this.#wantsEvents = false
        await this.#takeEvents(this.chosen)
      }
    } catch (error) {
      this.problem = `The run cannot be read: ${error.message}`
      if (error.status === 404) this.choose(null)
    } finally {
      this.#isAskingEvents = false
    }
    this.onChange()
  }

  async #takeEvents(runId) {
    const asked = this.#heard
    const { events, offset, live, status } = await this.#routes.events(runId, this.#offset)
    // Another run was chosen meanwhile.
    if (runId !== this.chosen) {
      this.#wantsEvents = true
      return
    }
    addEvents(this.run, events)
    this.problem = ""
    if (!this.#isNewer(runId, asked)) this.#note(runId, live ? status : null)
    this.isComplete = offset === this.#offset || offset >= (status?.offset ?? Infinity)
    if (!this.isComplete) this.#wantsEvents = true
    this.#offset = offset
    this.onChange()
  }

  #isNewer(runId, asked) {
    return (this.#heardAt.get(runId) ?? 0) > asked
  }

  #note(runId, status) {
    if (status) this.#statuses.set(runId, status)
    else this.#statuses.delete(runId)
  }

  #tellLive() {
    const states = [...this.#statuses.values()].map((status) => status.state)
    this.onLive({ count: states.length, paused: states.filter((state) => state === "paused").length })
  }
}
