"""Nodes that do one thing each."""

from __future__ import annotations

import asyncio
import json
from typing import Any, ClassVar

import torch
from comfy_api.latest import ComfyAPI, ComfyAPISync, io, ui
from comfy_execution.graph_utils import ExecutionBlocker, GraphBuilder

api = ComfyAPI()
api_sync = ComfyAPISync()

CATEGORY = "tiny/v3"


def schema(node_id: str, inputs: list[Any], outputs: list[Any], **more: Any) -> io.Schema:
    """A schema in the category of this package."""
    return io.Schema(node_id=node_id, category=CATEGORY, inputs=inputs, outputs=outputs, **more)


class V3Add(io.ComfyNode):
    """The sum of two numbers in a range."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs = [io.Int.Input("a", default=1, min=0, max=100), io.Int.Input("b", default=2, optional=True)]
        return schema("V3Add", inputs, [io.Int.Output("sum")], display_name="Add (V3)")

    @classmethod
    def execute(cls, a: int, b: int = 10) -> io.NodeOutput:
        return io.NodeOutput(a + b)


class V3Return(io.ComfyNode):
    """Returns its result in one of all ways."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        ways = ["output", "tuple", "dict", "dict blocker", "blocker", "blocked", "blocked values", "none", "int", "ui"]
        inputs = [io.Combo.Input("how", options=ways)]
        return schema("V3Return", inputs, [io.Int.Output(), io.String.Output()])

    @classmethod
    def execute(cls, how: str) -> Any:
        return {
            "output": io.NodeOutput(1, "one"),
            "tuple": (2, "two"),
            "dict": {"result": (3, "three"), "ui": {"values": ["dict"]}},
            "dict blocker": {"result": ExecutionBlocker("dict blocked")},
            "blocker": ExecutionBlocker("blocked by itself"),
            "blocked": io.NodeOutput(block_execution="blocked without values"),
            "blocked values": io.NodeOutput(4, "four", block_execution="blocked with values"),
            "none": None,
            "int": 5,
            "ui": io.NodeOutput(6, "six", ui={"values": ["ui"]}),
        }[how]


class V3Hidden(io.ComfyNode):
    """Shows what it is told."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        hidden = [io.Hidden.unique_id, io.Hidden.dynprompt, io.Hidden.auth_token_comfy_org]
        return schema("V3Hidden", [], [io.String.Output()], hidden=hidden, is_output_node=True)

    @classmethod
    def execute(cls) -> io.NodeOutput:
        told = {
            "name": cls.__name__,
            "unique_id": cls.hidden.unique_id,
            "prompt": sorted(cls.hidden.prompt),
            "extra_pnginfo": cls.hidden.extra_pnginfo,
            "dynprompt": cls.hidden.dynprompt.get_node(cls.hidden.unique_id)["class_type"],
            "token": cls.hidden.auth_token_comfy_org,
            "key": cls.hidden.api_key_comfy_org,
            "nothing": cls.hidden.nothing,
        }
        return io.NodeOutput(json.dumps(told), ui={"values": [told]})


class V3Locked(io.ComfyNode):
    """Tries to keep something from one call to the next."""

    calls = 0

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema("V3Locked", [io.Combo.Input("where", options=["class", "instance", "list"])], [io.Int.Output()])

    @classmethod
    def execute(cls, where: str) -> io.NodeOutput:
        if where == "class":
            cls.calls = 1
        if where == "instance":
            cls().calls = 1
        return io.NodeOutput(cls.calls)


class V3Validate(io.ComfyNode):
    """Accepts even numbers; the range is left to itself."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema("V3Validate", [io.Int.Input("a", min=0, max=10), io.Int.Input("b", max=5)], [io.Int.Output()])

    @classmethod
    def validate_inputs(cls, a: int | None) -> bool | str:
        return True if a is None or a % 2 == 0 else f"{a} is odd"

    @classmethod
    def execute(cls, a: int, b: int) -> io.NodeOutput:
        return io.NodeOutput(a + b)


