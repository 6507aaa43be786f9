/**
 * The values of a run, one row each: the latest of it, its curve, a breakpoint; opened, all that is known of it.
 */

import { Curve, Spark } from "./curve.js"
import { button, icon, keyed, make, setAttribute, setShown, setText } from "./dom.js"
import { number, place } from "./formats.js"
import { curveOf, isMade, latest } from "./run_model.js"
import { figures, inShort, isPicture, itemList, pictureCount, thumbnail } from "./values.js"

// Pictures in the strip: what fits, the chosen one in the middle.
const STRIP = 7

const FROM = { input: "given", edit: "changed by hand" }

function entryWords(entry) {
  const at = entry.path.length
    ? `iteration ${place(entry.path)}`
    : entry.from === "input"
      ? "at the start"
      : "outside the loop"
  return FROM[entry.from] ? `${at}, ${FROM[entry.from]}` : at
}

/** Everything about a value, with a slider over the times that it was made. */
class ValueDetails {
  #stage = make("div", { class: "dc-stage" })
  #text = make("pre", { class: "dc-text", tabindex: "0" })
  #figures = make("dl", { class: "dc-figures" })
  #items = make("div")
  #curve = null
  #curvePlace = make("div")
  #strip = make("div", { class: "dc-strip", role: "group", "aria-label": "Pictures over the iterations" })
  #slider
  #caption = make("output", { class: "dc-caption" })
  #scrub
  #whole
  #previous
  #next
  #wholeBar
  #problem = make("p", { class: "dc-problem", role: "alert" })
  #made = new Map()
  #value = null
  #shown = -1
  #isFollowing = true
  #shownSketch = null
  #item = 0
  #pictureUrl = null
  #drawn = 0
  #actions

