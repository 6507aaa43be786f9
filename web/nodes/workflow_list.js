// The workflows that the server offers, as choices of a widget.
import { ask } from "../shared/routes.js";

let names = [];
let examples = new Set();
let asking = null;

/** The names known so far. */
export function knownWorkflows() {
  return names;
}

/** Whether a name is that of one of the pack's examples, and of no workflow of the user's. */
export function isExample(name) {
  return examples.has(name);
}

/** Ask the server for the names again; several who ask at once share the answer. */
export async function loadWorkflows() {
  asking ??= ask("/discomfort/workflows").finally(() => (asking = null));
  const answer = await asking;
  if (Array.isArray(answer?.workflows)) {
    names = answer.workflows.map((workflow) => workflow.name);
    examples = new Set(answer.workflows.filter((workflow) => workflow.is_example).map((workflow) => workflow.name));
  }
  return names;
}

/** Offer the names in a widget, and the value it has: a path need not be in the list. */
export function offerWorkflows(widget) {
  const values = [...new Set([...(widget.value ? [widget.value] : []), ...names])];
  const before = widget.options.values;
  if (Array.isArray(before) && before.length === values.length && before.every((one, i) => one === values[i])) return;
  widget.options = Object.assign(widget.options, { values });
}