class V3ValidateAll(io.ComfyNode):
    """Refuses by the types of what is linked."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs = [io.Int.Input("a"), io.String.Input("text", optional=True)]
        return schema("V3ValidateAll", inputs, [io.String.Output()])

    @classmethod
    def validate_inputs(cls, input_types: dict[str, Any], **others: Any) -> bool | str:
        return True if input_types.get("a", "INT") in ("INT", "FLOAT") else "no number"

    @classmethod
    def execute(cls, a: Any, text: str = "") -> io.NodeOutput:
        return io.NodeOutput(f"{a}{text}")


class V3Fingerprint(io.ComfyNode):
    """Runs again as it says."""

    runs: ClassVar[list[int]] = [0]

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema("V3Fingerprint", [io.String.Input("how")], [io.Int.Output()])

    @classmethod
    def fingerprint_inputs(cls, how: str) -> Any:
        if how == "raise":
            raise ValueError("no fingerprint")
        return float("nan") if how == "nan" else how

    @classmethod
    def execute(cls, how: str) -> io.NodeOutput:
        cls.runs[0] += 1
        return io.NodeOutput(cls.runs[0])


class V3Lazy(io.ComfyNode):
    """Needs one of two."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs = [io.Boolean.Input("second"), *(io.AnyType.Input(name, lazy=True) for name in ("a", "b"))]
        return schema("V3Lazy", inputs, [io.AnyType.Output()])

    @classmethod
    def check_lazy_status(cls, second: bool, a: Any = None, b: Any = None) -> list[str]:
        return [name for name, value in (("b", b) if second else ("a", a),) if value is None]

    @classmethod
    def execute(cls, second: bool, a: Any = None, b: Any = None) -> io.NodeOutput:
        return io.NodeOutput(b if second else a)


class V3Expand(io.ComfyNode):
    """Adds 1 ``n`` times, by nodes."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema("V3Expand", [io.Int.Input("n")], [io.Int.Output()], enable_expand=True)

    @classmethod
    def execute(cls, n: int) -> io.NodeOutput:
        graph = GraphBuilder()
        last: Any = 0
        for _ in range(n):
            last = graph.node("V3Add", a=last, b=1).out(0)
        return io.NodeOutput(last, expand=graph.finalize())


class V3ExpandUnsaid(io.ComfyNode):
    """Expands without saying so."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema("V3ExpandUnsaid", [], [io.Int.Output()])

    @classmethod
    def execute(cls) -> io.NodeOutput:
        graph = GraphBuilder()
        return io.NodeOutput(graph.node("V3Add", a=1, b=1).out(0), expand=graph.finalize())


class V3Async(io.ComfyNode):
    """Takes its time and says how far it is."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema("V3Async", [io.Float.Input("seconds"), io.Int.Input("value")], [io.Int.Output()])

    @classmethod
    async def execute(cls, seconds: float, value: int) -> io.NodeOutput:
        for step in (1, 2):
            await asyncio.sleep(seconds)
            # 0.3.64 says it has it, and has not.
            if hasattr(api, "execution"):
                await api.execution.set_progress(step, 2)
        return io.NodeOutput(value)


class V3Progress(io.ComfyNode):
    """Says how far it is, without being a coroutine."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema("V3Progress", [io.Boolean.Input("preview")], [io.Int.Output()])

    @classmethod
    def execute(cls, preview: bool) -> io.NodeOutput:
        image = torch.zeros(1, 8, 8, 3) if preview else None
        api_sync.execution.set_progress(3, 4, preview_image=image)
        return io.NodeOutput(3)


class V3Lists(io.ComfyNode):
    """Gets lists, returns one."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        outputs = [io.Int.Output(is_output_list=True), io.Int.Output()]
        inputs = [io.Int.Input("values"), io.String.Input("mark")]
        return schema("V3Lists", inputs, outputs, is_input_list=True)

    @classmethod
    def execute(cls, values: list[int], mark: list[str]) -> io.NodeOutput:
        return io.NodeOutput([*values, len(mark)], len(values))


class V3Range(io.ComfyNode):
    """A list of numbers."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema("V3Range", [io.Int.Input("n")], [io.Int.Output(is_output_list=True)])

    @classmethod
    def execute(cls, n: int) -> io.NodeOutput:
        return io.NodeOutput(list(range(n)))


