"""The node API packages call V3, without a server: types, schemas, dynamic inputs, locked classes, curves, files."""

from __future__ import annotations

import asyncio
import io as bytes_io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from discomfort.embedded import node_context, progress
from discomfort.embedded.arguments import args
from discomfort.embedded.core_nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS
from discomfort.embedded.node_api import audio, calls, internal, io, latest, ui, v0_0_1, values
from discomfort.embedded.node_api.dynamic_inputs import build_nested_inputs, get_finalized_class_inputs
from discomfort.embedded.node_api.singleton import ProxiedSingleton
from discomfort.embedded.validation import validate_node_input


class Sum(io.ComfyNode):
    """A node to call."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema("Sum", inputs=[io.Int.Input("a"), io.Int.Input("b", optional=True)], outputs=[io.Int.Output()])

    @classmethod
    def execute(cls, a: int, b: int = 1) -> io.NodeOutput:
        return io.NodeOutput(a + b)


# -- types and schemas -------------------------------------------------------------------------------------------


def test_importing_the_api_imports_no_torch() -> None:
    """Core nodes are written with it, and the command line of Discomfort must start at once."""
    code = (
        "import sys, discomfort.embedded.node_api.latest, discomfort.embedded.core_nodes; print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_types_that_are_classes_of_torch_are_looked_up_when_asked_for() -> None:
    assert io.Image.Type is torch.Tensor
    assert io.Image.Input("image").Type is torch.Tensor
    assert values.ImageInput is torch.Tensor
    assert latest.Input.Mask is torch.Tensor


@pytest.mark.parametrize(
    ("received", "accepted", "fits"),
    [
        (io.AnyType, io.Image, True),
        (io.Image, io.AnyType, True),
        (io.MatchType, io.Latent, True),
        (io.Image, io.Mask, False),
        (io.Custom("A,B"), io.Custom("B"), True),
        (io.Custom("A"), io.Custom("B"), False),
    ],
)
def test_which_types_fit_each_other(received: Any, accepted: Any, fits: bool) -> None:
    assert validate_node_input(received.io_type, accepted.io_type) is fits


def test_any_type_of_a_v3_node_fits_those_of_v1_nodes() -> None:
    assert validate_node_input(io.AnyType.io_type, "IMAGE")
    assert validate_node_input("IMAGE", io.AnyType.io_type)
    assert not validate_node_input("IMAGE", io.Mask.io_type)


def test_a_derived_type_has_inputs_of_its_own() -> None:
    """Deriving a type does not change the one it is derived from."""

    @io.comfytype(io_type="MINE")
    class Mine(io.Image):  # type: ignore[misc]
        pass

    assert (Mine.Input("a").io_type, io.Image.Input("a").io_type) == ("MINE", "IMAGE")
    assert (Mine.Output().io_type, io.Image.Output().io_type) == ("MINE", "IMAGE")


_INPUTS_ONLY = {"MultiCombo", "Autogrow", "DynamicCombo", "DynamicSlot", "ImageCompare"}
_TYPES = [name for name in io.__all__ if isinstance(getattr(getattr(io, name), "io_type", None), str)]


@pytest.mark.parametrize("name", _TYPES)
def test_all_types_have_inputs_and_most_outputs(name: str) -> None:
    """Those without are dynamic inputs, and widgets whose values nobody hands on."""
    kind = getattr(io, name)
    assert kind.Input.Parent is kind
    assert hasattr(kind, "Output") is (name not in _INPUTS_ONLY)


def test_an_option_of_extra_dict_yields_to_one_of_the_input() -> None:
    options = io.Int.Input("a", tooltip="mine", min=1, extra_dict={"min": 0, "tooltip": "extra", "own": 2}).as_dict()
    assert options == {"optional": False, "tooltip": "extra", "own": 2, "min": 1}


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (io.Schema("A", inputs=[io.Int.Input("a"), io.Int.Input("a")]), "Input ids must be unique, but ['a'] are not."),
        (
            io.Schema("A", outputs=[io.Int.Output("o"), io.Int.Output("o")]),
            "Output ids must be unique, but ['o'] are not.",
        ),
        (
            io.Schema("A", price_badge=io.PriceBadge(expr=" ")),
            "PriceBadge.expr must be a non-empty string.",
        ),
        (
            io.Schema("A", price_badge=io.PriceBadge(expr="1", engine="other")),
            "Unsupported PriceBadge.engine 'other'. Only 'jsonata' is supported.",
        ),
        (
            io.Schema("A", price_badge=io.PriceBadge(expr="1", depends_on=io.PriceBadgeDepends(widgets=[1]))),  # type: ignore[list-item]
            "PriceBadgeDepends.widgets must be a list[str].",
        ),
    ],
)
def test_a_schema_that_cannot_be_says_why(schema: io.Schema, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        schema.validate()


def test_a_price_names_widgets_there_are() -> None:
    badge = io.PriceBadge(expr="1", depends_on=io.PriceBadgeDepends(widgets=["a", "c.x"]))
    option = io.DynamicCombo.Option("o", [io.Int.Input("x")])
    inputs = [io.Int.Input("a"), io.DynamicCombo.Input("c", options=[option])]
    assert badge.as_dict(inputs)["depends_on"]["widgets"] == [
        {"name": "a", "type": "INT"},
        {"name": "c.x", "type": "INT"},
    ]
    with pytest.raises(ValueError, match=r"unknown widget 'c\.x'"):
        badge.as_dict(inputs[:1])


def test_output_nodes_and_api_nodes_are_told_more() -> None:
    schema = io.Schema("A", is_output_node=True, is_api_node=True, hidden=[io.Hidden.prompt])
    schema.finalize()
    assert [kind.name for kind in schema.hidden] == [
        "prompt",
        "auth_token_comfy_org",
        "api_key_comfy_org",
        "comfy_usage_source",
        "extra_pnginfo",
    ]


@pytest.mark.parametrize(
    "make",
    [
        lambda: io.Autogrow.TemplatePrefix(io.Int.Input("a"), "a", min=-1),
        lambda: io.Autogrow.TemplatePrefix(io.Int.Input("a"), "a", max=0),
        lambda: io.Autogrow.TemplatePrefix(io.Int.Input("a"), "a", max=101),
        lambda: io.Autogrow.TemplateNames(io.DynamicCombo.Input("c", options=[]), ["a"]),
        lambda: io.DynamicSlot.Input(io.DynamicCombo.Input("c", options=[]), []),
    ],
)
def test_templates_that_cannot_be(make: Callable[[], Any]) -> None:
    with pytest.raises(AssertionError):
        make()


def test_match_type_takes_types_only() -> None:
    with pytest.raises(ValueError, match="Allowed types must be a ComfyType or a list of ComfyTypes, got int"):
        io.MatchType.Template("t", [io.Int, int])


def test_layers_and_how_they_are_arranged() -> None:
    """As ComfyUI 0.33.0 describes the inputs of its node Create Layered Image."""
    inputs = [io.Layers.Input("layers", tooltip="t"), io.Compositor.Input("compositor")]
    assert io.create_input_dict_v1(inputs)["required"] == {
        "layers": ("LAYERS", {"tooltip": "t"}),
        "compositor": ("COMPOSITOR", {"default": {}, "socketless": True}),
    }
    assert len(io.Layers.BlendMode.__args__) == 26


def test_a_sound_is_saved_in_formats_for_sounds_only() -> None:
    """The format is the ending of the file's name, too."""
    with pytest.raises(ValueError, match=r"Unsupported audio format: 'flac/\.\./\.\./escaped'"):
        ui.AudioSaveHelper.save_audio({}, "sound", io.FolderType.output, None, format="flac/../../escaped")