  constructor(name, actions) {
    this.name = name
    this.#actions = actions
    this.#slider = make("input", { type: "range", min: 0, step: 1, "aria-label": `${name} over the iterations` })
    this.#slider.addEventListener("input", () => this.#go(Number(this.#slider.value)))
    this.#scrub = make("div", { class: "dc-scrub" }, this.#slider, this.#caption)
    this.#whole = button(
      { class: "dc-button", on: { click: () => this.#showWhole(this.#item) } },
      "search-plus",
      "Full picture",
    )
    this.#previous = button(
      { class: "dc-button", "aria-label": "Picture before", on: { click: () => this.#showWhole(this.#item - 1) } },
      "chevron-left",
    )
    this.#next = button(
      { class: "dc-button", "aria-label": "Next picture", on: { click: () => this.#showWhole(this.#item + 1) } },
      "chevron-right",
    )
    this.#wholeBar = make("div", { class: "dc-row" }, this.#whole, this.#previous, this.#next)
    this.element = make(
      "div",
      { class: "dc-details" },
      this.#stage,
      this.#text,
      this.#strip,
      this.#scrub,
      this.#wholeBar,
      this.#problem,
      this.#curvePlace,
      this.#figures,
      this.#items,
    )
  }

  update(value) {
    this.#value = value
    const last = value.history.length - 1
    if (this.#isFollowing || this.#shown > last) this.#shown = last
    setAttribute(this.#slider, "max", Math.max(0, last))
    this.#slider.value = this.#shown
    setShown(this.#scrub, last > 0)
    this.#draw()
    this.#drawCurve()
  }

  /** The picture that was asked for is not kept any longer. */
  close() {
    if (this.#pictureUrl) URL.revokeObjectURL(this.#pictureUrl)
    this.#pictureUrl = null
  }

  #go(index) {
    this.#shown = Math.min(this.#value.history.length - 1, Math.max(0, index))
    this.#isFollowing = this.#shown === this.#value.history.length - 1
    this.#slider.value = this.#shown
    this.#draw()
  }

  #draw() {
    const entry = this.#value.history[this.#shown] ?? this.#value.pending
    if (!entry) return
    const { sketch } = entry
    setText(this.#caption, entryWords(entry))
    setAttribute(this.#slider, "aria-valuetext", entryWords(entry))
    this.#drawStrip()
    const isLatest = this.#shown === this.#value.history.length - 1
    setShown(this.#wholeBar, isPicture(sketch) && isLatest && this.#actions.isLive())
    if (sketch === this.#shownSketch) return
    this.#shownSketch = sketch
    this.close()
    this.#item = 0
    setText(this.#problem, "")
    this.#drawPicture(sketch, entry)
    const count = pictureCount(sketch)
    setShown(this.#previous, count > 1)
    setShown(this.#next, count > 1)
    setShown(this.#text, sketch.kind === "text")
    if (sketch.kind === "text") {
      const rest = (sketch.length ?? 0) - sketch.text.length
      setText(this.#text, rest > 0 ? `${sketch.text}…\n(${rest.toLocaleString("en")} more characters)` : sketch.text)
    }
    this.#figures.replaceChildren(
      ...figures(sketch).flatMap(([term, text]) => [make("dt", { text: term }), make("dd", { text })]),
    )
    this.#items.replaceChildren(...[itemList(sketch)].filter(Boolean))
  }

  #drawPicture(sketch, entry) {
    setShown(this.#stage, isPicture(sketch) && Boolean(sketch.thumbnail))
    if (!sketch.thumbnail) return
    const image = make("img", {
      src: this.#actions.thumbnailUrl(sketch.thumbnail),
      alt: `${this.name}, ${entryWords(entry)}`,
    })
    this.#stage.replaceChildren(image)
  }

  async #showWhole(item) {
    const sketch = this.#shownSketch
    const count = pictureCount(sketch)
    const wanted = (item + count) % count
    setText(this.#problem, "")
    try {
      const picture = await this.#actions.picture(this.name, wanted, sketch.digest ?? "")
      if (sketch !== this.#shownSketch) return
      this.close()
      this.#item = wanted
      this.#pictureUrl = URL.createObjectURL(picture)
      const link = make(
        "a",
        {
          href: this.#actions.pictureUrl(this.name, wanted, sketch.digest ?? ""),
          target: "_blank",
          rel: "noopener",
          title: "Open in a tab of its own",
        },
        make("img", { src: this.#pictureUrl, alt: `${this.name}, the full picture`, class: "dc-whole" }),
      )
      const caption = count > 1 ? make("span", { class: "dc-stage-count", text: `${wanted + 1} of ${count}` }) : null
      this.#stage.replaceChildren(...[link, caption].filter(Boolean))
      setShown(this.#stage, true)
    } catch (error) {
      setText(this.#problem, error.message)
    }
  }

  #drawStrip() {
    const { history } = this.#value
    const hasPictures = history.length > 1 && history.some((entry) => entry.sketch.thumbnail)
    setShown(this.#strip, hasPictures)
    if (!hasPictures) return
    const first = Math.max(0, Math.min(history.length - STRIP, this.#shown - Math.floor(STRIP / 2)))
    const shown = history.slice(first, first + STRIP).map((entry, at) => ({ entry, index: first + at }))
    keyed(
      this.#strip,
      shown,
      ({ entry, index }) => `${index}/${entry.sketch.thumbnail ?? ""}`,
      ({ entry, index }) => {
        const picture = thumbnail(entry.sketch, this.#actions.thumbnailUrl)
        const element = make(
          "button",
          { type: "button", "aria-label": entryWords(entry), title: entryWords(entry) },
          picture,
        )
        element.addEventListener("click", () => this.#go(index))
        return { element, update: (now) => setAttribute(element, "aria-pressed", String(now.index === this.#shown)) }
      },
      this.#made,
    )
  }

  #drawCurve() {
    if (this.#drawn === this.#value.history.length) return
    this.#drawn = this.#value.history.length
    const points = isPicture(this.#value.history.at(-1).sketch) ? [] : curveOf(this.#value)
    setShown(this.#curvePlace, points.length > 1)
    if (points.length < 2) return
    if (this.#curve === null) {
      const isNumber = this.#value.history.at(-1).sketch.mean === undefined
      this.#curve = new Curve(isNumber ? this.name : `mean of ${this.name}`, number)
      this.#curvePlace.append(this.#curve.element)
    }
    const values = points.map((point) => point.value)
    this.#curve.update([{ name: "", values }], (index) => place(points[index].path) || "start")
  }
}

class ValueRow {
  #dot
  #toggle
  #sign = make("span", { class: "dc-sign" })
  #name
  #type = make("span", { class: "dc-dim dc-type" })
  #short = make("span", { class: "dc-short" })
  #spark = new Spark()
  #details = null
  #value
  #seenSketch = null
  #seenCount = -1

  constructor(value, actions) {
    this.#value = value
    this.#dot = button({ class: "dc-breakpoint", on: { click: () => actions.toggleBreakpoint(value.name) } })
    this.#dot.append(make("span", { class: "dc-breakpoint-dot" }))
    this.#name = make("span", { class: "dc-port-name", text: value.name })
    this.#toggle = make(
      "button",
      { type: "button", class: "dc-value", "aria-expanded": "false", "data-port": value.name },
      this.#sign,
      make(
        "span",
        { class: "dc-value-words" },
        make("span", { class: "dc-value-name" }, this.#name, this.#type),
        this.#short,
      ),
      this.#spark.element,
    )
    this.#toggle.addEventListener("click", () => this.#open())
    this.actions = actions
    this.element = make(
      "li",
      { class: "dc-value-row" },
      make("div", { class: "dc-value-head" }, this.#dot, this.#toggle),
    )
  }

  #open() {
    const isOpen = this.#details === null
    setAttribute(this.#toggle, "aria-expanded", String(isOpen))
    if (isOpen) {
      this.#details = new ValueDetails(this.#value.name, this.actions)
      this.element.append(this.#details.element)
      this.#details.update(this.#value)
    } else {
      this.#details.close()
      this.#details.element.remove()
      this.#details = null
    }
  }

  update(value) {
    this.#value = value
    const isBreakpoint = this.actions.breakpoints().includes(value.name)
    setAttribute(this.#dot, "aria-pressed", String(isBreakpoint))
    setAttribute(this.#dot, "aria-label", `Breakpoint at ${value.name}`)
    setAttribute(
      this.#dot,
      "title",
      isBreakpoint ? `Do not pause at “${value.name}” any more` : `Pause every run at “${value.name}”`,
    )
    this.#details?.update(value)
    const sketch = latest(value)?.entry.sketch ?? null
    if (sketch === this.#seenSketch && value.history.length === this.#seenCount) return
    this.#seenSketch = sketch
    this.#seenCount = value.history.length
    setText(this.#type, [value.type || (sketch?.kind ?? ""), isMade(value) ? "" : "given"].filter(Boolean).join(", "))
    setText(this.#short, sketch ? inShort(sketch) : "not there yet")
    setAttribute(this.#short, "data-kind", sketch?.kind ?? "none")
    if (sketch) this.#sign.replaceChildren(thumbnail(sketch, this.actions.thumbnailUrl))
    else this.#sign.replaceChildren(make("span", { class: "dc-kind" }, icon("circle")))
    const points = sketch ? curveOf(value).map((point) => point.value) : []
    // A number that stays the same needs no line.
    const hasCurve = ["number", "tensor"].includes(sketch?.kind) && points.some((one) => one !== points[0])
    setAttribute(this.#spark.element, "hidden", hasCurve ? null : "")
    if (hasCurve) this.#spark.update(points)
  }

  close() {
    this.#details?.close()
  }
}

export class ValueRows {
  #made = new Map()
  #rows = []

  constructor(actions) {
    this.actions = actions
    this.element = make("ul", { class: "dc-values" })
  }

  update(run) {
    const values = [...run.values.values()]
    const sorted = [...values.filter(isMade), ...values.filter((value) => !isMade(value))]
    keyed(
      this.element,
      sorted,
      (value) => value.name,
      (value) => {
        const row = new ValueRow(value, this.actions)
        this.#rows.push(row)
        return row
      },
      this.#made,
    )
    return values.length
  }

  close() {
    for (const row of this.#rows) row.close()
  }
}