class V3Unique(io.ComfyNode):
    """Does not share its results."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema("V3Unique", [io.Int.Input("value")], [io.Int.Output()], not_idempotent=True)

    @classmethod
    def execute(cls, value: int) -> io.NodeOutput:
        return io.NodeOutput(value)


class V3Shows(io.ComfyNode):
    """Shows something in one of all ways."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        ways = ["text", "image", "mask", "saved", "png", "webp", "video", "3d"]
        return schema("V3Shows", [io.Combo.Input("how", options=ways)], [], is_output_node=True)

    @classmethod
    def execute(cls, how: str) -> io.NodeOutput:
        images = torch.linspace(0, 1, 2 * 4 * 5 * 3).reshape(2, 4, 5, 3)
        helper = ui.ImageSaveHelper
        shows = {
            "text": lambda: ui.PreviewText("shown"),
            "image": lambda: ui.PreviewImage(images, cls=cls),
            "mask": lambda: ui.PreviewMask(images[..., 0], cls=cls),
            "saved": lambda: helper.get_save_images_ui(images, "v3/saved_%batch_num%", cls=cls),
            "png": lambda: helper.get_save_animated_png_ui(images, "v3/anim", cls=cls, fps=10.0, compress_level=4),
            "webp": lambda: helper.get_save_animated_webp_ui(
                images, "v3/anim", cls=cls, fps=10.0, lossless=True, quality=80, method=4
            ),
            "video": lambda: ui.PreviewVideo([ui.SavedResult("a.mp4", "b", io.FolderType.output)]),
            "3d": lambda: ui.PreviewUI3D("model.glb", {"zoom": 1}),
        }
        return io.NodeOutput(ui=shows[how]())


class V3Between(io.ComfyNode):
    """Hands a number on and shows it, without being an output node."""

    HAS_INTERMEDIATE_OUTPUT = True

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema("V3Between", [io.Int.Input("value")], [io.Int.Output()])

    @classmethod
    def execute(cls, value: int) -> io.NodeOutput:
        return io.NodeOutput(value, ui={"values": [value]})


class V3Several(io.ComfyNode):
    """Any number of letters."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema("V3Several", [io.MultiCombo.Input("letters", options=["a", "b", "c"])], [io.String.Output()])

    @classmethod
    def execute(cls, letters: list[str]) -> io.NodeOutput:
        return io.NodeOutput("".join(letters))


class V3Any(io.ComfyNode):
    """Hands on whatever it gets."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema("V3Any", [io.AnyType.Input("value")], [io.AnyType.Output()])

    @classmethod
    def execute(cls, value: Any) -> io.NodeOutput:
        return io.NodeOutput(value)


class V3Multi(io.ComfyNode):
    """Takes numbers and text."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        wide = io.MultiType.Input(io.Float.Input("value", default=2.5, max=10.0), types=[io.Float, io.Int, io.String])
        return schema(
            "V3Multi", [wide, io.MultiType.Input("other", [io.Mask, io.Image], optional=True)], [io.String.Output()]
        )

    @classmethod
    def execute(cls, value: Any, other: Any = None) -> io.NodeOutput:
        return io.NodeOutput(f"{type(value).__name__} {value}")


class V3Combo(io.ComfyNode):
    """Hands on a choice."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema("V3Combo", [io.Combo.Input("choice", options=["a", "b"])], [io.Combo.Output(options=["a", "b"])])

    @classmethod
    def execute(cls, choice: str) -> io.NodeOutput:
        return io.NodeOutput(choice)


NODES = [
    V3Add,
    V3Return,
    V3Hidden,
    V3Locked,
    V3Validate,
    V3ValidateAll,
    V3Fingerprint,
    V3Lazy,
    V3Expand,
    V3ExpandUnsaid,
    V3Async,
    V3Progress,
    V3Lists,
    V3Range,
    V3Unique,
    V3Shows,
    V3Between,
    V3Several,
    V3Any,
    V3Multi,
    V3Combo,
]
