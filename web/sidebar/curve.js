/**
 * Numbers as a curve: a small drawing with the figures of its axes, and what is under the pointer.
 */

import { make, setText } from "./dom.js"
import { number } from "./formats.js"

const SVG = "http://www.w3.org/2000/svg"
const COLUMNS = 240

function draw(tag, attributes) {
  const element = document.createElementNS(SVG, tag)
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value)
  return element
}

/**
 * As many points as can be seen: of each column its lowest and highest, in their order. A peak stays.
 * @param {number[]} values
 * @returns {Array<[number, number]>} (index, value)
 */
export function thin(values, columns = COLUMNS) {
  if (values.length <= 2 * columns) return values.map((value, index) => [index, value])
  const points = []
  for (let column = 0; column < columns; column += 1) {
    const begin = Math.floor((column * values.length) / columns)
    const end = Math.floor(((column + 1) * values.length) / columns)
    let [low, high] = [begin, begin]
    for (let at = begin; at < end; at += 1) {
      if (values[at] < values[low]) low = at
      if (values[at] > values[high]) high = at
    }
    for (const at of low === high ? [low] : [Math.min(low, high), Math.max(low, high)]) points.push([at, values[at]])
  }
  return points
}

/** The lowest and highest of many numbers; Math.min takes only so many arguments. */
export function bounds(values) {
  let [low, high] = [Infinity, -Infinity]
  for (const value of values) {
    if (value < low) low = value
    if (value > high) high = value
  }
  return [low, high]
}

function pathOf(values, low, high, width, height) {
  const spread = high - low || 1
  const across = Math.max(1, values.length - 1)
  return thin(values)
    .map(([index, value], at) => {
      const x = values.length === 1 ? width / 2 : (index / across) * width
      const y = high === low ? height / 2 : height - ((value - low) / spread) * height
      return `${at ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`
    })
    .join("")
}

/** A curve without any words, for a row. update(values) draws it anew. */
export class Spark {
  #path
  #dot
  #drawn = ""

  constructor(width = 64, height = 18) {
    this.width = width
    this.height = height
    this.element = draw("svg", {
      class: "dc-spark",
      viewBox: `-2 -2 ${width + 4} ${height + 4}`,
      width,
      height,
      "aria-hidden": "true",
    })
    this.#path = draw("path", { class: "dc-line" })
    this.#dot = draw("circle", { class: "dc-dot", r: 2 })
    this.element.append(this.#path, this.#dot)
  }

  update(values) {
    const [low, high] = bounds(values)
    const path = pathOf(values, low, high, this.width, this.height)
    if (path === this.#drawn) return
    this.#drawn = path
    this.#path.setAttribute("d", path)
    const y = high === low ? this.height / 2 : this.height - ((values.at(-1) - low) / (high - low)) * this.height
    this.#dot.setAttribute("cx", values.length === 1 ? this.width / 2 : this.width)
    this.#dot.setAttribute("cy", y)
  }
}

const WIDTH = 300
const HEIGHT = 64

/** A curve with a title, its axes' figures and a reading under the pointer. */
export class Curve {
  #svg
  #lines = []
  #mark
  #top
  #bottom
  #first
  #last
  #title
  #legend = []
  #caption
  #series = []
  #labels = () => ""
  #format

  /**
   * @param {string} title
   * @param {(value: number) => string} format of the figures
   * @param {boolean} fromZero whether the lower end is zero
   */
  constructor(title, format = number, fromZero = false) {
    this.#format = format
    this.fromZero = fromZero
    this.#title = make("span", { text: title })
    this.#caption = make("figcaption", {}, this.#title)
    this.title = title
    this.#top = make("span")
    this.#bottom = make("span")
    this.#first = make("span")
    this.#last = make("span")
    this.#svg = draw("svg", {
      viewBox: `0 -3 ${WIDTH} ${HEIGHT + 6}`,
      preserveAspectRatio: "none",
      role: "img",
      "aria-label": title,
    })
    this.#mark = draw("line", { class: "dc-mark", y1: -3, y2: HEIGHT + 3, visibility: "hidden" })
    for (const y of [0, HEIGHT / 2, HEIGHT])
      this.#svg.append(draw("line", { class: "dc-grid", x1: 0, x2: WIDTH, y1: y, y2: y }))
    this.#svg.append(this.#mark)
    this.#svg.addEventListener("pointermove", (event) => this.#point(event))
    this.#svg.addEventListener("pointerleave", () => this.#leave())
    this.element = make(
      "figure",
      { class: "dc-curve" },
      this.#caption,
      make("div", { class: "dc-curve-y" }, this.#top, this.#bottom),
      this.#svg,
      make("div", { class: "dc-curve-x" }, this.#first, this.#last),
    )
  }

  /**
   * @param {Array<{name: string, values: number[]}>} series
   * @param {(index: number) => string} labels what is at an index of the horizontal axis
   */
  update(series, labels) {
    this.#series = series
    this.#labels = labels
    let [low, high] = [Infinity, -Infinity]
    for (const { values } of series) {
      const [lowest, highest] = bounds(values)
      low = Math.min(low, lowest)
      high = Math.max(high, highest)
    }
    if (this.fromZero) low = Math.min(0, low)
    const longest = Math.max(...series.map(({ values }) => values.length))
    setText(this.#top, this.#format(high))
    setText(this.#bottom, low === high ? "" : this.#format(low))
    setText(this.#first, labels(0))
    setText(this.#last, longest > 1 ? labels(longest - 1) : "")
    while (this.#lines.length < series.length) {
      const line = draw("path", {
        class: `dc-line dc-line-${this.#lines.length}`,
        "vector-effect": "non-scaling-stroke",
      })
      this.#lines.push(line)
      this.#svg.insertBefore(line, this.#mark)
    }
    series.forEach(({ values }, at) => this.#lines[at].setAttribute("d", pathOf(values, low, high, WIDTH, HEIGHT)))
    if (this.#mark.getAttribute("visibility") === "hidden") this.#leave()
  }

  /** The figures at one place, or the latest; beside the names of the lines. */
  #read(title, index) {
    setText(this.#title, title)
    this.#series.forEach(({ name, values }, at) => {
      if (!this.#legend[at]) {
        const text = make("span")
        this.#legend[at] = { text, element: make("span", { class: `dc-legend dc-legend-${at}` }, make("i"), text) }
        this.#caption.append(this.#legend[at].element)
      }
      const value = values[index ?? values.length - 1]
      setText(this.#legend[at].text, [name, value === undefined ? "" : this.#format(value)].filter(Boolean).join(" "))
    })
  }

  #point(event) {
    const box = this.#svg.getBoundingClientRect()
    const longest = Math.max(0, ...this.#series.map(({ values }) => values.length))
    if (!longest || !box.width) return
    const part = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width))
    const index = Math.round(part * (longest - 1))
    const x = longest === 1 ? WIDTH / 2 : (index / (longest - 1)) * WIDTH
    this.#mark.setAttribute("x1", x)
    this.#mark.setAttribute("x2", x)
    this.#mark.setAttribute("visibility", "visible")
    this.#read(`${this.title}, ${this.#labels(index)}`, index)
  }

  #leave() {
    this.#mark.setAttribute("visibility", "hidden")
    this.#read(this.title, null)
  }
}
