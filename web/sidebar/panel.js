/**
 * The content of the tab: the list of runs, or one of them. Draws at most five times a second, and only what changed.
 */

import { make, setAttribute, setShown, setText } from "./dom.js"
import { RunList } from "./run_list.js"
import { RunView } from "./run_view.js"

// Milliseconds between two drawings.
const PAUSE = 200
const SECOND = 1000

export class Panel {
  #watch
  #routes
  #list
  #view = null
  #problem = make("p", { class: "dc-problem dc-pad", role: "alert" })
  #place = make("div", { class: "dc-place" })
  #drawnAt = 0
  #timer = null
  #frame = null
  #tick = null
  #palette = new MutationObserver(() => this.#adoptTheme())

  constructor(watch, routes) {
    this.#watch = watch
    this.#routes = routes
    this.#list = new RunList(watch, (changes) => this.#change(changes))
    this.element = make("div", { class: "discomfort-sidebar" }, this.#problem, this.#place)
    this.element.addEventListener("keydown", keepKeys)
    watch.onChange = () => this.#soon()
    for (const one of [document.documentElement, document.body]) {
      this.#palette.observe(one, { attributes: true, attributeFilter: ["class", "style"] })
    }
    // Its colours are known once it is on the page.
    requestAnimationFrame(() => this.#adoptTheme())
    // Times that count up; nothing is asked for.
    this.#tick = setInterval(() => watch.runs?.some((one) => watch.isLive(one.run_id)) && this.#soon(), SECOND)
    this.#draw()
  }

  close() {
    this.#watch.onChange = () => {}
    this.#palette.disconnect()
    clearInterval(this.#tick)
    clearTimeout(this.#timer)
    cancelAnimationFrame(this.#frame)
    this.#view?.close()
  }

  #soon() {
    if (this.#timer !== null || this.#frame !== null) return
    const wait = Math.max(0, PAUSE - (performance.now() - this.#drawnAt))
    this.#timer = setTimeout(() => {
      this.#timer = null
      this.#frame = requestAnimationFrame(() => {
        this.#frame = null
        this.#draw()
      })
    }, wait)
  }

  /** Whether the editor's palette is a dark one: told by its colour, which every version has. */
  #adoptTheme() {
    const [red, green, blue] = getComputedStyle(this.element)
      .backgroundColor.match(/[\d.]+/g)
      ?.map(Number) ?? [0, 0, 0]
    setAttribute(this.element, "data-theme", 0.3 * red + 0.6 * green + 0.1 * blue < 128 ? "dark" : "light")
  }

  #draw() {
    this.#drawnAt = performance.now()
    const { chosen, problem } = this.#watch
    setText(this.#problem, problem)
    setShown(this.#problem, Boolean(problem))
    const before = this.#view?.element.dataset.run ?? null
    if (before !== chosen || !this.#place.firstElementChild) this.#show(chosen, before)
    if (this.#view) this.#view.update()
    else this.#list.update()
  }

  /** From the list to a run, or back. The keyboard's place goes along. */
  #show(chosen, before) {
    const hadFocus = this.#place.contains(document.activeElement)
    this.#view?.close()
    this.#view = chosen === null ? null : new RunView(this.#watch, this.#routes, (changes) => this.#change(changes))
    this.#place.replaceChildren((this.#view ?? this.#list).element)
    this.element.scrollTop = 0
    if (!hadFocus) return
    if (this.#view) this.#view.focus()
    else this.#list.element.querySelector(`[data-run="${CSS.escape(before ?? "")}"]`)?.focus()
  }

  /** Change what holds for all runs; null ends the server of the runner nodes. */
  async #change(changes) {
    try {
      if (changes === null) {
        await this.#routes.stopServer()
        await this.#watch.askState()
      } else {
        this.#watch.hearSettings(await this.#routes.settings(changes))
      }
    } catch (error) {
      this.#watch.problem = error.message
      this.#soon()
    }
  }
}

/** What is typed here is not for the canvas: no key deletes its nodes, or queues its workflow. */
function keepKeys(event) {
  const isTyping = event.target.matches("input:not([type=checkbox]):not([type=range]), textarea")
  const isOurs = ["Enter", " ", "Delete", "Backspace", "Tab"].includes(event.key) || event.key.startsWith("Arrow")
  if (isTyping || isOurs) event.stopPropagation()
}
