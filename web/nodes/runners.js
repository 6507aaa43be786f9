// The nodes that run workflows: the ports of the chosen workflows are their sockets, which follow the files. They are
// looked at when somebody chooses, opens, selects, comes back to the window or queues; never by the clock.
import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";
import { ask, isReady, whenTouched } from "../shared/routes.js";
import { text } from "../shared/texts.js";
import { allowMarks, colourSockets, mark } from "../shared/marks.js";
import { watchConditions } from "./condition.js";
import { allGraphs, rootGraph } from "./port_graph.js";
import { adjustSockets, hidePorts, isWired, nameOf, notePorts, portsOf, prepareDefinition } from "./sockets.js";
import { isExample, knownWorkflows, loadWorkflows, offerWorkflows } from "./workflow_list.js";

const TEST_RUNNER = "DiscomfortTestRunner";
const LOOP = "DiscomfortLoopExecutor";
const EXTENDER = "DiscomfortExtenderWorkflowRunner";
// Of each class, the widgets that name workflows: one in a combo, or one a line, and what the routes call them.
const CHOOSERS = {
  [TEST_RUNNER]: { workflow: "workflows" },
  [LOOP]: { workflows: "workflows", then_workflows: "then", otherwise_workflows: "otherwise" },
  [EXTENDER]: { workflow: "workflows" },
};
const COMBO = "workflow";
const CONDITIONS = ["condition", "branch_condition"];

// The folder of this pack, as the server knows it: /extensions/<folder>/nodes/runners.js
const PACK = new URL("..", import.meta.url).pathname.split("/").at(-2);
// Milliseconds: for typing to pause; for an answer before a queueing that does not wait longer.
const PAUSE = 300;
const QUEUE_PATIENCE = 3000;
// Of a socket whose port is gone.
const STALE = "#e5484d";
// Of what a run says at its end.
const NOTE_LINES = 4;

// node -> what this script knows of it: {timer, check, problems}
const states = new WeakMap();

function kindOf(node) {
  return node?.constructor?.comfyClass ?? node?.comfyClass ?? node?.type;
}

/** Whether ports become sockets: the extender has sockets of its own. */
function hasPorts(node) {
  return kindOf(node) === TEST_RUNNER || kindOf(node) === LOOP;
}

function runners() {
  return allGraphs(rootGraph())
    .flatMap((graph) => graph._nodes ?? [])
    .filter((node) => states.has(node));
}

function widgetOf(node, name) {
  return node.widgets?.find((one) => one.name === name);
}

/** The workflows that a node names, by the words of the routes. */
function workflowsOf(node) {
  const chosen = {};
  for (const [widget, key] of Object.entries(CHOOSERS[kindOf(node)])) chosen[key] = namesIn(node, widget);
  return chosen;
}

function namesIn(node, widget) {
  return String(widgetOf(node, widget)?.value ?? "")
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line && !line.startsWith("#"));
}

function allNames(node) {
  return [...new Set(Object.values(workflowsOf(node)).flat())];
}

// -- sockets -----------------------------------------------------------------------------------------------------

/** Bring the sockets of a node in step with its files. */
async function refresh(node) {
  const state = states.get(node);
  if (!state || !node.graph) return;
  clearTimeout(state.timer);
  const chosen = workflowsOf(node);
  const asked = JSON.stringify(chosen);
  const answer = allNames(node).length
    ? await ask("/discomfort/ports", chosen)
    : { inputs: [], outputs: [], problems: [] };
  // Something else was chosen meanwhile, or the node is gone; without an answer the sockets stay as they are.
  if (!answer || !node.graph || asked !== JSON.stringify(workflowsOf(node))) return;
  state.problems.ports = answer.error ?? sentences(answer.problems);
  if (hasPorts(node) && answer.inputs && isUsable(answer)) {
    adjust(node, answer);
    nameValues(node, answer);
  }
  showProblems(node);
  await state.check?.();
}

/** Whether an answer tells of ports: files that cannot be read take no socket away. */
function isUsable(answer) {
  return answer.inputs.length > 0 || answer.outputs.length > 0 || !answer.problems?.length;
}

function sentences(problems) {
  return problems?.length ? problems.join("\n") : undefined;
}

function adjust(node, ports) {
  const before = JSON.stringify(portsOf(node));
  states.get(node).stale = adjustSockets(node, ports);
  if (JSON.stringify(portsOf(node)) === before) return;
  node.graph.setDirtyCanvas?.(true, true);
  // So that the editor knows that there is something to save, and to undo.
  app.extensionManager?.workflow?.activeWorkflow?.changeTracker?.checkState?.();
}

