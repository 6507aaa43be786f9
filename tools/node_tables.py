"""The tables of docs/reference/embedded-server.md about nodes: which there are, since when, and why others are not.

tools/write_reference.py writes them. The nodes of a ComfyUI are recorded from its answer to GET /object_info, when it
was started with --disable-api-nodes --disable-all-custom-nodes:

    ./dev run python tools/node_tables.py 0.33.0 object_info.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

from discomfort.embedded.core_nodes import NODE_CLASS_MAPPINGS

# Of each version that was recorded: category -> node -> the types of its inputs and outputs, without plain values.
NODE_NAMES = Path(__file__).resolve().parent.parent / "tests" / "data" / "node_names.json"

BASELINE, LATER = "0.3.64", "0.33.0"

# The families of the table, and the modules of embedded/core_nodes/ their nodes are in. Modules that are not named
# are a family of their own.
FAMILIES = {
    "image": ("image", "picture_lists", "tiles", "resize_image_mask"),
    "files": ("image_io", "save_image_advanced", "animation", "datasets", "svg", "latent_io", "painter"),
    "filters": ("post_processing", "morphology", "yuv", "canny", "color_transfer"),
    "compositing": ("compositing",),
    "boxes": ("boxes", "crop_to_mask"),
    "mask": ("mask",),
    "latent": ("latent", "latent_batch"),
    "empty latents": ("empty_latents",),
    "batches": ("batches",),
    "primitive, numbers": ("primitive", "numbers"),
    "logic": ("logic",),
    "text": ("text", "text_json", "text_lists", "save_text", "text_format", "text_overlay"),
    "preview": ("preview",),
}

# Where ComfyUI's editor lists the nodes of these families: the first part of the category, or the first two; and a node
# of theirs that it lists elsewhere.
OWN_CATEGORIES = {"image", "mask", "latent", "model/latent", "text", "utils", "utilities"}
LISTED_ELSEWHERE = {"LoadImageTextSetFromFolderNode"}

# Why a node of these families is not there, and how that is seen: types of its inputs and outputs, or its name. The
# first reason that fits counts.
MODEL_TYPES = {
    *("MODEL", "CLIP", "VAE", "CLIP_VISION", "CLIP_VISION_OUTPUT", "CONDITIONING", "CONTROL_NET", "STYLE_MODEL"),
    *("GLIGEN", "UPSCALE_MODEL", "LATENT_UPSCALE_MODEL", "PHOTOMAKER", "LORA_MODEL", "BACKGROUND_REMOVAL", "NOISE"),
    *("MOGE_MODEL", "MOGE_GEOMETRY", "DA3_MODEL", "DA3_GEOMETRY", "FACE_DETECTION_MODEL", "FACE_LANDMARKS"),
    *("POSE_KEYPOINT", "SAM3_TRACK_DATA", "AUDIO_ENCODER", "SAMPLER", "SIGMAS", "GUIDER", "SPLAT", "OPTICAL_FLOW"),
}
REASONS: dict[str, tuple[set[str], set[str]]] = {
    "needs a model, or what only a model gives": (MODEL_TYPES, {"wanBlockSwap"}),
    "video": ({"VIDEO"}, {"SaveWEBM"}),
    "audio": ({"AUDIO"}, set()),
    "needs PyAV, which encodes": (set(), {"LTXVPreprocess"}),
    "shaders": (set(), {"GLSLShader"}),
    "only before and after one model": (
        set(),
        {
            *("SeedVR2Preprocess", "SeedVR2PostProcessing", "SeedVR2TemporalChunk", "SeedVR2TemporalMerge"),
            *("LTXVConcatAVLatent", "LTXVSeparateAVLatent", "BuildJsonPromptIdeogram"),
            "EmptyMiniMaxH3LatentAV",
        },
    ),
    "widgets of later editors": ({"LAYERS"}, {"CreateBoundingBoxes", "CurveEditor"}),
}
OTHER_REASON = "not made"

# Types of plain values, which say nothing about what a node is for.
PLAIN_TYPES = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}


class RecordedNode(NamedTuple):
    """A node of a real ComfyUI."""

    version: str
    category: str
    types: frozenset[str]

    @property
    def is_of_these_families(self) -> bool:
        """Whether the editor lists it where it lists the nodes of the families above."""
        parts = self.category.split("/")
        return parts[0] in OWN_CATEGORIES or "/".join(parts[:2]) in OWN_CATEGORIES


def recorded_nodes() -> dict[str, RecordedNode]:
    """Every node of both versions; of one that is in both, the older one's."""
    found = {}
    names = json.loads(NODE_NAMES.read_text(encoding="utf-8"))
    for version in (LATER, BASELINE):
        for category, nodes in names[version].items():
            for name, types in nodes.items():
                found[name] = RecordedNode(version, category, frozenset(types.split()))
    return found


