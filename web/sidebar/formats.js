/**
 * Numbers, times and sizes as words. Pure.
 */

const UNITS = ["bytes", "KB", "MB", "GB", "TB"]

/** 0.82 s, 12.4 s, 3:07 min, 2:05 h. */
export function duration(seconds) {
  if (!Number.isFinite(seconds)) return ""
  if (seconds === 0) return "0 s"
  if (seconds < 10) return `${seconds.toFixed(seconds < 0.995 ? 2 : 1)} s`
  if (seconds < 100) return `${seconds.toFixed(0)} s`
  return clock(seconds)
}

/** 0:07, 12:40, 2:05:09: for what counts up. */
export function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds))
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60]
  const tail = String(rest).padStart(2, "0")
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${tail}` : `${minutes}:${tail}`
}

export function bytes(size) {
  if (!Number.isFinite(size)) return ""
  let unit = 0
  for (; size >= 1000 && unit < UNITS.length - 1; unit += 1) size /= 1000
  return `${unit === 0 || size >= 100 ? size.toFixed(0) : size.toFixed(1)} ${UNITS[unit]}`
}

/** A number as short as it stays true enough; text (inf, or an integer that JavaScript cannot hold) as it is. */
export function number(value, digits = 4) {
  if (typeof value !== "number") return String(value)
  if (Number.isInteger(value) && Math.abs(value) < 1e15) return String(value)
  const size = Math.abs(value)
  return size >= 1e-3 && size < 1e6 ? String(Number(value.toPrecision(digits))) : value.toExponential(2)
}

export function percent(part) {
  return `${Math.round(100 * part)} %`
}

export function plural(count, word) {
  return `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`
}

const TIME = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" })
const DAY = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit" })
const FULL = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" })

/** When, as the reader's language writes it: the time alone where it was today. */
export function moment(seconds, now = Date.now() / 1000) {
  const when = new Date(seconds * 1000)
  return (when.toDateString() === new Date(now * 1000).toDateString() ? TIME : DAY).format(when)
}

export function fullMoment(seconds) {
  return FULL.format(new Date(seconds * 1000))
}

/** Where in the run, counted from zero as in conditions, messages and records: [0, 2] is "0.2". */
export function place(path) {
  return (path ?? []).join(".")
}

// What is told of memory (server_memory.py), under the names that people see.
const MEMORY = {
  server_rss: "server",
  orchestrator_rss: "script",
  context_ram: "values in memory",
  context_disk: "values on disk",
}

/** {name for people: bytes} of a step's memory: what the run itself takes. */
export function ownMemory(memory) {
  const found = {}
  const used = memory?.torch_vram_total ?? (memory?.vram_total ?? 0) - (memory?.vram_free ?? 0)
  if (used > 0) found.GPU = used
  for (const [name, words] of Object.entries(MEMORY)) if (memory?.[name] > 0) found[words] = memory[name]
  return found
}
