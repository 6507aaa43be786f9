// The ports of workflows as sockets of a node: inputs "in:<port>" with the port as label, outputs by its name. What the
// sockets are stands in the node's hidden widget "ports", which tells the server which output is which port.

export const PREFIX = "in:";
const WIDGET = "ports";
const OPTIONAL_SHAPE = 7; // LiteGraph's hollow circle

/** The ports that a node has sockets for, in their order. */
export function portsOf(node) {
  return {
    inputs: portInputs(node).map((socket) => ({ name: nameOf(socket), type: String(socket.type) })),
    outputs: (node.outputs ?? []).map((socket) => ({ name: socket.name, type: String(socket.type) })),
  };
}

function portInputs(node) {
  return (node.inputs ?? []).filter((socket) => socket.name.startsWith(PREFIX));
}

/** The port of a socket. */
export function nameOf(socket) {
  return socket.name.startsWith(PREFIX) ? socket.name.slice(PREFIX.length) : socket.name;
}

export function isWired(socket) {
  return (socket.link ?? null) !== null || (socket.links?.length ?? 0) > 0;
}

/**
 * Give a node the sockets of these ports. Wires stay, by the port's name; a socket of a port that is no more stays while
 * it has a wire. Only what differs is touched, so a workflow whose ports are as saved is as saved.
 * @param {{inputs: {unique_id: string, type: string, required?: boolean}[], outputs: {unique_id: string, type: string}[]}} ports
 * @returns {object[]} the sockets without a port
 */
export function adjustSockets(node, ports) {
  const stale = [
    ...removeUnwired(node, "inputs", new Set(ports.inputs.map((port) => PREFIX + port.unique_id))),
    ...removeUnwired(node, "outputs", new Set(ports.outputs.map((port) => port.unique_id))),
  ];
  for (const port of ports.inputs) {
    const shape = port.required === false ? OPTIONAL_SHAPE : undefined;
    const found = node.inputs?.find((socket) => socket.name === PREFIX + port.unique_id);
    if (!found) node.addInput(PREFIX + port.unique_id, port.type, { label: port.unique_id, shape });
    else if (found.type !== port.type) found.type = port.type;
  }
  for (const port of ports.outputs) {
    const found = node.outputs?.find((socket) => socket.name === port.unique_id);
    if (!found) node.addOutput(port.unique_id, port.type);
    else if (found.type !== port.type) found.type = port.type;
  }
  notePorts(node);
  return stale;
}

/** Remove the sockets that no port stands for, but those with a wire, which are returned. */
function removeUnwired(node, side, names) {
  const stale = [];
  for (let index = (node[side]?.length ?? 0) - 1; index >= 0; index--) {
    const socket = node[side][index];
    if (names.has(socket.name) || (side === "inputs" && !socket.name.startsWith(PREFIX))) continue;
    if (isWired(socket)) stale.unshift(socket);
    else if (side === "inputs") node.removeInput(index);
    else node.removeOutput(index);
  }
  return stale;
}

/** Keep the hidden widget in step with the sockets. */
export function notePorts(node) {
  const widget = node.widgets?.find((one) => one.name === WIDGET);
  if (!widget) return;
  const ports = portsOf(node);
  const value = ports.inputs.length || ports.outputs.length ? JSON.stringify(ports) : "";
  if (widget.value !== value) widget.value = value;
}

/**
 * What the editor is to know of a runner's sockets: none but the widgets', before the ports are known. The widget "ports"
 * is never shown.
 */
export function prepareDefinition(definition) {
  for (const group of [definition.input?.required, definition.input?.optional]) {
    if (!group?.[WIDGET]) continue;
    const [type, options] = group[WIDGET];
    group[WIDGET] = [type, { ...options, hidden: true, socketless: true }];
  }
  for (const key of ["output", "output_name", "output_is_list", "output_tooltips"])
    if (Array.isArray(definition[key])) definition[key] = [];
}

/** The widget "ports" takes no room, also where the editor knows no hidden widgets. */
export function hidePorts(node) {
  const widget = node.widgets?.find((one) => one.name === WIDGET);
  if (!widget) return;
  widget.hidden = true;
  widget.options = Object.assign(widget.options ?? {}, { hidden: true, canvasOnly: true });
  widget.computeSize = () => [0, -4];
  const socket = node.inputs?.findIndex((one) => one.widget?.name === WIDGET) ?? -1;
  if (socket >= 0) node.removeInput(socket);
}
