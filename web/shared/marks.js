// What is shown on a node without being part of it: another title, a colour of its head, colours of sockets, lines of
// text below. Nothing of it is saved or queued, so a workflow stays as it was opened. On a classic canvas the node's
// class is asked for it when it is drawn; for Vue nodes ("Nodes 2.0") it becomes a style sheet.
import { app } from "../../../scripts/app.js";

/**
 * @typedef {object} Mark
 * @property {string} [title] in place of the node's title
 * @property {"input" | "output" | "passing"} [tone] colour of the head
 * @property {string} [problem] what is wrong: a red line below the node, and a red outline
 * @property {string} [note] a neutral text below the node
 * @property {Map<object, string>} [sockets] socket -> colour
 */

const TONES = {
  input: { dark: "#27563a", light: "#b9e2c6" },
  output: { dark: "#6b4420", light: "#f5d2a4" },
  passing: { dark: "#2a4a70", light: "#bcd6f2" },
};
// Of titles, readable on all of these and on the themes' own heads; a dark theme's own grey is not.
const TITLE = { dark: "#e6e6e6", light: "#222222" };
const PROBLEM = { back: "#b3261e", front: "#ffffff" };
const NOTE = { dark: { back: "#33373d", front: "#e2e4e8" }, light: { back: "#e4e7eb", front: "#24272b" } };
// Pixels, and characters of a line.
const FONT = 12;
const LINE = 16;
const PADDING = 6;
const GAP = 6;

const marks = new WeakMap();
const sheet = document.createElement("style");
sheet.id = "discomfort-marks";
let isSheetDue = false;

/** What is shown on a node. */
export function markOf(node) {
  return marks.get(node) ?? {};
}

/** Show something on a node: what *changes* names is replaced, everything else stays. */
export function mark(node, changes) {
  const before = markOf(node);
  if (Object.keys(changes).every((key) => isSame(before[key], changes[key]))) return;
  marks.set(node, { ...before, ...changes });
  node.graph?.setDirtyCanvas?.(true, true);
  renewSheet();
}

function isSame(one, other) {
  if (!(one instanceof Map && other instanceof Map)) return one === other;
  return one.size === other.size && [...one].every(([key, value]) => other.get(key) === value);
}

/** Let the nodes of a class be marked. */
export function allowMarks(nodeType) {
  const prototype = nodeType.prototype;
  const getTitle = prototype.getTitle;
  prototype.getTitle = function () {
    return markOf(this).title ?? getTitle.call(this);
  };
  const rendering = inherited(prototype, "renderingColor");
  Object.defineProperty(prototype, "renderingColor", {
    configurable: true,
    get() {
      return (!this.color && toneOf(this)) || rendering?.get?.call(this);
    },
  });
  Object.defineProperty(nodeType, "title_text_color", { configurable: true, get: () => TITLE[theme()] });
  const onDrawForeground = prototype.onDrawForeground;
  prototype.onDrawForeground = function (context, ...rest) {
    onDrawForeground?.call(this, context, ...rest);
    if (!this.flags?.collapsed) drawLines(this, context);
  };
  const onNodeCreated = prototype.onNodeCreated;
  prototype.onNodeCreated = function (...rest) {
    const result = onNodeCreated?.apply(this, rest);
    this.strokeStyles ??= {};
    this.strokeStyles.discomfort = () => (markOf(this).problem ? { lineWidth: 2.5, color: PROBLEM.back } : undefined);
    return result;
  };
  const onSerialize = prototype.onSerialize;
  prototype.onSerialize = function (saved) {
    onSerialize?.call(this, saved);
    for (const [side, sockets] of [
      ["inputs", this.inputs],
      ["outputs", this.outputs],
    ])
      for (const [index, socket] of (saved[side] ?? []).entries())
        if (markOf(this).sockets?.has(sockets?.[index])) for (const key of ["color_on", "color_off"]) delete socket[key];
  };
}

function inherited(prototype, name) {
  for (let one = prototype; one; one = Object.getPrototypeOf(one)) {
    const found = Object.getOwnPropertyDescriptor(one, name);
    if (found) return found;
  }
  return undefined;
}

/** Colour the sockets of a node: by the canvas's own means, which onSerialize leaves out of what is saved. */
export function colourSockets(node, colours) {
  const before = markOf(node).sockets ?? new Map();
  for (const socket of before.keys()) if (!colours.has(socket)) socket.color_on = socket.color_off = undefined;
  for (const [socket, colour] of colours) socket.color_on = socket.color_off = colour;
  mark(node, { sockets: colours });
}

/** "dark" or "light": told by the theme's colour of titles. */
function theme() {
  const [red, green, blue] = rgb(window.LiteGraph?.NODE_TITLE_COLOR ?? "#ccc");
  return red * 0.3 + green * 0.59 + blue * 0.11 > 127 ? "dark" : "light";
}

