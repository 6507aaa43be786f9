/**
 * Workflows of a run in the editor itself: opened in a tab of their own, with a node chosen and in the middle.
 */

import { app } from "../../../scripts/app.js"
import { rootGraph } from "../nodes/port_graph.js"

// Keys that some writers set to null where there is nothing: the editor's validation complains of that.
const LEFT_OUT = new Set(["slot_index", "showAdvanced"])

/** A copy: the editor keeps what it is given, and changes it. */
function copyOf(workflow) {
  return JSON.parse(JSON.stringify(workflow, (key, value) => (value === null && LEFT_OUT.has(key) ? undefined : value)))
}

/**
 * Open a workflow in a new tab.
 * @param {boolean} isWhole bring all of it into view; not where a node of it is shown next: the editor does it later
 */
export async function openWorkflow(workflow, name, isWhole = true) {
  const title = name.replace(/\.json$/i, "").replace(/[\\/:*?"<>|]+/g, "-")
  await app.loadGraphData(copyOf(workflow), true, isWhole, title)
  if (isWhole) await app.extensionManager.command.execute("Comfy.Canvas.FitView")
}

/**
 * Choose a node of the workflow that is open, and bring it to the middle.
 * @param {string|number} id as ComfyUI's messages name it: of a node inside a subgraph ("57:35") the outermost is shown
 * @param {string|null} classType what it must be: another workflow may have the same id
 * @returns {boolean} whether there is such a node
 */
export function showNode(id, classType = null) {
  const outermost = String(id).split(":")[0]
  const graph = rootGraph()
  const node = graph.getNodeById(outermost) ?? graph.getNodeById(Number(outermost))
  if (!node || (classType !== null && !String(id).includes(":") && node.type !== classType)) return false
  if (app.canvas.graph !== graph) app.canvas.setGraph(graph)
  app.canvas.deselectAll()
  app.canvas.selectNode(node)
  app.canvas.centerOnNode(node)
  app.canvas.setDirty(true, true)
  return true
}

/** A message in the editor's own manner. */
export function tell(severity, summary, detail) {
  app.extensionManager.toast.add({ severity, summary, detail, life: severity === "error" ? 10000 : 6000 })
}
