/**
 * What the server is asked, and how. Every answer that is no success becomes an Error with the server's sentence.
 */

// A number of so many digits that JavaScript would round it, where JSON has one.
const LONG_INTEGER = /[:[,]\s*-?\d{16,}\s*[,\]}]/

/** JSON whose long integers (seeds) come as text, all digits kept. */
export function parseExactly(text) {
  if (!LONG_INTEGER.test(text)) return JSON.parse(text)
  return JSON.parse(text, (_, value, context) =>
    typeof value === "number" && Number.isInteger(value) && !Number.isSafeInteger(value)
      ? (context?.source ?? value)
      : value,
  )
}

export class Routes {
  #api

  /** @param {object} api the editor's: fetchApi, apiURL */
  constructor(api) {
    this.#api = api
  }

  state() {
    return this.#ask("/state")
  }

  events(runId, offset) {
    return this.#ask(`/runs/${encodeURIComponent(runId)}/events?offset=${offset}`)
  }

  value(runId, name) {
    return this.#ask(`/runs/${encodeURIComponent(runId)}/values/${encodeURIComponent(name)}`)
  }

  workflow(runId, index) {
    return this.#ask(`/runs/${encodeURIComponent(runId)}/workflows/${index}`)
  }

  stitched(runId) {
    return this.#ask(`/runs/${encodeURIComponent(runId)}/stitched`)
  }

  command(runId, command) {
    return this.#post(`/runs/${encodeURIComponent(runId)}/command`, JSON.stringify(command))
  }

  /** @param {string} value JSON, as text: an integer of any length arrives whole */
  set(runId, name, value) {
    const id = `${Date.now().toString(36)}-${Math.random().toString(36).slice(2)}`
    const start = JSON.stringify({ command: "set", id, name })
    return this.#post(`/runs/${encodeURIComponent(runId)}/command`, `${start.slice(0, -1)},"value":${value}}`)
  }

  settings(changes) {
    return this.#post("/settings", JSON.stringify(changes))
  }

  stopServer() {
    return this.#post("/server/stop", "{}")
  }

  remove(runId) {
    return this.#ask(`/runs/${encodeURIComponent(runId)}`, { method: "DELETE" })
  }

  thumbnailUrl(runId, name) {
    return this.#url(`/runs/${encodeURIComponent(runId)}/thumbnails/${encodeURIComponent(name)}`)
  }

  pictureUrl(runId, name, item, version) {
    const path = `/runs/${encodeURIComponent(runId)}/values/${encodeURIComponent(name)}/picture`
    return this.#url(`${path}?size=1024&item=${item}&version=${encodeURIComponent(version)}`)
  }

  /** The picture itself, so that the sentence is known where there is none. */
  async picture(runId, name, item, version) {
    const path = `/runs/${encodeURIComponent(runId)}/values/${encodeURIComponent(name)}/picture`
    const query = `size=1024&item=${item}&version=${encodeURIComponent(version)}`
    const answer = await this.#api.fetchApi(`/discomfort${path}?${query}`)
    if (answer.ok) return answer.blob()
    const content = await answer.json().catch(() => null)
    throw new Error(content?.error ?? `The picture cannot be shown: the server answered with ${answer.status}.`)
  }

  reportUrl(runId) {
    return this.#url(`/runs/${encodeURIComponent(runId)}/report`)
  }

  #url(path) {
    return this.#api.apiURL(`/discomfort${path}`)
  }

  #post(path, body) {
    return this.#ask(path, { method: "POST", headers: { "Content-Type": "application/json" }, body })
  }

  async #ask(path, options = {}) {
    const answer = await this.#api.fetchApi(`/discomfort${path}`, { cache: "no-store", ...options })
    const text = await answer.text()
    let content = null
    try {
      content = parseExactly(text)
    } catch {
      // An answer of something between here and the server.
    }
    if (answer.ok && content !== null) return content
    const error = new Error(content?.error ?? `The server answered with ${answer.status} to ${path}.`)
    error.status = answer.status
    throw error
  }
}