/** The sentence about sockets whose port is gone, as long as a wire keeps them. */
function staleProblem(node) {
  const wired = (states.get(node).stale ?? []).filter(isWired);
  if (!wired.length) return undefined;
  return text("runner.stale", "The workflow has no port {names} any more: take the wire off, or name a port so.", {
    names: [...new Set(wired.map((socket) => `'${nameOf(socket)}'`))].join(", "),
  });
}

function showProblems(node) {
  const { problems } = states.get(node);
  const all = [problems.ports, staleProblem(node), problems.condition].filter(Boolean);
  mark(node, { problem: all.length ? all.join("\n") : undefined });
  const stale = (states.get(node).stale ?? []).filter(isWired);
  colourSockets(node, new Map(stale.map((socket) => [socket, STALE])));
}

function refreshSoon(node) {
  const state = states.get(node);
  clearTimeout(state.timer);
  state.timer = setTimeout(() => refresh(node), PAUSE);
}

async function refreshAll() {
  const nodes = runners();
  if (!nodes.length) return;
  await loadWorkflows();
  for (const node of nodes) offerIn(node);
  await Promise.all(nodes.map(refresh));
}

function offerIn(node) {
  const widget = widgetOf(node, COMBO);
  if (widget) offerWorkflows(widget);
}

// -- a node's life -----------------------------------------------------------------------------------------------

function watchClass(nodeType) {
  const prototype = nodeType.prototype;
  const chain = (name, react) => {
    const before = prototype[name];
    prototype[name] = function (...rest) {
      const result = before?.apply(this, rest);
      if (states.has(this)) react(this, ...rest);
      return result;
    };
  };
  chain("onConfigure", (node) => {
    // The saved sockets are there; what the files have become is seen to when somebody is.
    offerIn(node);
    if (isReady()) refreshSoon(node);
  });
  chain("onSelected", (node) => {
    loadWorkflows().then(() => offerIn(node));
    refreshSoon(node);
  });
  chain("onConnectionsChange", (node) => {
    const { stale } = states.get(node);
    if (stale?.length) refreshSoon(node);
  });
  chain("onExecuted", (node, output) => {
    const lines = [output?.text].flat().filter((line) => typeof line === "string").join("\n").split("\n");
    mark(node, { note: lines.slice(0, NOTE_LINES).join("\n") || undefined });
  });
}

function adopt(node) {
  const state = { timer: undefined, check: undefined, stale: [], problems: {} };
  states.set(node, state);
  hidePorts(node);
  const socket = node.inputs?.find((one) => one.widget?.name === COMBO);
  // A text may be wired to the combo.
  if (socket) socket.type = "STRING";
  const combo = widgetOf(node, COMBO);
  if (combo) {
    combo.value ??= "";
    offerWorkflows(combo);
  }
  for (const name of Object.keys(CHOOSERS[kindOf(node)])) {
    const widget = widgetOf(node, name);
    const callback = widget?.callback;
    if (widget)
      widget.callback = function (...rest) {
        const result = callback?.apply(this, rest);
        refreshSoon(node);
        return result;
      };
  }
  if (kindOf(node) === LOOP)
    state.check = watchConditions(node, CONDITIONS, workflowsOf, (problem) => {
      state.problems.condition = problem;
      showProblems(node);
    });
  if (isReady()) loadWorkflows().then(() => offerIn(node));
}

/** Say which names a condition may use, where the editor shows tooltips of widgets. */
function nameValues(node, { inputs, outputs }) {
  const names = new Set([...inputs, ...outputs].map((port) => port.unique_id)).add("iteration");
  for (const name of CONDITIONS) {
    const widget = widgetOf(node, name);
    if (!widget) continue;
    widget.ownTooltip ??= widget.tooltip ?? "";
    const words = text("runner.names", "Names: {names}", { names: [...names].join(", ") });
    widget.tooltip = [widget.ownTooltip, words].filter(Boolean).join("\n");
  }
}

// -- menu --------------------------------------------------------------------------------------------------------

function menuItems(node) {
  if (!states.has(node)) return [];
  const items = [
    {
      content: text("runner.refresh", "Refresh ports"),
      callback: () => {
        mark(node, { note: undefined });
        refreshAll();
      },
    },
  ];
  const names = allNames(node);
  if (names.length) {
    const content = text("runner.open", "Open workflow");
    if (names.length === 1) items.push({ content, callback: () => openWorkflow(names[0]) });
    else items.push(submenu(content, names, openWorkflow));
  }
  const addable = knownWorkflows().filter((name) => !names.includes(name));
  if (kindOf(node) === LOOP && addable.length)
    items.push(submenu(text("runner.add", "Add workflow"), addable, (name) => addWorkflow(node, name)));
  if (widgetOf(node, COMBO))
    items.push({ content: text("runner.other", "Other workflow file…"), callback: () => askForFile(node) });
  return items;
}

