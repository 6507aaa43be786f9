// What the editor shows when there is nothing else to show: a workflow that runs on this server. The editor's own
// default needs models; it stays where a package brought the nodes for it. (Templates: embedded/templates.)
import { app } from "../../scripts/app.js";

app.registerExtension({
  name: "discomfort.embedded.firstWorkflow",
  // Called when the nodes are known, before the first workflow is shown.
  async setup() {
    const defaultGraph = window.comfyAPI?.defaultGraph?.defaultGraph;
    const runsHere = (node) => node.type in LiteGraph.registered_node_types;
    if (!defaultGraph?.nodes || defaultGraph.nodes.every(runsHere)) return;
    const answer = await fetch(new URL("../../templates/sunset.json", import.meta.url));
    if (!answer.ok) return;
    for (const key of Object.keys(defaultGraph)) delete defaultGraph[key];
    Object.assign(defaultGraph, await answer.json());
  },
});
