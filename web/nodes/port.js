// DiscomfortPort in the editor: title and colour say what its wires make of it, and what is wrong with its name is said
// on the node.
import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";
import { text } from "../shared/texts.js";
import { allowMarks, colourSockets, mark } from "../shared/marks.js";
import { allGraphs, describePort, findHosts, PORT, rootGraph } from "./port_graph.js";

let isDue = false;

/** Look at all ports again, once, after what goes on now is over. */
function review() {
  if (isDue) return;
  isDue = true;
  queueMicrotask(() => {
    isDue = false;
    reviewNow();
  });
}

function reviewNow() {
  const root = rootGraph();
  if (!root) return;
  const hosts = findHosts(root);
  const ports = allGraphs(root)
    .flatMap((graph) => graph._nodes ?? [])
    .filter((node) => node.type === PORT)
    .map((node) => ({ node, ...describePort(node, hosts) }));
  for (const port of ports) show(port, ports, hosts);
}

function show(port, ports, hosts) {
  const namesakes = ports.filter((other) => other !== port && other.name === port.name && port.name !== "");
  mark(port.node, {
    title: hasOwnTitle(port.node) ? undefined : titleOf(port, namesakes),
    tone: port.mode === "alone" ? undefined : port.mode,
    problem: problemOf(port, namesakes, hosts),
  });
  const colour = port.type === "*" ? undefined : app.canvas?.default_connection_color_byType?.[port.type];
  const data = port.node.inputs?.find((input) => input.name === "input_data");
  const sockets = [data, port.node.outputs?.[0]].filter((socket) => socket?.type === "*");
  colourSockets(port.node, new Map(colour ? sockets.map((socket) => [socket, colour]) : []));
}

/** Whether the user has named the node. */
function hasOwnTitle(node) {
  return Boolean(node.title) && node.title !== node.constructor.title && node.title !== "Discomfort Port";
}

function titleOf(port, namesakes) {
  const name = port.name || "?";
  // The same name in and out: a loop hands the value on to its next round.
  const other = { input: "output", output: "input" }[port.mode];
  const sign = other && namesakes.some((namesake) => namesake.mode === other) ? " ↻" : "";
  if (port.mode === "input") return text("port.in", "IN {name}", { name }) + sign;
  if (port.mode === "output") return text("port.out", "OUT {name}", { name }) + sign;
  if (port.mode === "passing") return text("port.through", "THROUGH {name}", { name });
  return port.name ? text("port.alone", "PORT {name}", { name }) : undefined;
}

function problemOf(port, namesakes, hosts) {
  if (port.isNameWired) return undefined;
  if (port.name === "")
    // A new port says nothing before it is wired.
    return port.mode === "alone" ? undefined : text("port.noName", "This port has no name: type one into unique_id.");
  if (port.mode !== "output") return undefined;
  if (namesakes.some((other) => other.mode === "output"))
    return text("port.twice", "Two OUTPUT ports are called '{name}': every output needs a name of its own.", {
      name: port.name,
    });
  if ((hosts.get(port.node.graph) ?? []).length > 1)
    return text("port.twiceInside", "This subgraph is used more than once, so OUTPUT '{name}' would be, too.", {
      name: port.name,
    });
  return undefined;
}

function watch(nodeType) {
  const prototype = nodeType.prototype;
  for (const name of ["onConnectionsChange", "onAdded", "onRemoved", "onConfigure", "onWidgetChanged"]) {
    const before = prototype[name];
    prototype[name] = function (...rest) {
      const result = before?.apply(this, rest);
      review();
      return result;
    };
  }
}

app.registerExtension({
  name: "Discomfort.Port",
  async beforeRegisterNodeDef(nodeType, nodeData) {
    if (nodeData.name !== PORT) return;
    allowMarks(nodeType);
    watch(nodeType);
  },
  async nodeCreated(node) {
    if (node.comfyClass !== PORT && node.constructor.comfyClass !== PORT) return;
    const widget = node.widgets?.find((one) => one.name === "unique_id");
    if (!widget) return;
    const callback = widget.callback;
    widget.callback = function (...rest) {
      const result = callback?.apply(this, rest);
      review();
      return result;
    };
  },
  async setup() {
    // What happens elsewhere in the graph: links behind a Reroute or in another subgraph, muted nodes, undo.
    api.addEventListener("graphChanged", review);
    app.canvas?.canvas?.addEventListener?.("litegraph:set-graph", review);
  },
  async afterConfigureGraph() {
    review();
  },
});