# What ComfyUI 0.33.0's GET /object_info says of the core nodes that are written with this API.
_RECORDED = json.loads((Path(__file__).parent / "data/schema_nodes_0.33.0.json").read_text(encoding="utf-8"))


def test_all_core_nodes_with_a_schema_are_recorded() -> None:
    assert {name for name, kind in NODE_CLASS_MAPPINGS.items() if calls.is_v3(kind)} == set(_RECORDED)


@pytest.mark.parametrize("name", _RECORDED)
def test_core_nodes_are_described_as_in_comfyui(name: str) -> None:
    info = NODE_CLASS_MAPPINGS[name].GET_NODE_INFO_V1()  # type: ignore[attr-defined]
    assert json.loads(json.dumps(info)) == _RECORDED[name]
    assert NODE_DISPLAY_NAME_MAPPINGS[name] == info["display_name"]


# -- dynamic inputs ----------------------------------------------------------------------------------------------


def test_a_slot_brings_its_inputs_when_it_is_linked() -> None:
    slot = io.DynamicSlot.Input(io.Image.Input("image"), [io.Float.Input("strength"), io.Int.Input("n", optional=True)])
    declared = io.create_input_dict_v1([slot])
    options = declared["optional"]["image"][1]
    assert (options["slotType"], list(options["inputs"]["required"])) == ("IMAGE", ["strength"])
    without, _, data = get_finalized_class_inputs(declared, {})
    assert (without, data) == ({"required": {}, "optional": {}}, {})
    prompt = {"image": ["1", 0], "image.strength": 0.5}
    with_it, _, data = get_finalized_class_inputs(declared, prompt)
    assert (list(with_it["required"]), list(with_it["optional"])) == (["image.strength"], ["image.n", "image"])
    nested = build_nested_inputs({"image": "picture", "image.strength": 0.5}, data)
    assert nested == {"image": {"strength": 0.5, "n": None, "image": "picture"}}


