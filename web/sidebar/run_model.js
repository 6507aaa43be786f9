/**
 * What a run's events come to: its iterations, steps, values and end. Pure: no page, no server.
 *
 *     const run = newRun()
 *     addEvents(run, events)   // in the order in which they were written; may be called again and again
 *
 * Every event costs about the same, however long the run is: nothing here walks over what came before.
 */

export function newRun() {
  return {
    head: null,
    // In the order in which they began: {key, path, started, steps, conditions, edits, pauses, inputs, failure}
    iterations: [],
    iterationByKey: new Map(),
    // name -> {name, type, modes, history: [{path, key, t, sketch, from}], pending: the same, of a value that nobody
    // has looked at yet}
    values: new Map(),
    // All steps, for the curves: {key, path, workflow, started, seconds, ...}
    steps: [],
    // Steps that have begun and not ended, by place and workflow.
    openSteps: new Map(),
    cachedNodes: 0,
    allNodes: 0,
    retries: 0,
    recycles: [],
    failures: [],
    // The event, while it is paused; its values change with every edit.
    paused: null,
    end: null,
    lastTime: 0,
  }
}

export function addEvents(run, events) {
  for (const event of events) {
    if (typeof event.t === "number") run.lastTime = event.t
    HANDLERS[event.kind]?.(run, event)
  }
  return run
}

const HANDLERS = {
  run(run, event) {
    run.head = event
    for (const workflow of event.workflows ?? []) {
      for (const port of workflow.ports ?? []) addPort(run, port)
    }
    for (const [name, sketch] of Object.entries(event.inputs ?? {})) addValue(run, event, name, sketch, "input", [])
  },
  iteration(run, event) {
    iteration(run, event)
  },
  step_started(run, event) {
    const entry = iteration(run, event)
    const step = { key: entry.key, path: entry.path, workflow: event.workflow, started: event.t, seconds: null }
    run.openSteps.set(stepKey(entry, event), step)
    entry.steps.push(step)
  },
  step(run, event) {
    const entry = iteration(run, event)
    let step = run.openSteps.get(stepKey(entry, event))
    if (step === undefined) {
      step = { key: entry.key, path: entry.path, workflow: event.workflow, started: event.t - (event.seconds ?? 0) }
      entry.steps.push(step)
    }
    run.openSteps.delete(stepKey(entry, event))
    const { seconds, saving_seconds, cached, nodes, retries, memory, outputs, recalled } = event
    Object.assign(step, { seconds, saving_seconds, cached, nodes, retries, memory, outputs: { ...outputs }, recalled })
    run.steps.push(step)
    run.cachedNodes += cached ?? 0
    run.allNodes += nodes ?? 0
    run.retries += retries?.length ?? 0
    for (const [name, sketch] of Object.entries(outputs ?? {})) {
      addValue(run, event, name, sketch, "output", entry.path)
    }
  },
  step_failed(run, event) {
    const entry = iteration(run, event)
    const step = run.openSteps.get(stepKey(entry, event))
    run.openSteps.delete(stepKey(entry, event))
    if (step !== undefined) step.error = event.error
  },
  sketch(run, event) {
    const path = event.path ?? []
    for (const step of run.iterationByKey.get(path.join("."))?.steps ?? []) {
      if (step.outputs && event.name in step.outputs) step.outputs[event.name] = event.value
    }
    addValue(run, event, event.name, event.value, "sketch", path)
  },
  input(run, event) {
    iteration(run, event).inputs.push(event)
    addValue(run, event, event.name, event.value, "input", event.path ?? [])
  },
  condition(run, event) {
    iteration(run, event).conditions.push(event)
  },
  paused(run, event) {
    iteration(run, event).pauses.push(event)
    run.paused = { ...event, values: { ...event.values } }
  },
  resumed(run) {
    run.paused = null
  },
  edited(run, event) {
    const path = event.path ?? run.paused?.path ?? lastPath(run)
    iteration(run, { ...event, path }).edits.push(event)
    if (run.paused && event.name in run.paused.values) run.paused.values[event.name] = event.after
    addValue(run, event, event.name, event.after, "edit", path)
  },
  iteration_failed(run, event) {
    const path = event.path ?? (typeof event.iteration === "number" ? [event.iteration] : lastPath(run))
    iteration(run, { ...event, path }).failure = event
    run.failures.push(event)
  },
  recycle(run, event) {
    run.recycles.push(event)
  },
  end(run, event) {
    run.end = event
    run.paused = null
    run.openSteps.clear()
  },
}

function lastPath(run) {
  return run.iterations.at(-1)?.path ?? []
}