// A canvas says any colour as #rrggbb (or as rgba(), where it is translucent).
const probe = document.createElement("canvas").getContext("2d");
function rgb(colour) {
  probe.fillStyle = colour;
  const found = probe.fillStyle.match(/^#/) ? probe.fillStyle.match(/[0-9a-f]{2}/gi).map((part) => parseInt(part, 16)) : [];
  return found.length ? found : [204, 204, 204];
}

function toneOf(node) {
  const tone = TONES[markOf(node).tone];
  return tone && tone[theme()];
}

// -- the classic canvas ------------------------------------------------------------------------------------------

function drawLines(node, context) {
  const { problem, note } = markOf(node);
  if ((!problem && !note) || window.LiteGraph?.vueNodesMode) return;
  context.save();
  context.font = `${FONT}px sans-serif`;
  context.textAlign = "left";
  context.textBaseline = "middle";
  let top = node.size[1] + GAP;
  if (problem) top = drawBox(context, problem, top, node.size[0], PROBLEM);
  if (note) drawBox(context, note, top, node.size[0], NOTE[theme()]);
  context.restore();
}

/** Draw a text into a box, and return where the next may begin. */
function drawBox(context, words, top, width, colours) {
  const lines = wrap(context, words, Math.max(width, 220) - 2 * PADDING);
  const height = lines.length * LINE + PADDING;
  context.fillStyle = colours.back;
  context.beginPath();
  context.roundRect(0, top, Math.max(...lines.map((line) => context.measureText(line).width)) + 2 * PADDING, height, 4);
  context.fill();
  context.fillStyle = colours.front;
  for (const [index, line] of lines.entries())
    context.fillText(line, PADDING, top + PADDING / 2 + LINE * (index + 0.5));
  return top + height + GAP;
}

function wrap(context, words, width) {
  const lines = [];
  for (const paragraph of words.split("\n")) {
    let line = "";
    for (const word of paragraph.split(" ")) {
      const longer = line ? `${line} ${word}` : word;
      if (line && context.measureText(longer).width > width) {
        lines.push(line);
        line = word;
      } else line = longer;
    }
    lines.push(line);
  }
  return lines;
}

// -- Vue nodes ---------------------------------------------------------------------------------------------------

/** Write the style sheet anew, once, for all that changes until then. */
export function renewSheet() {
  if (isSheetDue) return;
  isSheetDue = true;
  queueMicrotask(() => {
    isSheetDue = false;
    const nodes = app.canvas?.graph?._nodes ?? [];
    const rules = window.LiteGraph?.vueNodesMode ? nodes.flatMap(rulesOf).join("\n") : "";
    if (!sheet.isConnected) document.head.append(sheet);
    if (sheet.textContent !== rules) sheet.textContent = rules;
  });
}

function rulesOf(node) {
  if (!marks.has(node)) return [];
  const { title, problem, note, sockets } = markOf(node);
  const here = `[data-node-id="${CSS.escape(String(node.id))}"]`;
  const rules = [];
  if (title) {
    const words = `${here} [data-testid="node-title"] .editable-text span`;
    rules.push(`${words} { font-size: 0 !important }`);
    rules.push(`${words}::before { content: ${quoted(title)}; font-size: 0.75rem }`);
  }
  const tone = node.color ? undefined : toneOf(node);
  if (tone) {
    rules.push(`${here} [data-testid="node-inner-wrapper"] { background-color: ${tone} !important }`);
    rules.push(`${here} .lg-node-header { color: ${TITLE[theme()]} }`);
  }
  if (problem)
    rules.push(
      `${here} [data-testid="node-inner-wrapper"] { outline: 2px solid ${PROBLEM.back}; outline-offset: 2px }`,
    );
  const box =
    "position: absolute; left: 0; padding: 3px 6px; border-radius: 4px; width: max-content; font-size: 12px; " +
    "line-height: 16px; max-width: max(100%, 220px); white-space: pre-wrap; pointer-events: none";
  if (problem) rules.push(below(here, "after", problem, "top: calc(100% + 6px)", PROBLEM, box));
  const colours = NOTE[theme()];
  // Above the node where the line below is taken.
  const place = problem ? "bottom: calc(100% + 6px)" : "top: calc(100% + 6px)";
  if (note) rules.push(below(here, "before", note, place, colours, box));
  for (const [socket, colour] of sockets ?? []) rules.push(...socketRules(node, socket, colour));
  return rules;
}

function below(here, which, words, place, colours, box) {
  return `${here}::${which} { content: ${quoted(words)}; ${place}; ${box}; background: ${colours.back}; color: ${colours.front} }`;
}

function socketRules(node, socket, colour) {
  const side = node.inputs?.includes(socket) ? "in" : "out";
  const index = (side === "in" ? node.inputs : node.outputs)?.indexOf(socket) ?? -1;
  if (index < 0) return [];
  const dot = `[data-slot-key="${CSS.escape(String(node.id))}-${side}-${index}"]`;
  return [`${dot} { background-color: ${colour} !important }`, `${dot} circle { fill: ${colour} }`];
}

function quoted(words) {
  return `"${words.replace(/["\\]/g, "\\$&").replace(/\n/g, "\\a ")}"`;
}

app.registerExtension({
  name: "Discomfort.Marks",
  async setup() {
    app.canvas?.canvas?.addEventListener?.("litegraph:set-graph", renewSheet);
    for (const setting of ["Comfy.ColorPalette", "Comfy.VueNodes.Enabled"])
      // The page itself reacts to the setting at the same time.
      app.ui?.settings?.addEventListener?.(`${setting}.change`, () => setTimeout(renewSheet, 300));
  },
  async afterConfigureGraph() {
    renewSheet();
  },
});