def test_hidden_inputs_are_no_arguments_unless_asked_for() -> None:
    declared = {"required": {}, "hidden": {"unique_id": ("UNIQUE_ID",)}}
    inputs, hidden, _ = get_finalized_class_inputs(declared, {})
    assert ("hidden" in inputs, hidden) == (False, {"unique_id": ("UNIQUE_ID",)})
    assert "hidden" in get_finalized_class_inputs(declared, {}, include_hidden=True)[0]


# -- classes -----------------------------------------------------------------------------------------------------


def test_a_call_runs_on_a_locked_copy_of_the_class() -> None:
    seen: list[Any] = []

    class Looking(Sum):
        @classmethod
        def execute(cls, a: int, b: int = 1) -> io.NodeOutput:
            seen.append(cls)
            return super().execute(a, b)

    result = calls.bind(Looking, "EXECUTE_NORMALIZED", {"hidden_inputs": {io.Hidden.unique_id: "7"}})(a=2)
    (used,) = seen
    assert result[0] == 3
    assert issubclass(used, Looking)
    assert (used.__name__, used.hidden.unique_id, used.SCHEMA) == ("LookingClone", "7", Looking.SCHEMA)
    assert Looking.hidden is None
    with pytest.raises(AttributeError):
        used.anything = 1


def test_a_locked_method_of_a_coroutine_is_a_coroutine() -> None:
    class Waiting(Sum):
        @classmethod
        async def execute(cls, a: int, b: int = 1) -> io.NodeOutput:
            await asyncio.sleep(0)
            return io.NodeOutput(a)

    assert Waiting.FUNCTION == "EXECUTE_NORMALIZED_ASYNC"
    function = internal.make_locked_method_func(Waiting, Waiting.FUNCTION, Waiting.PREPARE_CLASS_CLONE(None))
    assert asyncio.run(function(a=4))[0] == 4


def test_functions_that_are_not_overridden_are_not_there() -> None:
    assert internal.first_real_override(Sum, "execute") is not None
    assert internal.first_real_override(Sum, "fingerprint_inputs") is None
    assert calls.optional_function(Sum, "IS_CHANGED") is None
    assert calls.optional_function(Sum, "check_lazy_status") is None
    with pytest.raises(ValueError, match="base is required"):
        internal.first_real_override(int, "execute")


