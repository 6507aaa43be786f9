"""The names under which packages import this package's modules; see ``embedded/import_names.py``."""

from __future__ import annotations

# Name packages use -> module of the embedded server. A name comes before those below it.
NAMES = {
    "comfy_api": "node_api.root",
    "comfy_api.latest": "node_api.latest",
    "comfy_api.latest._io": "node_api.io",
    "comfy_api.latest._io_public": "node_api.io",
    "comfy_api.latest._ui": "node_api.ui",
    "comfy_api.latest._ui_public": "node_api.ui",
    "comfy_api.latest._input": "node_api.values",
    "comfy_api.latest._input.basic_types": "node_api.values",
    "comfy_api.latest._input.video_types": "node_api.video",
    "comfy_api.latest._input.curve_types": "node_api.curves",
    "comfy_api.latest._input.range_types": "node_api.ranges",
    "comfy_api.latest._input_impl": "node_api.values",
    "comfy_api.latest._input_impl.video_types": "node_api.video",
    "comfy_api.latest._util": "node_api.values",
    "comfy_api.latest._util.video_types": "node_api.video",
    "comfy_api.latest._util.geometry_types": "node_api.geometry",
    "comfy_api.latest._util.image_types": "node_api.geometry",
    "comfy_api.v0_0_2": "node_api.v0_0_2",
    "comfy_api.v0_0_1": "node_api.v0_0_1",
    "comfy_api.version_list": "node_api.version_list",
    "comfy_api.input": "node_api.values",
    "comfy_api.input.basic_types": "node_api.values",
    "comfy_api.input.video_types": "node_api.video",
    "comfy_api.input_impl": "node_api.values",
    "comfy_api.input_impl.video_types": "node_api.video",
    "comfy_api.util": "node_api.values",
    "comfy_api.util.video_types": "node_api.video",
    "comfy_api.feature_flags": "node_api.feature_flags",
    "comfy_api.internal": "node_api.internal",
    "comfy_api.internal.api_registry": "node_api.api_registry",
    "comfy_api.internal.async_to_sync": "node_api.sync_api",
    "comfy_api.internal.singleton": "node_api.singleton",
}
