/**
 * The Discomfort tab of the editor's sidebar: the runs on this machine, live.
 *
 * The first thing that is asked of the server is asked when somebody touches the page, and tells it that an editor is
 * open, which scripts look for. The page is also loaded where there is nobody, and no such server.
 */

import { api } from "../../../scripts/api.js"
import { app } from "../../../scripts/app.js"
import { whenTouched } from "../shared/routes.js"
import { Panel } from "./panel.js"
import { Routes } from "./routes.js"
import { Watch } from "./watch.js"

const TAB = "discomfort"
const WAS_OPEN = "discomfort.sidebar.open"

let panel = null

function addStyle() {
  const href = new URL("./style.css", import.meta.url).href
  if (document.querySelector(`link[href="${href}"]`)) return
  const link = document.createElement("link")
  link.rel = "stylesheet"
  link.href = href
  document.head.append(link)
}

function open(watch, routes, element) {
  // The editor calls this again for the same place when it draws its sidebar anew.
  if (panel?.element.parentElement === element) return
  panel?.close()
  panel = new Panel(watch, routes)
  element.replaceChildren(panel.element)
  element.style.height = "100%"
  sessionStorage.setItem(WAS_OPEN, "yes")
  watch.open()
}

function close(watch) {
  watch.close()
  panel?.close()
  panel?.element.remove()
  panel = null
  sessionStorage.removeItem(WAS_OPEN)
}

/** How many runs live, beside the tab's button; a sign instead where one of them waits for somebody. */
function showBadge({ count, paused }) {
  const tab = app.extensionManager.getSidebarTabs().find((one) => one.id === TAB)
  const badge = paused ? "❚❚" : count ? String(count) : ""
  if (tab && tab.iconBadge !== badge) tab.iconBadge = badge
}

function setup() {
  addStyle()
  const routes = new Routes(api)
  const watch = new Watch(routes)
  watch.onLive = showBadge
  api.addEventListener("discomfort.run", (event) => watch.hearRun(event.detail))
  api.addEventListener("discomfort.runs", () => watch.hearRuns())
  api.addEventListener("discomfort.settings", (event) => watch.hearSettings(event.detail))
  api.addEventListener("reconnected", () => watch.hearReconnected())
  app.extensionManager.registerSidebarTab({
    id: TAB,
    icon: "pi pi-sync",
    iconBadge: "",
    title: "Discomfort",
    tooltip: "Discomfort: runs on this machine",
    type: "custom",
    render: (element) => open(watch, routes, element),
    destroy: () => close(watch),
  })
  whenTouched().then(() => watch.isOpen || watch.askState())
  if (sessionStorage.getItem(WAS_OPEN)) app.extensionManager.sidebarTab.activeSidebarTabId = TAB
}

app.registerExtension({
  name: "Discomfort.Sidebar",
  commands: [
    {
      id: "Discomfort.ShowRuns",
      label: "Discomfort: show or hide the runs",
      icon: "pi pi-sync",
      function: () => app.extensionManager.sidebarTab.toggleSidebarTab(TAB),
    },
  ],
  keybindings: [{ combo: { key: "d" }, commandId: "Discomfort.ShowRuns" }],
  menuCommands: [{ path: ["View"], commands: ["Discomfort.ShowRuns"] }],
  setup,
})
