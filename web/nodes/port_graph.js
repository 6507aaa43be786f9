// What the wires of a graph say about its ports, through subgraphs, Reroutes and bypassed nodes. Reads only.
import { app } from "../../../scripts/app.js";

const SUBGRAPH_INPUT = -10;
const SUBGRAPH_OUTPUT = -20;
const MUTED = 2;
const BYPASSED = 4;

export const PORT = "DiscomfortPort";

/** The workflow's own graph, not the subgraph that may be shown; undefined before there is one. */
export function rootGraph() {
  // The editor complains when app.graph is asked for too early; the canvas is not there by then.
  const shown = app.canvas?.graph;
  return shown?.rootGraph ?? shown ?? undefined;
}

/** A workflow's own graph and those of its subgraphs. */
export function allGraphs(root) {
  return [root, ...(root?.subgraphs?.values?.() ?? [])].filter(Boolean);
}

/** A map: graph of a subgraph -> the nodes that stand for it. */
export function findHosts(root) {
  const hosts = new Map();
  for (const graph of allGraphs(root))
    for (const node of graph._nodes ?? [])
      if (node.subgraph) hosts.set(node.subgraph, [...(hosts.get(node.subgraph) ?? []), node]);
  return hosts;
}

function findLink(graph, id) {
  if (id === null || id === undefined) return undefined;
  return graph?.getLink?.(id) ?? graph?.links?.get?.(id) ?? graph?._links?.get?.(id);
}

function linksOf(graph, ids) {
  return [...(ids ?? [])].map((id) => findLink(graph, id)).filter(Boolean);
}

/** The slots on the other side that a bypassed node or a Reroute passes values to or from. */
function passedSlots(node, slot, side) {
  if (node.type === "Reroute") return [0];
  const [here, there] = side === "inputs" ? [node.outputs, node.inputs] : [node.inputs, node.outputs];
  const type = here?.[slot]?.type;
  const fitting = (there ?? []).map((_, index) => index).filter((index) => there[index].type === type);
  return fitting.includes(slot) ? [slot] : fitting.slice(0, side === "inputs" ? 1 : undefined);
}

/**
 * Where a value that arrives at an input comes from.
 * @returns {{node: object, slot: number} | null} null where nothing arrives
 */
export function findOrigin(node, slot, hosts, seen = new Set()) {
  const link = findLink(node.graph, node.inputs?.[slot]?.link);
  return link ? followBack(node.graph, link, hosts, seen) : null;
}

function followBack(graph, link, hosts, seen) {
  if (seen.has(link)) return null;
  seen.add(link);
  if (Number(link.origin_id) === SUBGRAPH_INPUT) {
    for (const host of hosts.get(graph) ?? []) {
      const found = findOrigin(host, link.origin_slot, hosts, seen);
      if (found) return found;
    }
    return null;
  }
  const node = graph.getNodeById(link.origin_id);
  if (!node || node.mode === MUTED) return null;
  if (node.mode === BYPASSED || node.type === "Reroute") {
    for (const slot of passedSlots(node, link.origin_slot, "inputs")) {
      const found = findOrigin(node, slot, hosts, seen);
      if (found) return found;
    }
    return null;
  }
  if (!node.subgraph) return { node, slot: link.origin_slot };
  const [inner] = linksOf(node.subgraph, node.subgraph.outputs?.[link.origin_slot]?.linkIds);
  return inner ? followBack(node.subgraph, inner, hosts, seen) : null;
}

/**
 * The inputs that a value which leaves an output arrives at.
 * @returns {{node: object, slot: number}[]}
 */
export function findReaders(node, slot, hosts, seen = new Set()) {
  return linksOf(node.graph, node.outputs?.[slot]?.links).flatMap((link) => follow(node.graph, link, hosts, seen));
}

function follow(graph, link, hosts, seen) {
  if (seen.has(link)) return [];
  seen.add(link);
  if (Number(link.target_id) === SUBGRAPH_OUTPUT)
    return (hosts.get(graph) ?? []).flatMap((host) => findReaders(host, link.target_slot, hosts, seen));
  const node = graph.getNodeById(link.target_id);
  if (!node || node.mode === MUTED) return [];
  if (node.mode === BYPASSED || node.type === "Reroute")
    return passedSlots(node, link.target_slot, "outputs").flatMap((slot) => findReaders(node, slot, hosts, seen));
  if (!node.subgraph) return [{ node, slot: link.target_slot }];
  return linksOf(node.subgraph, node.subgraph.inputs?.[link.target_slot]?.linkIds).flatMap((inner) =>
    follow(node.subgraph, inner, hosts, seen),
  );
}

/** Name, mode ("input", "output", "passing", "alone") and type of value of a port. */
export function describePort(port, hosts) {
  const dataSlot = port.inputs?.findIndex((input) => input.name === "input_data") ?? -1;
  const origin = dataSlot < 0 ? null : findOrigin(port, dataSlot, hosts);
  const readers = findReaders(port, 0, hosts);
  const nameSocket = port.inputs?.find((input) => input.name === "unique_id");
  return {
    name: String(port.widgets?.find((widget) => widget.name === "unique_id")?.value ?? "").trim(),
    // Set from outside: by a primitive, or by the subgraph's own widget.
    isNameWired: (nameSocket?.link ?? null) !== null,
    mode: origin ? (readers.length ? "passing" : "output") : readers.length ? "input" : "alone",
    type: typeOf(origin, readers),
  };
}

function typeOf(origin, readers) {
  const types = [
    origin?.node.outputs?.[origin.slot]?.type,
    ...readers.map((reader) => reader.node.inputs?.[reader.slot]?.type),
  ];
  return types.find((type) => typeof type === "string" && type !== "*" && !type.includes(",")) ?? "*";
}
