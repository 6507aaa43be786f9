"""Helper of the examples that need a model: which files the server has for it."""

from __future__ import annotations

from discomfort import Discomfort


async def find_model(d: Discomfort, node: str, widget: str, folder: str, wanted: str | None = None) -> str:
    """The name of a model file, as the menu of a loader node offers it: the wanted one, or else the first.

    Ends the script with one sentence where there is none.
    """
    nodes = await d.Worker.object_info()
    menu = nodes.get(node, {}).get("input", {}).get("required", {}).get(widget, [[]])
    # Old nodes: [[name, ...], {}]. New ones: ["COMBO", {"options": [name, ...]}].
    offered = menu[1]["options"] if menu[0] == "COMBO" else menu[0]
    if not offered:
        raise SystemExit(
            f"{d.Worker.server_description}, has no model for this: put one into {folder} of your ComfyUI, "
            "and name that ComfyUI in the environment variable COMFYUI_PATH."
        )
    if wanted is not None and wanted not in offered:
        raise SystemExit(f"{wanted} is not in {folder}; there are: {', '.join(offered)}.")
    return wanted or str(offered[0])
