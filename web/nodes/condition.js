// The conditions of a loop are checked while they are typed, by the server that will use them.
import { ask } from "../shared/routes.js";

// Milliseconds without typing.
const PAUSE = 300;

/**
 * Check widgets of a node whenever their text changes.
 * @param {string[]} names the widgets that hold conditions
 * @param {(node: object) => object} workflowsOf the workflows whose values a condition may name, as the route takes them
 * @param {(problem: string | undefined) => void} tell called with what is wrong with the first that is wrong
 * @returns {() => Promise<void>} checks at once, whatever has changed elsewhere
 */
export function watchConditions(node, names, workflowsOf, tell) {
  const widgets = names.map((name) => node.widgets?.find((one) => one.name === name)).filter(Boolean);
  let timer;
  // An answer that comes late is of a text that nobody sees any more.
  let latest = 0;

  async function check() {
    clearTimeout(timer);
    const mine = ++latest;
    const problems = await Promise.all(widgets.map((widget) => problemOf(widget, workflowsOf(node))));
    if (mine === latest) tell(problems.find(Boolean));
  }

  for (const widget of widgets) {
    const callback = widget.callback;
    widget.callback = function (...rest) {
      clearTimeout(timer);
      timer = setTimeout(check, PAUSE);
      return callback?.apply(this, rest);
    };
  }
  return check;
}

async function problemOf(widget, workflows) {
  const condition = String(widget.value ?? "").trim();
  if (!condition) return undefined;
  const answer = await ask("/discomfort/condition", { condition, ...workflows });
  const problem = answer?.problem ?? answer?.error;
  return problem ? `${widget.label ?? widget.name}: ${problem}` : undefined;
}
