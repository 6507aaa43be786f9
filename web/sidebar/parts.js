/**
 * Parts that several views have: a section that opens and closes, the sign of a state, a question that stays in place.
 */

import { button, icon, make, setAttribute, setShown, setText } from "./dom.js"

const STATES = {
  running: ["Running", "live"],
  pausing: ["Pausing…", "paused"],
  paused: ["Paused", "paused"],
  stopping: ["Stopping…", "stopped"],
  finished: ["Finished", "ok"],
  failed: ["Failed", "failed"],
  interrupted: ["Interrupted", "stopped"],
  stopped: ["Stopped", "stopped"],
  killed: ["Killed", "failed"],
}

/** The word for a state, and its colour beside it. */
export class StateMark {
  #word = make("span")

  constructor() {
    this.element = make(
      "span",
      { class: "dc-state" },
      make("span", { class: "dc-state-dot", "aria-hidden": "true" }),
      this.#word,
    )
  }

  update(state) {
    const [word, look] = STATES[state] ?? [state, "stopped"]
    setText(this.#word, word)
    setAttribute(this.element, "data-look", look)
    setAttribute(this.element, "data-state", state)
  }
}

/** A bar that fills; null of the part: it is not known. */
export class ProgressBar {
  #filled = make("div")

  constructor(label) {
    this.element = make(
      "div",
      { class: "dc-bar", role: "progressbar", "aria-label": label, "aria-valuemin": 0, "aria-valuemax": 100 },
      this.#filled,
    )
  }

  update(part) {
    const percent = part === null ? null : Math.round(1000 * Math.min(1, Math.max(0, part))) / 10
    setAttribute(this.element, "aria-valuenow", percent)
    this.#filled.style.width = `${percent ?? 0}%`
  }
}

/** A part of the page with a title that opens and closes it. */
export class Section {
  #count = make("span", { class: "dc-count" })
  #toggle

  /** @param {() => void} onToggle it was opened or closed */
  constructor(title, isOpen = true, onToggle = () => {}) {
    this.body = make("div", { class: "dc-section-body" })
    this.#toggle = make(
      "button",
      { type: "button", class: "dc-section-title", "aria-expanded": String(isOpen) },
      icon("chevron-right"),
      make("span", { text: title }),
      this.#count,
    )
    this.#toggle.addEventListener("click", () => {
      this.isOpen = !this.isOpen
      setAttribute(this.#toggle, "aria-expanded", String(this.isOpen))
      setShown(this.body, this.isOpen)
      onToggle()
    })
    this.isOpen = isOpen
    this.element = make("section", { class: "dc-section", "aria-label": title }, this.#toggle, this.body)
    setShown(this.body, isOpen)
  }

  count(text) {
    setText(this.#count, text)
  }
}

/** A button that asks once more, in its own place, before it does what cannot be undone. */
export class AskingButton {
  #first
  #question
  #yes

  /** @param {() => void} action */
  constructor({ label, iconName, question, yes, action, look = "" }) {
    this.#first = button({ class: `dc-button ${look}`, on: { click: () => this.#ask(true) } }, iconName, label)
    this.#yes = button(
      {
        class: "dc-button dc-danger",
        on: {
          click: () => {
            this.#ask(false)
            action()
          },
        },
      },
      null,
      yes,
    )
    const no = button(
      {
        class: "dc-button",
        on: {
          click: () => {
            this.#ask(false)
            this.#first.focus()
          },
        },
      },
      null,
      "No",
    )
    this.#question = make(
      "span",
      { class: "dc-question", role: "group", "aria-label": question },
      make("span", { text: question }),
      this.#yes,
      no,
    )
    this.#question.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return
      event.stopPropagation()
      this.#ask(false)
      this.#first.focus()
    })
    this.element = make("span", { class: "dc-asking" }, this.#first, this.#question)
    this.#ask(false)
  }

  #ask(isAsking) {
    setShown(this.#first, !isAsking)
    setShown(this.#question, isAsking)
    if (isAsking) this.#yes.focus()
  }
}
