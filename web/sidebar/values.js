/**
 * How a sketch of a value is said and drawn: in a word, in figures, as a picture.
 */

import { icon, make } from "./dom.js"
import { bytes, number, plural } from "./formats.js"

const ICONS = {
  image: "image",
  mask: "clone",
  latent: "th-large",
  tensor: "table",
  text: "align-left",
  number: "hashtag",
  boolean: "check-square",
  list: "list",
  reference: "link",
  secret: "lock",
  other: "box",
}

/** The kinds that have a picture. */
export function isPicture(sketch) {
  return ["image", "mask", "latent"].includes(sketch.kind)
}

/** A value in a few words, for one line. */
export function inShort(sketch) {
  if (sketch.note && !sketch.shape && sketch.kind !== "text") return sketch.note
  switch (sketch.kind) {
    case "text":
      return sketch.text ? sketch.text.replace(/\s+/g, " ").trim() || "only white space" : "empty"
    case "number":
      return number(sketch.value)
    case "boolean":
      return sketch.value ? "true" : "false"
    case "list":
      return plural(sketch.length ?? sketch.items?.length ?? 0, "item")
    case "reference":
      return "by reference: made anew where it is needed"
    case "secret":
      return "a secret, not shown"
    case "image":
      return pictureSize(sketch)
    default:
      return sketch.shape ? sketch.shape.join(" × ") : sketch.type || "not looked at"
  }
}

/** 512 × 768, 4 pictures. Images are [batch, height, width, channels]. */
function pictureSize({ shape }) {
  if (shape?.length !== 4) return shape?.join(" × ") ?? ""
  const [count, height, width] = shape
  return count > 1 ? `${width} × ${height}, ${count} pictures` : `${width} × ${height}`
}

/** How many pictures a value holds. */
export function pictureCount(sketch) {
  if (typeof sketch.length === "number" && sketch.kind !== "text") return Math.max(1, sketch.length)
  const { kind, shape } = sketch
  if (!shape) return 1
  return Math.max(1, kind === "mask" ? (shape.length > 2 ? shape[0] : 1) : shape.length > 3 ? shape[0] : 1)
}

/** [name, text] of everything that is known of it, but for its text and its picture. */
export function figures(sketch) {
  const found = [
    ["type", sketch.dtype && !sketch.type?.includes(sketch.dtype) ? `${sketch.type}, ${sketch.dtype}` : sketch.type],
  ]
  if (sketch.shape) found.push(["shape", sketch.shape.join(" × ")])
  if (sketch.min !== undefined) found.push(["range", `${number(sketch.min)} … ${number(sketch.max)}`])
  if (sketch.mean !== undefined) found.push(["mean", number(sketch.mean)])
  if (sketch.nan) found.push(["NaN", String(sketch.nan)])
  if (sketch.length !== undefined) found.push(["length", Number(sketch.length).toLocaleString("en")])
  if (sketch.size !== undefined) found.push(["size", bytes(sketch.size)])
  if (sketch.sampled) found.push(["figures", "of a sample"])
  if (sketch.note) found.push(["note", sketch.note])
  return found.filter(([, text]) => text)
}

/** An item of a list, as value_summary tells it. */
function itemInShort(item) {
  const value = item.value && typeof item.value === "object" ? item.value : item
  if (value.kind) return `${value.kind} ${inShort(value)}`
  const shape = value.shape ? ` ${value.shape.join(" × ")}` : ""
  const content = value.value !== undefined ? ` ${value.value}` : ""
  return `${value.type ?? ""}${shape}${content}`.trim()
}

/** The items of a list that are known. */
export function itemList(sketch) {
  if (!sketch.items?.length) return null
  const lines = sketch.items.map((item) => make("li", { text: itemInShort(item) }))
  const rest = (sketch.length ?? sketch.items.length) - sketch.items.length
  if (rest > 0) lines.push(make("li", { class: "dc-dim", text: `and ${rest.toLocaleString("en")} more` }))
  return make("ol", { class: "dc-items", start: "0" }, ...lines)
}

/** A small picture of a value, or the sign of its kind. */
export function thumbnail(sketch, url, alt = "") {
  if (!sketch.thumbnail)
    return make("span", { class: "dc-kind", title: sketch.kind }, icon(ICONS[sketch.kind] ?? "box"))
  return make("img", { class: "dc-thumb", src: url(sketch.thumbnail), alt, loading: "lazy", decoding: "async" })
}
