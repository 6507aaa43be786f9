/**
 * Where a run is paused, and the values that can be changed before it goes on.
 */

import { button, icon, keyed, make, setAttribute, setShown, setText } from "./dom.js"
import { place } from "./formats.js"

const REASONS = {
  pause: () => "Paused",
  step: () => "One step done",
  breakpoint: (event) => `Breakpoint “${event.port}”`,
  start: () => "Paused at its start",
}

export function pauseWords(event) {
  const reason = (REASONS[event.reason] ?? REASONS.pause)(event)
  const at = event.path?.length ? `in iteration ${place(event.path)}, ` : ""
  return { reason, where: `${at}before ${event.before}` }
}

/** As Python counts them. */
function characters(text) {
  return [...text].length
}

/** One value: a box to type in, Save, and what was wrong with it. */
class ValueEditor {
  #input
  #save
  #problem = make("p", { class: "dc-problem", role: "alert" })
  #saved
  #name
  #actions
  #sketch
  #isChanged = false
  #isWhole = true

  constructor(name, sketch, actions) {
    this.#name = name
    this.#actions = actions
    const id = `discomfort-edit-${name}`
    this.#input = this.#makeInput(sketch, id)
    this.#input.addEventListener("input", () => this.#note(true))
    this.#save = button(
      { class: "dc-button dc-save", "aria-label": `Save ${name}`, on: { click: () => this.save() } },
      null,
      "Save",
    )
    this.#saved = make("span", { class: "dc-saved", role: "status" })
    const label = make(
      "label",
      { for: id },
      make("span", { class: "dc-port-name", text: name }),
      make("span", { class: "dc-dim", text: ` ${sketch.kind}` }),
    )
    this.element = make(
      "li",
      { class: `dc-edit dc-edit-${sketch.kind}`, "data-value": name },
      make("div", { class: "dc-edit-head" }, label, this.#saved, this.#save),
      this.#input,
      this.#problem,
    )
    this.update(sketch)
    this.#note(false)
  }

  #makeInput(sketch, id) {
    if (sketch.kind === "boolean") return make("input", { type: "checkbox", id })
    if (sketch.kind === "number") {
      const input = make("input", { type: "text", inputmode: "decimal", id, spellcheck: "false", autocomplete: "off" })
      input.addEventListener("keydown", (event) => event.key === "Enter" && this.save())
      return input
    }
    const input = make("textarea", {
      id,
      rows: Math.min(6, Math.max(2, Math.ceil((sketch.length ?? 0) / 44))),
      spellcheck: "false",
    })
    input.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.save()
    })
    return input
  }

  /** The value as the run has it; what is being typed stays. */
  update(sketch) {
    if (this.#isChanged || sketch === this.#sketch) return
    this.#sketch = sketch
    if (sketch.kind === "boolean") this.#input.checked = Boolean(sketch.value)
    else if (sketch.kind === "number") this.#input.value = String(sketch.value)
    else if ((sketch.length ?? 0) > characters(sketch.text ?? "")) this.#load(sketch)
    else this.#input.value = sketch.text ?? ""
  }

  /** A long text: the events have its beginning only. */
  async #load(sketch) {
    this.#isWhole = false
    this.#input.value = sketch.text
    this.#input.readOnly = true
    try {
      const { text, editable } = await this.#actions.value(this.#name)
      if (sketch !== this.#sketch) return
      if (!editable) throw new Error("it is too long.")
      this.#input.value = text
      this.#input.readOnly = false
      this.#isWhole = true
    } catch (error) {
      setText(this.#problem, `The whole text cannot be read, so it cannot be changed here: ${error.message}`)
    }
  }

  #note(isChanged) {
    this.#isChanged = isChanged
    setShown(this.#save, isChanged)
    if (isChanged) setText(this.#saved, "")
  }

  /** JSON of what is in the box; throws a sentence. */
  #json() {
    if (this.#sketch.kind === "boolean") return JSON.stringify(this.#input.checked)
    if (this.#sketch.kind === "text") return JSON.stringify(this.#input.value)
    const typed = this.#input.value.trim()
    if (/^-?(0|[1-9]\d*)$/.test(typed)) return typed
    if (typed !== "" && Number.isFinite(Number(typed))) return JSON.stringify(Number(typed))
    throw new Error(`“${typed}” is no number.`)
  }

  async save() {
    if (!this.#isChanged || !this.#isWhole) return
    setText(this.#problem, "")
    setAttribute(this.#input, "aria-invalid", null)
    try {
      await this.#actions.set(this.#name, this.#json())
      const hadFocus = this.element.ownerDocument.activeElement === this.#save
      this.#note(false)
      setText(this.#saved, "saved")
      if (hadFocus) this.#input.focus()
    } catch (error) {
      setText(this.#problem, error.message)
      setAttribute(this.#input, "aria-invalid", "true")
    }
  }
}

export class PauseView {
  #reason = make("strong")
  #where = make("span", { class: "dc-dim" })
  #hint = make("p", { class: "dc-dim", text: "Change what the next step gets:" })
  #values = make("ul", { class: "dc-edits" })
  #made = new Map()
  #gate = null
  #actions

  constructor(actions) {
    this.#actions = actions
    this.element = make(
      "section",
      { class: "dc-paused", "aria-label": "Paused" },
      make(
        "div",
        { class: "dc-paused-head", role: "status" },
        icon("pause-circle"),
        make("div", {}, this.#reason, make("br"), this.#where),
      ),
      this.#hint,
      this.#values,
    )
  }

  /** @param {object|null} paused the event "paused", with the values as they are now */
  update(paused) {
    setShown(this.element, paused !== null)
    // Another pause: the boxes begin anew, also those in which something was typed. The same one may be told twice, by
    // the run's status and by its events.
    const gate = paused === null ? null : `${paused.path}/${paused.before}`
    if (gate !== this.#gate) keyed(this.#values, [], String, null, this.#made)
    this.#gate = gate
    if (paused === null) return
    const { reason, where } = pauseWords(paused)
    setText(this.#reason, reason)
    setText(this.#where, where)
    const editable = Object.entries(paused.values ?? {}).filter(([, sketch]) =>
      ["text", "number", "boolean"].includes(sketch.kind),
    )
    setShown(this.#hint, editable.length > 0)
    keyed(
      this.#values,
      editable,
      ([name, sketch]) => `${name}/${sketch.kind}`,
      ([name, sketch]) => {
        const editor = new ValueEditor(name, sketch, this.#actions)
        return { element: editor.element, update: ([, now]) => editor.update(now) }
      },
      this.#made,
    )
  }
}
