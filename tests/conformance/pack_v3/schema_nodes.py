"""Nodes that are only looked at: everything a schema can say."""

from __future__ import annotations

from enum import Enum
from typing import Any

from comfy_api.latest import io


class Letter(Enum):
    """The options of a combo."""

    A = "a"
    B = "b"


def _plain_types() -> list[Any]:
    """All types with nothing but a name that 0.3.64 has."""
    names = [
        "Image",
        "Mask",
        "Latent",
        "Conditioning",
        "Sampler",
        "Sigmas",
        "Noise",
        "Guider",
        "Clip",
        "ControlNet",
        "Vae",
        "Model",
        "ClipVision",
        "ClipVisionOutput",
        "StyleModel",
        "Gligen",
        "UpscaleModel",
        "Audio",
        "Video",
        "SVG",
        "LoraModel",
        "LossMap",
        "Voxel",
        "Mesh",
        "Hooks",
        "HookKeyframes",
        "TimestepsRange",
        "LatentOperation",
        "FlowControl",
        "Accumulation",
        "Load3DCamera",
        "Load3D",
        "Load3DAnimation",
        "Photomaker",
        "Point",
        "FaceAnalysis",
        "BBOX",
        "SEGS",
        "AnyType",
        "WanCameraEmbedding",
        "AudioEncoder",
        "AudioEncoderOutput",
    ]
    return [getattr(io, name) for name in names]


class _Idle(io.ComfyNode):
    """Base of nodes that do nothing."""

    @classmethod
    def execute(cls, **values: Any) -> io.NodeOutput:
        return io.NodeOutput()


class V3Plain(_Idle):
    """Every plain type, in and out."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        types = _plain_types()
        inputs = [kind.Input(f"i{number}", optional=number % 2 == 1) for number, kind in enumerate(types)]
        return io.Schema("V3Plain", inputs=inputs, outputs=[kind.Output() for kind in types])


class V3Widgets(_Idle):
    """Every widget 0.3.64 has, with every option."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        remote = io.RemoteOptions(route="/models", refresh_button=True, timeout=100, refresh=5)
        widgets = [
            io.Boolean.Input("boolean", "Shown", tooltip="Yes or no", default=True, label_on="on", label_off="off"),
            io.Int.Input("int", default=1, min=-1, max=9, step=2, control_after_generate=True),
            io.Int.Input("slider", display_mode=io.NumberDisplay.slider, socketless=True),
            io.Float.Input("float", optional=True, default=0.5, min=0.0, max=1.0, step=0.1, round=0.01, lazy=True),
            io.Float.Input("number", display_mode=io.NumberDisplay.number, force_input=True),
            io.String.Input("string", multiline=True, placeholder="here", default="text", dynamic_prompts=False),
            io.String.Input("plain"),
            io.Combo.Input("combo", options=["x", "y"], default="y", control_after_generate=True),
            io.Combo.Input("enum", options=Letter, default=Letter.B),
            io.Combo.Input("upload", options=["f"], upload=io.UploadType.image, image_folder=io.FolderType.input),
            io.Combo.Input("remote", remote=remote),
            io.Webcam.Input("webcam", default="none"),
            io.Image.Input("image", display_name="Picture", tooltip="A picture", lazy=False, extra_dict={"own": 1}),
        ]
        return io.Schema("V3Widgets", inputs=widgets)


class V3Described(_Idle):
    """Everything a schema says of the node itself."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        outputs = [
            io.Image.Output("image", display_name="picture", tooltip="The picture"),
            io.Mask.Output(display_name="mask", is_output_list=True),
            io.Custom("V3_OWN").Output(),
            io.Combo.Output("choice", options=["a", "b"]),
        ]
        return io.Schema(
            node_id="V3Described",
            display_name="Described",
            category="tiny/v3/described",
            inputs=[io.Custom("V3_OWN").Input("own")],
            outputs=outputs,
            hidden=[io.Hidden.unique_id, io.Hidden.prompt],
            description="A node with a description",
            is_output_node=True,
            is_deprecated=True,
            is_experimental=True,
        )


class V3Derived(V3Described):
    """A node derived from another one, with a schema of its own."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema("V3Derived", inputs=[io.Int.Input("value")], outputs=[io.Int.Output(), io.Float.Output()])