def test_a_class_without_schema_cannot_be_made() -> None:
    class Nothing(io.ComfyNode):
        pass

    with pytest.raises(Exception, match="No define_schema function was defined for node class Nothing"):
        Nothing()


def test_v1_attributes_are_the_schemas() -> None:
    assert (Sum.RETURN_TYPES, Sum.RETURN_NAMES, Sum.OUTPUT_IS_LIST) == (["INT"], ["INT"], [False])
    assert (Sum.CATEGORY, Sum.OUTPUT_NODE, Sum.DESCRIPTION, Sum.FUNCTION) == ("sd", False, "", "EXECUTE_NORMALIZED")
    assert Sum.INPUT_TYPES() == {"required": {"a": ("INT", {})}, "optional": {"b": ("INT", {})}}


def test_a_derived_node_has_the_attributes_of_its_own_schema() -> None:
    """Also before anybody has asked for that, and after the base was asked for its."""

    class Halves(Sum):
        @classmethod
        def define_schema(cls) -> io.Schema:
            return io.Schema("Halves", outputs=[io.Float.Output(), io.Float.Output()], is_output_node=True)

    Sum.GET_SCHEMA()
    assert (Halves.RETURN_TYPES, Halves.OUTPUT_NODE) == (["FLOAT", "FLOAT"], True)
    assert (Sum.RETURN_TYPES, Sum.OUTPUT_NODE) == (["INT"], False)


# -- the API objects ---------------------------------------------------------------------------------------------


def test_there_is_one_api_of_each_version() -> None:
    assert latest.ComfyAPI() is latest.ComfyAPI()
    assert v0_0_1.ComfyAPI() is not latest.ComfyAPI()
    assert isinstance(latest.ComfyAPI().execution, ProxiedSingleton)
    assert v0_0_1.ComfyAPI.VERSION == "0.0.1"


def test_versions_are_registered_in_order() -> None:
    from discomfort.embedded.node_api import version_list

    assert [entry.version for entry in internal.get_all_versions()] == ["0.0.1", "0.0.2", "latest"]
    assert version_list.supported_versions[0] is latest.ComfyAPI_latest


@pytest.mark.parametrize("running_loop", [False, True])
def test_progress_without_a_coroutine_knows_the_node(monkeypatch: pytest.MonkeyPatch, running_loop: bool) -> None:
    """The coroutine runs in another thread, with the caller's context; also where a loop runs already."""
    told: list[tuple[Any, ...]] = []
    state = progress.get_progress_state()
    monkeypatch.setattr(state, "update_progress", lambda *what: told.append(what))

    def tell() -> None:
        with node_context.CurrentNodeContext("prompt", "5"):
            latest.ComfyAPISync().execution.set_progress(1, 4)

    async def tell_in_loop() -> None:
        tell()

    asyncio.run(tell_in_loop()) if running_loop else tell()
    assert told == [("5", 1, 4, None)]


def test_progress_needs_a_node() -> None:
    with pytest.raises(ValueError, match="node_id must be provided if not in executing context"):
        latest.ComfyAPISync().execution.set_progress(1, 2)


@pytest.mark.parametrize(("unlimited", "size"), [(False, 7), (True, None)])
def test_previews_are_as_large_as_the_flag_says(
    monkeypatch: pytest.MonkeyPatch, unlimited: bool, size: int | None
) -> None:
    told: list[Any] = []
    monkeypatch.setattr(args, "preview_size", 7)
    monkeypatch.setattr(progress.get_progress_state(), "update_progress", lambda *what: told.append(what[3]))
    image = torch.ones(1, 2, 3, 3)
    latest.ComfyAPISync().execution.set_progress(1, 2, "5", preview_image=image, ignore_size_limit=unlimited)
    ((kind, picture, largest),) = told
    assert (kind, picture.size, picture.getpixel((0, 0)), largest) == ("JPEG", (3, 2), (255, 255, 255), size)


# -- values ------------------------------------------------------------------------------------------------------


