// The settings of this pack, in the editor's settings dialog under "Discomfort". The server reads them from the user's
// settings file; they are never part of a workflow.
import { app } from "../../scripts/app.js";
import { loadTexts } from "./shared/texts.js";

app.registerExtension({
  name: "Discomfort.Settings",
  settings: [
    {
      id: "Discomfort.ImageDescriber.ApiKey",
      category: ["Discomfort", "Image Describer", "ApiKey"],
      name: "API key",
      tooltip:
        "Used where no environment variable holds it: a key for OpenAI, or NAME=key for others, separated by commas. It " +
        "is kept in your settings file on the server, which other users of that server may read; never in workflows.",
      type: "text",
      attrs: { type: "password", autocomplete: "off" },
      defaultValue: "",
    },
    {
      id: "Discomfort.ImageDescriber.Endpoints",
      category: ["Discomfort", "Image Describer", "Endpoints"],
      name: "Allowed addresses",
      tooltip:
        "Where pictures may be sent beside OpenAI and this machine: https://host for no key, https://host=NAME for the " +
        "key of that name, separated by commas.",
      type: "text",
      defaultValue: "",
    },
    {
      id: "Discomfort.Server.IdleMinutes",
      category: ["Discomfort", "Server", "IdleMinutes"],
      name: "Minutes that the nested server is kept for the next run",
      tooltip: "Runner nodes start a ComfyUI of their own. It ends when it was idle for so long; 0: when this one ends.",
      type: "number",
      attrs: { min: 0, max: 1440, step: 1 },
      defaultValue: 10,
    },
  ],
  async init() {
    await loadTexts();
  },
});