@io.comfytype(io_type="V3_DECLARED")
class Declared(io.ComfyTypeIO):
    """A type of this package, with a widget of its own."""

    Type = dict

    class Input(io.WidgetInput):
        def __init__(self, id: str, size: int = 3, **more: Any) -> None:
            super().__init__(id, **more)
            self.size = size

        def as_dict(self) -> dict[str, Any]:
            return {**super().as_dict(), "size": self.size}


@io.comfytype(io_type="V3_BARE")
class Bare:
    """A type of this package, of a class with no base."""

    Type = str


class V3Declared(_Idle):
    """Types of this package."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs = [Declared.Input("declared", size=4, default={"x": 1}), Bare.Input("bare", optional=True)]
        return io.Schema("V3Declared", inputs=inputs, outputs=[Declared.Output("out"), Bare.Output()])


NODES: list[Any] = [V3Plain, V3Widgets, V3Described, V3Derived, V3Declared]

if hasattr(io, "Histogram") and hasattr(io, "Colors"):

    class V3LaterWidgets(_Idle):
        """Widgets and options of later versions (0.29.0)."""

        @classmethod
        def define_schema(cls) -> io.Schema:
            widgets = [
                io.Int.Input("advanced", advanced=True, control_after_generate=io.ControlAfterGenerate.randomize),
                io.Float.Input(
                    "gradient",
                    display_mode=io.NumberDisplay.gradient_slider,
                    gradient_stops=[{"offset": 0, "color": [0, 0, 0]}],
                ),
                io.Image.Input("raw", raw_link=True),
                io.MultiCombo.Input("several", options=["a", "b"], default=["a"], placeholder="pick", chip=True),
                io.Color.Input("color"),
                io.Colors.Input("colors", default=["#000000"]),
                io.BoundingBox.Input("box", component="ImageCrop", force_input=True),
                io.BoundingBoxes.Input("boxes"),
                io.Curve.Input("curve"),
                io.Range.Input("range", display="gradient", show_midpoint=True, value_min=0.0, value_max=255.0),
                io.ImageCompare.Input("compare"),
                io.Histogram.Input("histogram", optional=True),
                io.Combo.Input("files", options=["f"], upload=io.UploadType.model),
            ]
            badge = io.PriceBadge(expr="widgets.advanced * 2", depends_on=io.PriceBadgeDepends(widgets=["advanced"]))
            return io.Schema(
                "V3LaterWidgets",
                inputs=widgets,
                is_dev_only=True,
                is_api_node=True,
                search_aliases=["later", "newer"],
                essentials_category="Basics",
                has_intermediate_output=True,
                price_badge=badge,
            )

    class V3LaterTypes(_Idle):
        """Plain types of later versions (0.29.0)."""

        @classmethod
        def define_schema(cls) -> io.Schema:
            names = [
                "ModelPatch",
                "BackgroundRemoval",
                "LatentUpscaleModel",
                "Tracks",
                "Dict",
                "Array",
                "Histogram",
                "Splat",
                "File3DAny",
                "File3DGLB",
                "File3DGLTF",
                "File3DFBX",
                "File3DOBJ",
                "File3DSTL",
                "File3DUSDZ",
                "File3DPLY",
                "File3DSPLAT",
                "File3DSPZ",
                "File3DKSPLAT",
                "File3DSplatAny",
                "File3DPointCloudAny",
                "Load3DModelInfo",
                "Color",
                "Curve",
                "Range",
                "BoundingBox",
            ]
            return io.Schema("V3LaterTypes", outputs=[getattr(io, name).Output() for name in names])

    NODES += [V3LaterWidgets, V3LaterTypes]