def record(version: str, object_info: dict[str, Any]) -> None:
    """Write the nodes of a version into ``NODE_NAMES``.

    Args:
        object_info: what it answers to GET /object_info.
    """
    recorded = json.loads(NODE_NAMES.read_text(encoding="utf-8"))
    categories: dict[str, dict[str, str]] = {}
    for name, info in object_info.items():
        inputs = [spec[0] for kind in ("required", "optional") for spec in info["input"].get(kind, {}).values()]
        # Where a choice has no type, there is the list of its options.
        named = [kind for kind in (*inputs, *info["output"]) if isinstance(kind, str)]
        types = {part.strip() for kind in named for part in kind.split(",")} - PLAIN_TYPES
        categories.setdefault(info["category"], {})[name] = " ".join(sorted(types))
    recorded[version] = {category: dict(sorted(nodes.items())) for category, nodes in sorted(categories.items())}
    text = json.dumps(recorded, indent=1, ensure_ascii=False)
    NODE_NAMES.write_text(text + "\n", encoding="utf-8")


def why_missing(name: str, node: RecordedNode) -> str:
    """The reason why a node of these families is not there."""
    fits = (why for why, (types, names) in REASONS.items() if node.types & types or name in names)
    return next(fits, OTHER_REASON)


def count_of_nodes() -> str:
    """The sentence above the tables."""
    recorded = recorded_nodes()
    counts = dict.fromkeys((BASELINE, LATER), 0)
    for name in NODE_CLASS_MAPPINGS:
        counts[recorded[name].version] += 1
    return (
        f"There are {len(NODE_CLASS_MAPPINGS)} of the core nodes: {counts[BASELINE]} with the definition they have in "
        f"ComfyUI {BASELINE}, and {counts[LATER]} that later versions added, with the one of {LATER}."
    )


def node_table() -> str:
    """Per family the nodes there are, apart by the version whose definition they have."""
    recorded = recorded_nodes()
    families = {module: family for family, modules in FAMILIES.items() for module in modules}
    rows: dict[str, dict[str, list[str]]] = {family: {BASELINE: [], LATER: []} for family in FAMILIES}
    for name, node_class in NODE_CLASS_MAPPINGS.items():
        module = node_class.__module__.rpartition(".")[2]
        row = rows.setdefault(families.get(module, module), {BASELINE: [], LATER: []})
        row[recorded[name].version].append(name)
    cells = [
        [family, *(", ".join(sorted(names, key=str.lower)) for names in row.values())]
        for family, row in rows.items()
        if any(row.values())
    ]
    return count_of_nodes() + "\n\n" + table(["family", f"as in {BASELINE}", f"as in {LATER}"], cells)


def missing_table() -> str:
    """The nodes of the same families that are not there, by reason, and how many of others there are."""
    rows: dict[str, dict[str, list[str]]] = {}
    others = 0
    for name, node in recorded_nodes().items():
        if name in NODE_CLASS_MAPPINGS:
            continue
        if not node.is_of_these_families and name not in LISTED_ELSEWHERE:
            others += 1
            continue
        rows.setdefault(why_missing(name, node), {BASELINE: [], LATER: []})[node.version].append(name)
    order = [*REASONS, OTHER_REASON]
    cells = [
        [why, *(", ".join(sorted(names, key=str.lower)) for names in rows[why].values())]
        for why in sorted(rows, key=order.index)
    ]
    sentence = f"The other {others} nodes of both versions load, feed or train models, or are for sound, video or 3D."
    return table(["why not here", f"in {BASELINE}", f"added by {LATER}"], cells) + "\n\n" + sentence


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


if __name__ == "__main__":
    record(sys.argv[1], json.loads(Path(sys.argv[2]).read_text(encoding="utf-8")))