/** The iteration that an event belongs to; a run without a loop has one, whose path is empty. */
function iteration(run, event) {
  const path = event.path ?? []
  const key = path.join(".")
  let entry = run.iterationByKey.get(key)
  if (entry === undefined) {
    entry = {
      key,
      path,
      started: event.t,
      steps: [],
      conditions: [],
      edits: [],
      pauses: [],
      inputs: [],
      failure: null,
    }
    run.iterationByKey.set(key, entry)
    run.iterations.push(entry)
  }
  return entry
}

function stepKey(entry, event) {
  return `${entry.key}/${event.workflow}`
}

function addPort(run, port) {
  const value = valueNamed(run, port.unique_id)
  if (port.mode) value.modes.add(port.mode)
  if (port.type && port.type !== "*" && !value.type) value.type = port.type
}

function valueNamed(run, name) {
  let value = run.values.get(name)
  if (value === undefined) {
    value = { name, type: "", modes: new Set(), history: [], pending: null }
    run.values.set(name, value)
  }
  return value
}

/** What is said of a value before anybody has looked at it: its weight. A fuller sketch may come later. */
function isUnseen(sketch) {
  return sketch.kind === "other" && !sketch.type
}

function addValue(run, event, name, sketch, from, path) {
  if (!sketch) return
  const value = valueNamed(run, name)
  const entry = { key: path.join("."), path, t: event.t, sketch, from }
  if (from !== "sketch") {
    value.pending = isUnseen(sketch) ? entry : null
    if (!isUnseen(sketch)) value.history.push(entry)
    return
  }
  if (value.pending?.key === entry.key) {
    value.history.push({ ...value.pending, sketch })
    value.pending = null
    return
  }
  // Those of earlier iterations may come later, in any order: each has its place.
  let place = value.history.length
  while (place > 0 && isBefore(path, value.history[place - 1].path)) place--
  const there = value.history[place - 1]
  if (there?.key === entry.key && there.from !== "edit") value.history[place - 1] = { ...there, sketch }
  else value.history.splice(place, 0, { ...entry, from: "output" })
}

/** Whether an iteration comes before another one: by numbers, the outermost loop's first. */
function isBefore(path, other) {
  const differing = path.findIndex((number, level) => number !== other[level])
  if (differing < 0) return path.length < other.length
  return differing < other.length && path[differing] < other[differing]
}

/** The latest that is known of a value: {entry, isOld}; null where it was never made. */
export function latest(value) {
  const entry = value.history.at(-1) ?? value.pending
  return entry ? { entry, isOld: value.pending !== null && entry !== value.pending } : null
}

/** Whether a run makes this value, or is only given it. */
export function isMade(value) {
  return [...value.modes].some((mode) => mode !== "INPUT") || value.history.some((entry) => entry.from === "output")
}

/** What a curve can show of a sketch: a number, or the mean of a tensor; null where there is nothing. */
export function figure(sketch) {
  const found = sketch.kind === "number" ? sketch.value : sketch.kind === "boolean" ? Number(sketch.value) : sketch.mean
  return typeof found === "number" && Number.isFinite(found) ? found : null
}

/** The points of a value's curve: {value, path}. */
export function curveOf(value) {
  const points = []
  for (const entry of value.history) {
    const found = figure(entry.sketch)
    if (found !== null) points.push({ value: found, path: entry.path })
  }
  return points
}

/** Iterations of the outermost loop that have begun. */
export function outerCount(run) {
  let count = 0
  for (let at = run.iterations.length - 1; at >= 0 && count === 0; at -= 1) {
    if (run.iterations[at].path.length) count = run.iterations[at].path[0] + 1
  }
  return count
}

/**
 * How fast it goes: {perIteration, left} in seconds, null where that cannot be said. The middle of the last twenty
 * iterations' times, so that one that waited for a person does not count.
 */
export function pace(run, total) {
  const starts = []
  for (let at = run.iterations.length - 1; at >= 0 && starts.length < 21; at -= 1) {
    if (run.iterations[at].path.length === 1) starts.push(run.iterations[at].started)
  }
  if (starts.length < 2) return { perIteration: null, left: null }
  const times = starts
    .slice(1)
    .map((start, at) => starts[at] - start)
    .sort((a, b) => a - b)
  const perIteration = times[Math.floor(times.length / 2)]
  const left = total > 0 && !run.end ? Math.max(0, total - outerCount(run) + 1) * perIteration : null
  return { perIteration, left }
}

/** "running", "paused" ... of a run that lives; of another "finished", "failed", "interrupted", "stopped", "killed". */
export function stateOf(live, status, end) {
  if (end) return end.state
  return live ? (status?.state ?? "running") : "killed"
}