function submenu(content, names, choose) {
  const options = names.map((name) => ({ content: name, callback: () => choose(name) }));
  return { content, has_submenu: true, submenu: { options } };
}

function setValue(node, name, value) {
  const widget = widgetOf(node, name);
  widget.value = value;
  widget.callback?.(value, app.canvas, node);
  offerIn(node);
}

function addWorkflow(node, name) {
  setValue(node, "workflows", [...namesIn(node, "workflows"), name].join("\n"));
}

async function askForFile(node) {
  const value = await app.extensionManager.dialog.prompt({
    title: text("runner.other", "Other workflow file…"),
    message: text("runner.otherWhich", "Path of a workflow's .json file on the server:"),
    defaultValue: String(widgetOf(node, COMBO).value ?? ""),
  });
  if (typeof value === "string") setValue(node, COMBO, value.trim());
}

/** Open a saved workflow as the list of workflows does, or one of our examples, in a tab of its own. */
async function openWorkflow(name) {
  const file = name.endsWith(".json") ? name : `${name}.json`;
  const store = app.extensionManager.workflow;
  const saved = store?.getWorkflowByPath?.(`workflows/${file}`);
  const load = async () => {
    if (saved) {
      if (!saved.isLoaded) await saved.load();
      return app.loadGraphData(JSON.parse(JSON.stringify(saved.activeState ?? saved.initialState)), true, true, saved);
    }
    await loadWorkflows();
    const answer = await api.fetchApi(
      isExample(file)
        ? `/workflow_templates/${PACK}/${encodeURIComponent(file)}`
        : `/userdata/${encodeURIComponent(`workflows/${file}`)}`,
    );
    if (!answer.ok) throw new Error(`${answer.status}`);
    return app.loadGraphData(await answer.json(), true, true, file.split("/").pop().replace(/\.json$/, ""));
  };
  try {
    await load();
  } catch (error) {
    app.extensionManager.toast?.add?.({
      severity: "error",
      summary: text("runner.open", "Open workflow"),
      detail: text("runner.cannotOpen", "'{name}' is neither among your saved workflows nor an example ({error}).", {
        name,
        error: error.message ?? error,
      }),
      life: 6000,
    });
  }
}

// -- the editor --------------------------------------------------------------------------------------------------

/** Before anything is queued the sockets are those of the files as they are now. */
function refreshBeforeQueueing() {
  const queuePrompt = app.queuePrompt;
  app.queuePrompt = async function (...rest) {
    if (isReady() && runners().length)
      await Promise.race([refreshAll(), new Promise((done) => setTimeout(done, QUEUE_PATIENCE))]);
    return queuePrompt.apply(this, rest);
  };
}

const hasMenuHook = () => typeof app.collectNodeMenuItems === "function";

app.registerExtension({
  name: "Discomfort.Runners",
  commands: [
    {
      id: "Discomfort.RefreshPorts",
      label: "Refresh the ports of all runner nodes",
      icon: "pi pi-refresh",
      function: refreshAll,
    },
  ],
  async beforeRegisterNodeDef(nodeType, nodeData) {
    if (!(nodeData.name in CHOOSERS)) return;
    if (nodeData.name !== EXTENDER) prepareDefinition(nodeData);
    const chooser = nodeData.input?.required?.[COMBO];
    if (chooser?.[0] === "STRING") nodeData.input.required[COMBO] = [[""], chooser[1]];
    allowMarks(nodeType);
    watchClass(nodeType);
    const getExtraMenuOptions = nodeType.prototype.getExtraMenuOptions;
    nodeType.prototype.getExtraMenuOptions = function (canvas, options) {
      const result = getExtraMenuOptions?.apply(this, arguments);
      if (!hasMenuHook()) options.unshift(...menuItems(this), null);
      return result;
    };
  },
  async nodeCreated(node) {
    if (kindOf(node) in CHOOSERS) adopt(node);
  },
  getNodeMenuItems(node) {
    const items = menuItems(node);
    return items.length ? [...items, null] : [];
  },
  async setup() {
    refreshBeforeQueueing();
    whenTouched().then(refreshAll);
    window.addEventListener("focus", () => isReady() && refreshAll());
    document.addEventListener("visibilitychange", () => !document.hidden && isReady() && refreshAll());
  },
  // The editor has read the definitions anew (key R): so are the lists.
  async refreshComboInNodes() {
    if (isReady()) await refreshAll();
  },
  async afterConfigureGraph() {
    for (const node of runners()) notePorts(node);
  },
});
