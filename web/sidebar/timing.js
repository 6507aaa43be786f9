/**
 * Where a run's time and memory go: seconds per step, memory, cache, and the shares of the whole.
 */

import { Curve } from "./curve.js"
import { make, setShown, setText } from "./dom.js"
import { bytes, duration, ownMemory, percent, place, plural } from "./formats.js"

// Lines in one drawing; more could not be told apart.
const LINES = 4

export class Timing {
  #words = make("p", { class: "dc-dim" })
  #costs = make("div")
  #time = new Curve("Seconds per step", duration, true)
  #memory = new Curve("Memory", bytes, true)
  #cache = new Curve("Nodes from the cache", percent, true)
  #taken = 0
  // workflow -> {values, paths}; what takes memory -> bytes
  #times = new Map()
  #sizes = new Map()
  #memoryPaths = []
  #cached = []
  #cachedPaths = []
  #hasCosts = false

  constructor() {
    this.element = make(
      "div",
      { class: "dc-timing" },
      this.#words,
      this.#costs,
      this.#time.element,
      this.#memory.element,
      this.#cache.element,
    )
  }

  update(run) {
    if (this.#take(run)) this.#draw()
    setText(this.#words, this.#facts(run))
    if (run.end?.costs && !this.#hasCosts) {
      this.#hasCosts = true
      this.#costs.replaceChildren(costBar(run.end.costs))
    }
  }

  /** The steps that are new. */
  #take(run) {
    const isNew = this.#taken < run.steps.length
    for (; this.#taken < run.steps.length; this.#taken += 1) {
      const step = run.steps[this.#taken]
      if (!this.#times.has(step.workflow)) this.#times.set(step.workflow, { values: [], paths: [] })
      const times = this.#times.get(step.workflow)
      times.values.push(step.seconds ?? 0)
      times.paths.push(step.path)
      const sizes = Object.entries(ownMemory(step.memory))
      for (const [name, size] of sizes) {
        if (!this.#sizes.has(name)) this.#sizes.set(name, [])
        this.#sizes.get(name).push(size)
      }
      if (sizes.length) this.#memoryPaths.push(step.path)
      if (step.nodes) {
        this.#cached.push((step.cached ?? 0) / step.nodes)
        this.#cachedPaths.push(step.path)
      }
    }
    return isNew
  }

  #draw() {
    const times = [...this.#times.entries()].slice(0, LINES)
    const named = (name) => (times.length > 1 ? name.replace(/\.json$/, "") : "")
    const longest = times.reduce((best, [, one]) => (one.paths.length > best.length ? one.paths : best), [])
    drawOrHide(
      this.#time,
      times.map(([name, { values }]) => ({ name: named(name), values })),
      longest,
    )
    const sizes = [...this.#sizes.entries()].slice(0, LINES)
    drawOrHide(
      this.#memory,
      sizes.map(([name, values]) => ({ name, values })),
      this.#memoryPaths,
    )
    drawOrHide(this.#cache, this.#cached.some(Boolean) ? [{ name: "", values: this.#cached }] : [], this.#cachedPaths)
  }

  #facts(run) {
    const words = []
    if (run.allNodes) words.push(`${percent(run.cachedNodes / run.allNodes)} of all nodes from the cache`)
    if (run.retries) words.push(plural(run.retries, "step") + " tried again")
    if (run.recycles.length) words.push(`server renewed ${plural(run.recycles.length, "time")}`)
    if (run.failures.length) words.push(`${plural(run.failures.length, "iteration")} failed`)
    return words.join(" · ")
  }
}

function drawOrHide(curve, series, paths) {
  const isThere = series.length > 0 && series.some(({ values }) => values.length > 1)
  setShown(curve.element, isThere)
  if (isThere) curve.update(series, (index) => (paths[index] ? place(paths[index]) || "run" : String(index + 1)))
}

/** The shares of the whole time, as one bar with its words. */
function costBar(costs) {
  const parts = Object.entries(costs).filter(([, seconds]) => typeof seconds === "number" && seconds > 0)
  const whole = parts.reduce((sum, [, seconds]) => sum + seconds, 0)
  const bar = make("div", { class: "dc-costs", "aria-hidden": "true" })
  const words = make("ul", { class: "dc-cost-words" })
  parts
    .sort((a, b) => b[1] - a[1])
    .forEach(([name, seconds], at) => {
      const look = `dc-cost-${Math.min(at, 5)}`
      bar.append(make("span", { class: look, style: `flex-grow: ${(seconds / whole).toFixed(4)}` }))
      words.append(
        make(
          "li",
          {},
          make("span", { class: `dc-cost-dot ${look}`, "aria-hidden": "true" }),
          make("span", { text: `${name} ${duration(seconds)}, ${percent(seconds / whole)}` }),
        ),
      )
    })
  return make("div", {}, bar, words)
}