def test_a_smooth_curve_goes_through_its_points_and_never_back() -> None:
    points = [(0.5, 0.2), (0.0, 0.0), (0.6, 0.9), (1.0, 1.0)]
    curve = values.CurveInput.from_raw({"points": points, "interpolation": "monotone_cubic"})
    assert curve.points == sorted(points)
    assert [curve.interp(x) for x, _ in curve.points] == pytest.approx([y for _, y in curve.points])
    table = curve.to_lut(101)
    assert (np.diff(table) >= -1e-12).all()
    # Level outside; and, unlike straight lines, above them where it turns.
    assert (curve.interp(-1.0), curve.interp(2.0)) == (0.0, 1.0)
    assert curve.interp(0.62) > values.LinearCurve(points).interp(0.62)


def test_straight_and_degenerate_curves() -> None:
    linear = values.CurveInput.from_raw({"points": [(0, 0), (1, 2)], "interpolation": "linear"})
    assert linear.interp(0.25) == 0.5
    assert values.MonotoneCubicCurve([]).to_lut(2).tolist() == [0.0, 0.0]
    assert values.MonotoneCubicCurve([(0.5, 0.7)]).interp(0.1) == pytest.approx(0.7)
    assert isinstance(values.CurveInput.from_raw([(0, 0), (1, 1)]), values.MonotoneCubicCurve)


def test_levels_are_those_of_their_middle() -> None:
    levels = values.RangeInput.from_raw({"min": 0.25, "max": 0.75, "midpoint": 0.25})
    table = levels.to_lut(5)
    # 0.5 is in the middle of the range: gamma is 2.
    assert table.tolist() == pytest.approx([0.0, 0.0, 0.5**0.5, 1.0, 1.0])
    assert values.RangeInput(0.5, 0.5).to_lut(3).tolist() == [0.0, 1.0, 1.0]
    with pytest.raises(TypeError, match="Cannot convert"):
        values.RangeInput.from_raw(3)


def test_a_3d_file_is_one_on_disk_or_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "model.GLB"
    path.write_bytes(b"content")
    on_disk, in_memory = values.File3D(str(path)), values.File3D(bytes_io.BytesIO(b"content"), "ply")
    assert (on_disk.format, on_disk.is_disk_backed, in_memory.format) == ("glb", True, "ply")
    for number, file in enumerate((on_disk, in_memory)):
        target = tmp_path / "new" / f"{number}.bin"
        assert file.save_to(str(target)) == str(target)
        assert target.read_bytes() == file.get_bytes() == file.get_data().read() == b"content"


def test_a_mesh_of_padded_vertices_needs_both_counts() -> None:
    with pytest.raises(AssertionError, match="together"):
        values.MESH(torch.zeros(1, 3, 3), torch.zeros(1, 1, 3), vertex_counts=torch.tensor([3]))


def test_a_video_of_frames_can_be_cut() -> None:
    images = torch.arange(10.0).reshape(10, 1, 1, 1).expand(10, 2, 3, 3)
    sound = {"waveform": torch.zeros(1, 1, 1000), "sample_rate": 1000}
    video = values.VideoFromComponents(values.VideoComponents(images, Fraction(10), sound))
    assert (video.get_dimensions(), video.get_duration(), video.get_frame_count()) == ((3, 2), 1.0, 10)
    part = video.as_trimmed(0.2, 0.5)
    assert part is not None
    components = part.get_components()
    assert components.images[:, 0, 0, 0].tolist() == [2, 3, 4, 5, 6]
    assert components.audio["waveform"].shape[-1] == 500
    assert video.as_trimmed(0.8, 0.5, strict_duration=True) is None
    assert video.as_trimmed(2.0) is None


def test_a_video_goes_through_a_file(tmp_path: Path) -> None:
    """And a part of it is one within it."""
    pytest.importorskip("av")
    # One second of grey that gets lighter, and a tone.
    images = torch.linspace(0, 1, 10).reshape(10, 1, 1, 1).expand(10, 16, 32, 3)
    tone = {"waveform": torch.sin(torch.arange(8000) * 0.3)[None, None] * 0.5, "sample_rate": 8000}
    made = values.VideoFromComponents(values.VideoComponents(images, Fraction(10), tone))
    path = str(tmp_path / "made.mp4")
    made.save_to(path, metadata={"prompt": {"1": "x"}})
    read = values.VideoFromFile(path)
    assert (read.get_dimensions(), read.get_frame_count(), read.get_frame_rate()) == ((32, 16), 10, 10)
    components = read.get_components()
    assert (components.images - images).abs().max() < 0.03
    assert json.loads((components.metadata or {})["prompt"]) == {"1": "x"}
    assert components.audio["sample_rate"] == 8000
    assert components.audio["waveform"].shape[-1] == pytest.approx(8000, abs=1024)
    copied = bytes_io.BytesIO()
    read.save_to(copied, metadata={"workflow": 2})
    again = values.VideoFromFile(copied)
    tags = again.get_components().metadata or {}
    assert (again.get_frame_count(), json.loads(tags["prompt"]), tags["workflow"]) == (10, {"1": "x"}, "2")
    made.save_to(str(tmp_path / "made.mkv"))
    assert "matroska" in values.VideoFromFile(str(tmp_path / "made.mkv")).get_container_format()
    part = read.as_trimmed(0.2, 0.5)
    assert part is not None
    inner = part.as_trimmed(0.1)
    assert inner is not None
    assert (part.get_frame_count(), inner.get_frame_count()) == (5, 4)
    assert (inner.get_components().images - images[3:7]).abs().max() < 0.03
    end = part.as_trimmed(-0.2)
    assert end is not None
    assert end.get_active_trim_window() == (pytest.approx(0.5), pytest.approx(0.2))
    assert part.as_trimmed(0.1, 0.5) is None
    assert part.as_trimmed(0.6) is None
    part.save_to(str(tmp_path / "part.mp4"))
    assert values.VideoFromFile(str(tmp_path / "part.mp4")).get_frame_count() == 5


def test_sound_goes_into_files() -> None:
    """Of the sample rate the format has; with the metadata."""
    av = pytest.importorskip("av")
    tone = (torch.sin(torch.arange(48000) * 0.3) * 0.5).expand(2, -1)
    for format, quality in (("flac", "128k"), ("mp3", "V0"), ("mp3", "128k"), ("opus", "96k")):
        content = audio.encode(tone, 48000, format, quality, {"prompt": "x"})
        with av.open(bytes_io.BytesIO(content)) as container:
            (stream,) = container.streams.audio
            assert (stream.rate, stream.channels) == (48000, 2)
            assert sum(frame.samples for frame in container.decode(stream)) == pytest.approx(48000, abs=3000)
            assert "x" in {**container.metadata, **stream.metadata}.values()


def test_a_video_without_frames_is_not_written(tmp_path: Path) -> None:
    pytest.importorskip("av")
    video = values.VideoFromComponents(values.VideoComponents(torch.zeros(0, 4, 4, 3), Fraction(10)))
    with pytest.raises(ValueError, match="no frames"):
        video.save_to(str(tmp_path / "a.mp4"))
    assert not (tmp_path / "a.mp4").exists()


def test_what_needs_another_library_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    sound = {"waveform": torch.zeros(1, 1, 10), "sample_rate": 8000}
    with pytest.raises(RuntimeError, match="needs av, which the embedded server does without: pip install av"):
        audio.encode(sound["waveform"][0], 8000, "flac", "128k", {})
    with pytest.raises(RuntimeError, match="Reading a video file needs av"):
        values.VideoFromFile(str(tmp_path / "a.mp4")).get_dimensions()


@pytest.mark.parametrize(("rate", "opus"), [(8000, 8000), (22050, 24000), (44100, 48000), (96000, 48000)])
def test_opus_has_few_sample_rates(rate: int, opus: int) -> None:
    assert audio.opus_rate(rate) == opus


def test_text_is_shown_as_a_tuple() -> None:
    assert ui.PreviewText("a").as_dict() == {"text": ("a",)}
