"""The nodes that run workflows from the editor: their plain parts, and runs on a server that a person works in."""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import json
import math
import os
import shutil
import signal
import sys
import threading
import time
import types
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
import torch
from conformance import driver
from discomfort.comfy_serverless import ConnectorConfig
from discomfort.control_flow import Branch
from discomfort.editor_nodes import node_run, outer, running
from discomfort.editor_nodes.batching import join_batch
from discomfort.editor_nodes.extender import DiscomfortExtenderWorkflowRunner, result_port
from discomfort.editor_nodes.loop_executor import (
    DiscomfortLoopExecutor,
    LoopWidgets,
    check_widgets,
    checkpoint_folder,
    collected_names,
    lines,
    plan_steps,
)
from discomfort.editor_nodes.nested_config import Surroundings, inherited_arguments, nested_config, refuse_own_address
from discomfort.editor_nodes.padding import pad_image
from discomfort.editor_nodes.run_meter import RunMeter
from discomfort.editor_nodes.runner_sockets import (
    MAX_OUTPUTS,
    PlanPorts,
    PortInputs,
    check_given,
    given_values,
    output_names,
    plan_ports,
)
from discomfort.editor_nodes.test_runner import DiscomfortTestRunner
from discomfort.nodes_internal import ANY_TYPE
from discomfort.progress_events import (
    IterationFinished,
    IterationStarted,
    NodeProgress,
    NodeStarted,
    PreviewImage,
    StepFinished,
    StepStarted,
)
from outer_server import OuterServer, outer_server, outer_server_fixture
from PIL import Image
from prompt_parts import node, port

Json = dict[str, Any]
TESTS = Path(__file__).parent
PACKS = (TESTS / "run_packs" / "run_test", TESTS / "conformance" / "pack")

# ------------------------------------------------------------------------------------------------ what surrounds a node


def module(monkeypatch: pytest.MonkeyPatch, name: str, **contents: Any) -> None:
    """Put a module of a ComfyUI into this process, for one test."""
    made = types.ModuleType(name)
    made.__dict__.update(contents)
    monkeypatch.setitem(sys.modules, name, made)


class TestOuter:
    """What the surrounding ComfyUI offers."""

    def test_outside_a_comfyui_nothing_is_told_and_nothing_asked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("comfy.utils", "comfy.model_management", "folder_paths"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        outer.Progress(10).update(5)
        outer.check_interrupted()
        outer.free_memory()
        assert not outer.is_interrupted()
        assert outer.setting("Any", 7) == 7
        assert outer.output_folder() == Path.cwd()

    def test_progress_and_previews_reach_the_progress_bar(self, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[Any] = []

        class ProgressBar:
            def __init__(self, total: float, node_id: str | None = None) -> None:
                seen.append((total, node_id))

            def update_absolute(self, value: float, total: float, preview: Any) -> None:
                seen.append((value, total, preview))

        module(monkeypatch, "comfy.utils", ProgressBar=ProgressBar)
        file = io.BytesIO()
        Image.new("RGBA", (4, 3), "red").save(file, "PNG")
        progress = outer.Progress(10, "5")
        progress.update(1)
        progress.update(2, 20, preview=file.getvalue())
        progress.update(3, preview=b"no picture")
        progress.update(4, preview=Image.new("RGB", (2, 2)))
        assert seen[:2] == [(10, "5"), (1, 10, None)]
        value, total, (kind, picture, size) = seen[2]
        assert (value, total, kind, picture.mode, picture.size, size) == (2, 20, "JPEG", "RGB", (4, 3), 512)
        assert seen[3] == (3, 20, None)
        assert seen[4][2][1].size == (2, 2)

    def test_settings_are_the_users(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        module(monkeypatch, "folder_paths", get_user_directory=lambda: str(tmp_path))
        assert outer.setting("A.b", 3) == 3
        file = tmp_path / "default" / "comfy.settings.json"
        file.parent.mkdir()
        file.write_text('{"A.b": 4}')
        assert outer.setting("A.b", 3) == 4
        assert outer.setting("other") is None
        file.write_text("{broken")
        assert outer.setting("A.b", 3) == 3

    @pytest.mark.parametrize(("value", "minutes"), [(0, 0), (2.5, 2.5), (-1, 10), ("5", 10), (True, 10), (None, 10)])
    def test_the_idle_time_is_a_setting(self, monkeypatch: pytest.MonkeyPatch, value: Any, minutes: float) -> None:
        monkeypatch.setattr(outer, "setting", lambda name, default: value)
        assert running.idle_minutes() == minutes

    def test_a_node_is_called_as_the_user_calls_it(self) -> None:
        workflow = {
            "nodes": [{"id": 3, "title": "My loop"}, {"id": 7, "type": "group"}],
            "definitions": {
                "subgraphs": [
                    {"id": "group", "nodes": [{"id": 2, "title": "Inside"}, {"id": 4, "type": "deeper"}]},
                    {"id": "deeper", "nodes": [{"id": 1, "title": "Deep"}]},
                ]
            },
        }
        prompt = {"3": {"class_type": "Runner", "_meta": {"title": "From the prompt"}}, "5": {"class_type": "Runner"}}
        assert outer.node_title({"workflow": workflow}, prompt, "3") == "My loop"
        assert outer.node_title([{"workflow": workflow}], [prompt], ["7:2"]) == "Inside"
        assert outer.node_title([{"workflow": workflow}], [prompt], ["7:4:1"]) == "Deep"
        assert outer.node_title(None, prompt, "3") == "From the prompt"
        assert outer.node_title(None, [prompt], ["5"]) == "Runner"
        assert outer.node_title([None], [None], ["9"]) == ""


class TestNestedConfig:
    """How the nested server is started."""

    def test_it_gets_the_arguments_that_are_about_running_workflows(self, tmp_path: Path) -> None:
        given = [
            "--cpu",
            "--port",
            "8188",
            "--listen",
            "0.0.0.0",
            "--base-directory",
            "data",
            "--verbose",
            "DEBUG",
            "x",
        ]
        given += ["--extra-model-paths-config", "a.yaml", "/b.yaml", "--temp-directory=/t", "--input-directory=in"]
        given += ["--directml", "-1", "--fast", "fp16_accumulation", "autotune", "--auto-launch", "--novram"]
        kept = ["--cpu", "--base-directory", str(tmp_path / "data")]
        kept += ["--extra-model-paths-config", str(tmp_path / "a.yaml"), "/b.yaml"]
        kept += [f"--input-directory={tmp_path / 'in'}"]
        kept += ["--directml", "-1", "--fast", "fp16_accumulation", "autotune", "--novram"]
        assert inherited_arguments(given, tmp_path) == kept

    def test_it_is_the_same_comfyui_with_the_same_interpreter(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.delenv("COMFYUI_PATH", raising=False)
        monkeypatch.delenv("COMFYUI_PYTHON", raising=False)
        around = Surroundings("comfyui", tmp_path / "Comfy UI", ["--base-directory", "my data"])
        config = ConnectorConfig(API_COMMAND_LINE="python3 main.py --cache-none")
        made = nested_config(around, config, tmp_path)
        assert str(tmp_path / "Comfy UI") == made.COMFYUI_PATH
        assert sys.executable == made.COMFYUI_PYTHON
        assert f"python3 main.py --base-directory '{tmp_path / 'my data'}' --cache-none" == made.API_COMMAND_LINE
        assert made.INITIAL_PORT == 8188
        around = Surroundings("embedded", tmp_path, ["--cpu"], 18000)
        made = nested_config(around, ConnectorConfig(), tmp_path)
        assert made.INITIAL_PORT == 18001
        assert nested_config(around, ConnectorConfig(INITIAL_PORT=9000), tmp_path).INITIAL_PORT == 9000
        assert nested_config(around._replace(port=65535), ConnectorConfig(), tmp_path).INITIAL_PORT == 8188
        assert (made.COMFYUI_PATH, made.API_COMMAND_LINE) == ("embedded", "python3 main.py --cpu")

    def test_a_comfyui_that_was_named_wins(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        around = Surroundings("comfyui", tmp_path / "here", ["--cpu"])
        monkeypatch.setenv("COMFYUI_PATH", str(tmp_path / "other"))
        assert nested_config(around, ConnectorConfig(), tmp_path) == ConnectorConfig()
        monkeypatch.setenv("COMFYUI_PATH", str(tmp_path / "here"))
        assert "--cpu" in nested_config(around, ConnectorConfig(), tmp_path).API_COMMAND_LINE
        attached = ConnectorConfig(API_URL="127.0.0.1:9999")
        assert nested_config(around, attached, tmp_path) == attached
        assert nested_config(None, ConnectorConfig(), tmp_path) == ConnectorConfig()

    def test_a_server_does_not_wait_for_itself(self) -> None:
        server = SimpleNamespace(PromptServer=SimpleNamespace(instance=SimpleNamespace(port=8188)))
        with pytest.raises(RuntimeError, match="this ComfyUI itself"):
            refuse_own_address("http://127.0.0.1:8188", server)
        refuse_own_address("http://127.0.0.1:8189", server)
        refuse_own_address("http://gpu-box:8188", server)
        refuse_own_address("", server)
        refuse_own_address("http://127.0.0.1:8188", None)


# ------------------------------------------------------------------------------------------------------------- sockets


def save(path: Path, prompt: Json) -> Path:
    """A workflow file, in API format: a server needs no browser for it."""
    path.write_text(json.dumps(prompt), encoding="utf-8")
    return path


def add_workflow(first: str = "a", second: str = "b", result: str = "a") -> Json:
    """result = first + second, with three ports."""
    return {
        "1": port(first),
        "2": port(second),
        "3": node("TinyAdd", a=["1", 0], b=["2", 0]),
        "4": port(result, ["3", 0]),
    }


INVERT = {"1": port("image"), "2": node("ImageInvert", image=["1", 0]), "3": port("image", ["2", 0])}


class TestSockets:
    """The sockets of the ports."""

    def test_inputs_of_every_name_are_taken_and_not_listed(self) -> None:
        inputs = PortInputs({"ports": ("STRING", {})})
        assert "in:some port" in inputs
        assert "other" not in inputs
        assert inputs["in:x"][0] is ANY_TYPE
        with pytest.raises(KeyError):
            inputs["other"]
        assert list(inputs) == ["ports"]
        assert json.loads(json.dumps(inputs)) == {"ports": ["STRING", {}]}

    def test_ports_of_a_plan(self, tmp_path: Path) -> None:
        first = save(tmp_path / "first.json", add_workflow("a", "b", "sum"))
        then = save(tmp_path / "then.json", add_workflow("sum", "c", "d"))
        other = save(tmp_path / "other.json", add_workflow("d", "a", "e"))
        ports = plan_ports([first, Branch("a < 3", [then], [other])])
        assert list(ports.outputs) == ["sum", "d", "e"]
        # Nothing delivers d where the other side of the branch runs.
        assert ports.required == {"a": "first.json", "b": "first.json", "c": "then.json", "d": "other.json"}
        assert list(ports.inputs) == ["a", "b", "sum", "c", "d"]

    def test_missing_and_unknown_inputs_are_named(self) -> None:
        ports = PlanPorts({"a": "INT", "b": "INT"}, {"a": "w.json", "b": "w.json"}, {})
        check_given(ports, ["a", "b"])
        with pytest.raises(ValueError, match=r"inputs 'a' \(of w.json\), 'b' \(of w.json\)"):
            check_given(ports, [])
        with pytest.raises(ValueError, match=r"no INPUT port of that name.*'a', 'b'.*Refresh"):
            check_given(ports, ["a", "b", "old"])

    def test_values_arrive_as_lists(self) -> None:
        assert given_values({"in:a": [1], "in:b": [1, 2], "ports": [""]}) == {"a": [1], "b": [1, 2]}
        with pytest.raises(ValueError, match="'a' delivered an empty list"):
            given_values({"in:a": []})

    def test_outputs_are_in_the_order_of_the_widget(self) -> None:
        ports = PlanPorts({}, {}, {"a": "INT", "b": "IMAGE", "c": "*"})
        assert output_names("", ports) == ["a", "b", "c"]
        assert output_names('{"outputs": [{"name": "c"}, {"name": "a", "type": "INT"}]}', ports) == ["c", "a"]
        with pytest.raises(ValueError, match=r"output 'old', but .* Refresh"):
            output_names('{"outputs": [{"name": "old"}]}', ports)
        for broken in ("{", "[]", '{"outputs": [1]}', '{"outputs": [{"name": 1}]}', '{"outputs": {"a": 1}}', "3"):
            with pytest.raises(ValueError, match="'ports' is"):
                output_names(broken, ports)
        many = PlanPorts({}, {}, {str(number): "*" for number in range(MAX_OUTPUTS + 1)})
        with pytest.raises(ValueError, match=f"{MAX_OUTPUTS + 1} OUTPUT ports"):
            output_names("", many)

    @pytest.mark.parametrize(
        "kind",
        [DiscomfortTestRunner, DiscomfortLoopExecutor, DiscomfortExtenderWorkflowRunner],
        ids=lambda k: k.__name__,
    )
    def test_every_input_and_output_says_what_it_is(self, kind: Any) -> None:
        declared = kind.INPUT_TYPES()
        for group in ("required", "optional"):
            for name, (_, options) in declared.get(group, {}).items():
                assert options["tooltip"].endswith("."), name
        assert len(kind.RETURN_TYPES) == len(kind.OUTPUT_TOOLTIPS) == len(kind.OUTPUT_IS_LIST) == len(kind.RETURN_NAMES)
        assert json.dumps(declared)  # as /object_info sends it
        assert (TESTS.parent / "web" / "docs" / f"{kind.__name__}.md").is_file()


# -------------------------------------------------------------------------------------------------- the parts of a run


def run_events(iterations: int, steps: int, nodes: int) -> Iterator[Any]:
    for iteration in range(iterations):
        yield IterationStarted("r", iteration, iterations, (iteration,))
        for number in range(steps):
            yield StepStarted("r", (iteration,), str(number))
            for node_number in range(nodes):
                yield NodeStarted("r", str(node_number), "K", "")
                yield NodeProgress("r", str(node_number), 1, 2)
            yield StepFinished("r", (iteration,), str(number), 0.1)
        yield IterationFinished("r", iteration, iterations)


class TestMeter:
    """How far a run is."""

    @pytest.mark.parametrize(("known", "real"), [([4, 4], 4), ([1, 1], 7), ([9, 9], 3)])
    def test_it_never_goes_back_and_ends_at_one(self, known: list[int], real: int) -> None:
        meter = RunMeter(3, known)
        seen = []
        for event in run_events(3, 2, real):
            meter.on_event(event)
            seen.append(meter.fraction)
        assert seen == sorted(seen)
        assert seen[-1] == 1
        assert len(set(seen)) > 6
        ends = [
            meter_at for event, meter_at in zip(run_events(3, 2, real), seen, strict=True) if "Finished" in str(event)
        ]
        assert [round(value, 6) for value in ends[2::3]] == [round(n / 3, 6) for n in (1, 2, 3)]

    def test_parts_are_equal(self) -> None:
        meter = RunMeter(2, [2, 4])
        meter.on_event(IterationStarted("r", 1, 2, (1,)))
        assert meter.fraction == 0.5
        meter.on_event(StepStarted("r", (1,), "a"))
        meter.on_event(StepStarted("r", (1,), "b"))
        assert meter.fraction == 0.75
        meter.on_event(NodeStarted("r", "1", "K", ""))
        meter.on_event(NodeStarted("r", "2", "K", ""))
        meter.on_event(NodeProgress("r", "2", 5, 10))
        assert meter.fraction == 0.5 + 0.25 + 0.25 * 1.5 / 4
        meter.on_event(IterationStarted("r", 1, 2, (1,)))  # the iteration is tried again
        assert meter.fraction == 0.5 + 0.25 + 0.25 * 1.5 / 4

    def test_the_last_preview_is_handed_out_once(self) -> None:
        meter = RunMeter(1, [])
        meter.on_event(PreviewImage("r", "1", b"a", "jpeg"))
        meter.on_event(PreviewImage("r", "1", b"b", "jpeg"))
        assert meter.take_preview() == b"b"
        assert meter.take_preview() is None


class TestLoopWidgets:
    """What the loop's widgets mean."""

    @pytest.fixture(autouse=True)
    def workflows(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def resolve(name: str) -> Path:
            if name == "missing":
                raise FileNotFoundError("There is no workflow 'missing'.")
            return Path("/w") / name

        monkeypatch.setattr("discomfort.editor_nodes.loop_executor.workflow_path", resolve)

    def test_one_workflow_a_line(self) -> None:
        assert lines(" a.json \n\n# not this\nfolder/b.json\r\n") == ["a.json", "folder/b.json"]

    def test_the_branch_comes_last(self) -> None:
        steps = plan_steps(
            LoopWidgets("a\nb", branch_condition="x > 1", then_workflows="c", otherwise_workflows="d\ne")
        )
        assert steps[:2] == [Path("/w/a"), Path("/w/b")]
        assert isinstance(steps[2], Branch)
        assert (steps[2].then, steps[2].otherwise) == ((Path("/w/c"),), (Path("/w/d"), Path("/w/e")))

    @pytest.mark.parametrize(
        ("widgets", "problem"),
        [
            (LoopWidgets(), "workflows is empty"),
            (LoopWidgets("# a"), "workflows is empty"),
            (LoopWidgets("a", then_workflows="b"), "branch_condition is empty"),
            (LoopWidgets("a", branch_condition="x"), "neither then_workflows nor otherwise_workflows"),
            (LoopWidgets("a", branch_condition="x +", then_workflows="b"), "no expression"),
        ],
    )
    def test_what_cannot_be_run_is_refused(self, widgets: LoopWidgets, problem: str) -> None:
        with pytest.raises(ValueError, match=problem):
            plan_steps(widgets)

    @pytest.mark.parametrize(
        ("widget", "value", "problem"),
        [
            ("collected_as", "set", "list, batch"),
            ("seed_policy", "", "as_saved"),
            ("on_error", "go", "stop, skip"),
            ("condition", "a +", "no expression"),
        ],
    )
    def test_bad_values_are_refused(self, widget: str, value: str, problem: str) -> None:
        with pytest.raises(ValueError, match=problem):
            check_widgets(LoopWidgets("a", **{widget: value}))

    def test_collected_ports_exist(self) -> None:
        ports = PlanPorts({}, {}, {"a": "IMAGE", "my b": "*"})
        assert collected_names(LoopWidgets(collect=" my b, a,my b,"), ports) == ["my b", "a"]
        with pytest.raises(ValueError, match=r"'c', but no workflow has an OUTPUT port .* 'a', 'my b'"):
            collected_names(LoopWidgets(collect="c"), ports)

    def test_checkpoints_stay_in_the_output_folder(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(outer, "output_folder", lambda: tmp_path)
        root = tmp_path.resolve() / "discomfort"
        assert checkpoint_folder("  ") is None
        assert checkpoint_folder("my run") == root / "my run"
        assert checkpoint_folder("a/b") == root / "a" / "b"
        assert checkpoint_folder(str(tmp_path / "x")) == tmp_path / "x"
        for bad in ("..", "../x", "a/../..", "."):
            with pytest.raises(ValueError, match="leads out of"):
                checkpoint_folder(bad)

    def test_an_unchanged_graph_is_cached_unless_it_may_differ(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        file = tmp_path / "w.json"
        file.write_text("1")
        monkeypatch.setattr(node_run, "workflow_path", lambda name: tmp_path / name)
        changed = DiscomfortLoopExecutor.IS_CHANGED
        first = changed(workflows=["w.json"], seed_policy=["as_saved"])
        assert first == changed(workflows=["w.json"], seed_policy=["as_saved"])
        assert first == DiscomfortTestRunner.IS_CHANGED(workflow=["w.json"])
        for more in ({"checkpoint": ["x"]}, {"seed_policy": ["randomize"]}):
            assert math.isnan(changed(workflows=["w.json"], **more))
        assert changed(workflows=["w.json"], seed_policy=["randomize"], master_seed=[5]) == first
        file.write_text("2")
        assert changed(workflows=["w.json"], seed_policy=["as_saved"]) != first
        assert math.isnan(changed(workflows=["gone.json"]))
        assert math.isnan(DiscomfortTestRunner.IS_CHANGED(workflow=[None]))


class TestBatch:
    """Values of all iterations as one batch."""

    def test_pictures_masks_and_latents_are_joined(self) -> None:
        a, b = torch.rand(1, 4, 5, 3), torch.rand(2, 4, 5, 3)
        assert torch.equal(join_batch("x", [a, b]), torch.cat([a, b]))
        assert join_batch("x", [a[..., 0], b[..., 0]]).shape == (3, 4, 5)
        joined = join_batch("x", [{"samples": a, "batch_index": [0]}, {"samples": b}])
        assert list(joined) == ["samples"]
        assert torch.equal(joined["samples"], torch.cat([a, b]))

    def test_sizes_that_differ_are_named(self) -> None:
        with pytest.raises(ValueError, match=r"'x' differ in size.*number 0 is 4 x 5 x 3, number 2 is 4 x 6 x 3"):
            join_batch("x", [torch.rand(1, 4, 5, 3), torch.rand(1, 4, 5, 3), torch.rand(1, 4, 6, 3)])

    @pytest.mark.parametrize("values", [[1, 2], ["a"], [torch.rand(2), torch.rand(2)], [torch.rand(1, 2, 3, 3), 1]])
    def test_other_values_are_no_batch(self, values: list[Any]) -> None:
        with pytest.raises(ValueError, match="cannot be joined"):
            join_batch("x", values)


class TestPadding:
    """Room for more of a picture."""

    @pytest.mark.parametrize("direction", ["left", "right", "up", "down"])
    def test_the_room_is_grey_and_masked(self, direction: str) -> None:
        image = torch.rand(2, 6, 8, 3)
        padded, mask = pad_image(image, direction, 4, 3)
        axis = 2 if direction in ("left", "right") else 1
        assert padded.shape[axis] == image.shape[axis] + 4
        assert mask.shape == padded.shape[:3]
        # Seen with the room at the end, along the rows.
        if direction in ("left", "up"):
            padded, mask = padded.flip(axis), mask.flip(axis)
            image = image.flip(axis)
        if axis == 1:
            padded, mask, image = padded.transpose(1, 2), mask.transpose(1, 2), image.transpose(1, 2)
        old = image.shape[2]
        assert torch.equal(padded[:, :, :old], image)
        assert torch.all(padded[:, :, old:] == 0.5)
        assert torch.all(mask[:, :, old:] == 1)
        assert torch.all(mask[:, :, : old - 3] == 0)
        ramp = mask[0, 0, old - 3 : old]
        assert torch.all((ramp > 0) & (ramp < 1))
        assert torch.equal(ramp, ramp.sort().values)

    def test_no_direction_changes_nothing(self) -> None:
        image = torch.rand(1, 2, 3, 3)
        padded, mask = pad_image(image, "none", 64, 8)
        assert padded is image
        assert torch.equal(mask, torch.zeros(1, 2, 3))

    def test_feathering_may_be_wider_than_the_picture(self) -> None:
        _, mask = pad_image(torch.rand(1, 2, 3, 3), "right", 2, 100)
        assert mask[0, 0].tolist() == pytest.approx([1 / 16, 4 / 16, 9 / 16, 1, 1])
        _, mask = pad_image(torch.rand(1, 2, 3, 3), "right", 2, 0)
        assert mask[0, 0].tolist() == [0, 0, 0, 1, 1]

    def test_bad_arguments_are_named(self) -> None:
        with pytest.raises(ValueError, match="direction is 'north'"):
            pad_image(torch.rand(1, 2, 3, 3), "north", 2, 0)
        with pytest.raises(ValueError, match=r"\(2, 3, 3\)"):
            pad_image(torch.rand(2, 3, 3), "up", 2, 0)

    def test_the_result_is_the_port_of_the_images_name_or_the_only_image(self) -> None:
        assert result_port(PlanPorts({}, {}, {"x": "IMAGE", "image": "IMAGE"}), "image") == "image"
        assert result_port(PlanPorts({}, {}, {"score": "FLOAT", "x": "IMAGE"}), "image") == "x"
        with pytest.raises(ValueError, match=r"more than one.*'x'.*'y'"):
            result_port(PlanPorts({}, {}, {"x": "IMAGE", "y": "IMAGE"}), "image")
        with pytest.raises(ValueError, match="has no OUTPUT port"):
            result_port(PlanPorts({}, {}, {"x": "INT"}), "image")


# ------------------------------------------------------------------------------------------------------ the background


class Peer:
    """A Discomfort to run on, which says when it was created and shut down."""

    def __init__(self) -> None:
        self.created = self.ended = 0
        self.gate = threading.Event()
        self.gate.set()
        self.Worker = SimpleNamespace(state="ready", server_description="a server")

    async def create(self) -> Peer:
        await asyncio.to_thread(self.gate.wait)
        self.created += 1
        return self

    async def shutdown(self) -> None:
        self.ended += 1


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Peer]:
    """The background of this process, with a peer in the place of a server; its thread ends with the test."""
    peer = Peer()
    background = running.Background()
    monkeypatch.delenv("DISCOMFORT_NESTED", raising=False)
    monkeypatch.setattr(running, "_create_discomfort", peer.create)
    monkeypatch.setitem(vars(running.shared_module()), "runner_background", background)
    yield peer
    peer.gate.set()
    background._end_with_process()
    assert background._thread is None or not background._thread.is_alive()
    assert peer.ended == peer.created


class InterruptError(BaseException):
    """As ComfyUI's."""


@pytest.fixture
def cancel(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Call it to press ComfyUI's Cancel button."""
    state = {"is_asked": False}

    def obey() -> None:
        if state["is_asked"]:
            state["is_asked"] = False
            raise InterruptError

    module(
        monkeypatch,
        "comfy.model_management",
        processing_interrupted=lambda: state["is_asked"],
        throw_exception_if_processing_interrupted=obey,
    )
    return lambda: state.update(is_asked=True)


class TestBackground:
    """The nested server's thread, and what waits for it."""

    def test_runs_share_one_server_and_tell_their_progress_in_the_callers_thread(self, peer: Peer) -> None:
        threads = set()

        async def work(found: Any) -> str:
            assert found is peer
            await asyncio.sleep(0.25)
            return threading.current_thread().name

        def tick() -> None:
            threads.add(threading.current_thread())

        assert running.run_in_background(work, tick) == "discomfort-runner-nodes"
        assert running.run_in_background(work, tick) == "discomfort-runner-nodes"
        assert threads == {threading.current_thread()}
        assert peer.created == 1
        status = running.server_status()
        assert status == {"state": "ready", "description": "a server", "idle_timeout": 600.0, "runs": 0}

    def test_errors_come_through(self, peer: Peer) -> None:
        async def fail(_: Any) -> None:
            raise TimeoutError("too late")

        with pytest.raises(TimeoutError, match="too late"):
            running.run_in_background(fail, lambda: None)

    def test_cancel_ends_the_run_and_waits_for_it(self, peer: Peer, cancel: Callable[[], None]) -> None:
        ended = []

        async def work(_: Any) -> None:
            threading.Timer(0.05, cancel).start()
            try:
                await asyncio.sleep(60)
            finally:
                await asyncio.sleep(0.1)
                ended.append(True)

        with pytest.raises(InterruptError):
            running.run_in_background(work, lambda: None)
        assert ended
        assert not outer.is_interrupted()

    def test_cancel_does_not_wait_for_ever(self, peer: Peer, cancel: Callable[[], None]) -> None:
        release = threading.Event()

        async def work(_: Any) -> None:
            cancel()
            while not release.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.to_thread(release.wait, 5)

        started = time.monotonic()
        with pytest.raises(InterruptError):
            running.run_in_background(work, lambda: None, cancel_timeout=0.2)
        assert time.monotonic() - started < 3
        release.set()

    def test_cancel_works_while_the_server_starts(self, peer: Peer, cancel: Callable[[], None]) -> None:
        peer.gate.clear()
        threading.Timer(0.05, cancel).start()

        async def work(_: Any) -> None:
            raise AssertionError("it was cancelled")

        with pytest.raises(InterruptError):
            running.run_in_background(work, lambda: None)

    def test_what_the_ticker_raises_ends_the_run(self, peer: Peer) -> None:
        ended = []

        async def work(_: Any) -> None:
            try:
                await asyncio.sleep(60)
            finally:
                ended.append(True)

        def tick() -> None:
            raise InterruptError

        with pytest.raises(InterruptError):
            running.run_in_background(work, tick)
        assert ended

    def test_a_server_in_use_is_not_stopped(self, peer: Peer, wait_for: Callable[..., Any]) -> None:
        release = threading.Event()

        async def work(_: Any) -> None:
            await asyncio.to_thread(release.wait, 10)

        caller = threading.Thread(target=running.run_in_background, args=(work, lambda: None))
        caller.start()
        wait_for(lambda: running.server_status()["runs"] == 1)
        with pytest.raises(running.ServerBusyError, match="in use by 1 run"):
            running.stop_server()
        release.set()
        caller.join()
        assert running.stop_server() is True
        assert peer.ended == 1
        assert running.server_status()["state"] == "stopped"
        assert running.stop_server() is False

    def test_an_idle_server_is_stopped(
        self, peer: Peer, monkeypatch: pytest.MonkeyPatch, wait_for: Callable[..., Any]
    ) -> None:
        monkeypatch.setattr(outer, "setting", lambda name, default: 0.2 / 60)

        async def work(_: Any) -> None:
            await asyncio.sleep(0)

        running.run_in_background(work, lambda: None)
        wait_for(lambda: peer.ended == 1)
        running.run_in_background(work, lambda: None)
        assert peer.created == 2
        monkeypatch.setattr(outer, "setting", lambda name, default: 0)
        wait_for(lambda: peer.ended == 2)
        running.run_in_background(work, lambda: None)
        assert running._background()._idle_timer is None

    def test_a_server_that_was_killed_elsewhere_is_replaced(self, peer: Peer) -> None:
        async def work(_: Any) -> None:
            await asyncio.sleep(0)

        running.run_in_background(work, lambda: None)
        peer.Worker.state = "killed"
        peer.ended = 1
        running.run_in_background(work, lambda: None)
        assert peer.created == 2

    def test_status_without_any_run(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delitem(vars(running.shared_module()), "runner_background", raising=False)
        assert running.server_status()["state"] == "stopped"
        assert running.stop_server() is False

    def test_a_nested_server_runs_no_workflows(self, peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DISCOMFORT_NESTED", "1")

        async def work(_: Any) -> None:
            raise AssertionError("it was refused")

        with pytest.raises(RuntimeError, match=r"contains a runner node.*Branch or as a Loop"):
            running.run_in_background(work, lambda: None)
        assert peer.created == 0


# -------------------------------------------------------------------------------------------------- on a whole server

outer_comfyui = outer_server_fixture(packs=PACKS)

on_server = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def client(outer_comfyui: OuterServer) -> AsyncIterator[driver.Client]:
    async with driver.connect(outer_comfyui) as client:  # type: ignore[arg-type]
        yield client


_numbers = itertools.count(1)


@pytest.fixture
def workflow(outer_comfyui: OuterServer) -> Callable[[Json], str]:
    """Saves a prompt among the user's workflows, under a new name; returns the name."""

    def keep(prompt: Json) -> str:
        name = f"w{next(_numbers)}.json"
        save(outer_comfyui.workflows_folder / name, prompt)
        return name

    return keep


def shown(run: driver.Run, node_id: str = "9") -> Any:
    assert run.history["status"]["status_str"] == "success", run.data("execution_error")
    return run.shown(node_id)


def runner(name: str, **inputs: Any) -> Json:
    return node("DiscomfortTestRunner", workflow=name, free_memory_first=False, **inputs)


LOOP = {
    "iterations": 1, "condition": "", "branch_condition": "", "then_workflows": "", "otherwise_workflows": "",
    "collect": "", "collected_as": "list", "seed_policy": "as_saved", "master_seed": 0, "on_error": "stop",
    "checkpoint": "", "free_memory_first": False,
}  # fmt: skip


def loop(*names: str, **inputs: Any) -> Json:
    return node("DiscomfortLoopExecutor", workflows="\n".join(names), **{**LOOP, **inputs})


def show(*value: Any) -> Json:
    return node("TinyShow", value=list(value))


def pixels(folder: Path, prefix: str) -> list[np.ndarray[Any, Any]]:
    return [np.asarray(Image.open(file).convert("RGB")) for file in sorted(folder.glob(f"{prefix}_*.png"))]


def random_picture(folder: Path, name: str) -> np.ndarray[Any, Any]:
    picture = np.random.default_rng(3).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    Image.fromarray(picture).save(folder / name)
    return picture


@on_server
async def test_a_loop_delivers_the_right_pixels(
    outer_comfyui: OuterServer, client: driver.Client, workflow: Callable[[Json], str]
) -> None:
    picture = random_picture(outer_comfyui.input_folder, "in.png")
    name = workflow(INVERT)
    load = node("LoadImage", image="in.png")
    run = await client.run(
        {
            "1": load,
            "2": loop(name, iterations=3, collect="image", collected_as="batch", **{"in:image": ["1", 0]}),
            "3": node("SaveImage", images=["2", 0], filename_prefix="batch"),
            "4": loop(name, iterations=3, **{"in:image": ["1", 0]}),
            "5": node("SaveImage", images=["4", 0], filename_prefix="last"),
            "6": loop(name, iterations=2, collect="image", **{"in:image": ["1", 0]}),
            "7": node("SaveImage", images=["6", 0], filename_prefix="list"),
        }
    )
    assert run.history["status"]["status_str"] == "success", run.data("execution_error")
    inverted = 255 - picture
    for prefix, expected in (
        ("batch", [inverted, picture, inverted]), ("last", [inverted]), ("list", [inverted, picture])
    ):  # fmt: skip
        found = pixels(outer_comfyui.output_folder, prefix)
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert np.abs(one.astype(int) - other).max() <= 1, prefix
    assert "3 iterations in" in run.shown("2", "text")[0]


@on_server
async def test_outputs_are_what_the_ports_widget_says(client: driver.Client, workflow: Callable[[Json], str]) -> None:
    name = workflow(
        {
            "1": port("a"), "2": node("TinyAdd", a=["1", 0], b=10), "3": port("more", ["2", 0]),
            "4": node("TinyAdd", a=["1", 0], b=-10), "5": port("less", ["4", 0]),
        }
    )  # fmt: skip
    order = json.dumps({"outputs": [{"name": "less", "type": "INT"}, {"name": "more", "type": "INT"}]})
    run = await client.run(
        {
            "1": node("TinyNumber", value=5),
            "2": runner(name, ports=order, **{"in:a": ["1", 0]}),
            "8": show("2", 0),
            "9": show("2", 1),
        }
    )
    assert (shown(run, "8"), shown(run)) == ([-5], [15])
    stale = json.dumps({"outputs": [{"name": "gone", "type": "INT"}]})
    run = await client.run({"1": node("TinyNumber", value=5), "2": runner(name, ports=stale, **{"in:a": ["1", 0]})})
    assert "output 'gone'" in run.error()["exception_message"]
    assert "Refresh" in run.error()["exception_message"]


@on_server
async def test_lists_go_in_and_come_out_item_by_item(client: driver.Client, workflow: Callable[[Json], str]) -> None:
    name = workflow({"1": port("n"), "2": node("RunTestDouble", number=["1", 0]), "3": port("n", ["2", 0])})
    run = await client.run(
        {
            "1": node("RunTestCount", count=4),
            "2": loop(name, iterations=2, **{"in:n": ["1", 0]}),
            "3": node("RunTestJoin", number=["2", 0]),
            "9": show("3", 0),
        }
    )
    assert shown(run) == ["0 4 8 12"]


@on_server
async def test_a_branch_and_a_condition(client: driver.Client, workflow: Callable[[Json], str]) -> None:
    start = {"1": node("TinyNumber", value=["2", 0]), "2": port("a"), "3": port("a", ["1", 0])}
    first = workflow(start)
    by_ten = workflow({"1": port("a"), "2": node("TinyAdd", a=["1", 0], b=10), "3": port("a", ["2", 0])})
    by_one = workflow({"1": port("a"), "2": node("TinyAdd", a=["1", 0], b=1), "3": port("a", ["2", 0])})
    run = await client.run(
        {
            "1": node("TinyNumber", value=15),
            "2": loop(
                first,
                iterations=100,
                condition="a < 32",
                branch_condition="a < 30",
                then_workflows=by_ten,
                otherwise_workflows=f"# a comment\n{by_one}",
                collect="a",
                **{"in:a": ["1", 0]},
            ),
            "9": show("2", 0),
        }
    )
    assert [value for (value,) in [run.shown("9")[i : i + 1] for i in range(2)]] == [25, 35]


@on_server
async def test_a_missing_value_is_named_before_anything_is_started(
    client: driver.Client, workflow: Callable[[Json], str]
) -> None:
    name = workflow(add_workflow())
    started = time.monotonic()
    run = await client.run({"1": node("TinyNumber", value=5), "2": runner(name, **{"in:a": ["1", 0]})})
    assert f"input 'b' (of {name})" in run.error()["exception_message"]
    assert time.monotonic() - started < 3
    run = await client.run({"2": runner("no such workflow.json")})
    assert "no such workflow.json" in run.error()["exception_message"]


@on_server
async def test_an_edited_file_runs_again(
    outer_comfyui: OuterServer, client: driver.Client, workflow: Callable[[Json], str]
) -> None:
    name = workflow({"1": node("TinyNumber", value=1), "2": port("n", ["1", 0])})
    prompt = {"2": runner(name), "9": show("2", 0)}
    assert shown(await client.run(prompt)) == [1]
    again = await client.run(prompt)
    assert "2" in again.cached()
    save(outer_comfyui.workflows_folder / name, {"1": node("TinyNumber", value=2), "2": port("n", ["1", 0])})
    assert shown(await client.run(prompt)) == [2]


def slow(seconds: float, log: Path, name: str = "n") -> Json:
    return {
        "1": port(name), "2": node("RunTestSlow", number=["1", 0], seconds=seconds, log=str(log)),
        "3": port(name, ["2", 0]),
    }  # fmt: skip


async def begun(log: Path) -> None:
    """Wait until the slow node that writes this log has begun."""

    async def exists() -> bool:
        return await asyncio.to_thread(log.exists)

    await driver.until(exists, "the slow node inside begins")


@on_server
async def test_cancel_reaches_the_inner_run(
    client: driver.Client, workflow: Callable[[Json], str], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    name = workflow(slow(120, log))
    prompt = {"1": node("TinyNumber", value=3), "2": loop(name, iterations=9, **{"in:n": ["1", 0]})}
    status, answer = await client.queue(prompt)
    assert status == 200, answer

    await begun(log)
    started = time.monotonic()
    await client.post("/interrupt")
    await client.receive_until("execution_interrupted", prompt_id=answer["prompt_id"])
    assert time.monotonic() - started < 5
    await client.receive_until("executing", node=None, prompt_id=answer["prompt_id"])
    assert log.read_text().split("\n") == ["begin 3", ""]
    # Neither server is poisoned by it.
    quick = workflow(slow(0, log))
    run = await client.run(
        {"1": node("TinyNumber", value=4), "2": runner(quick, **{"in:n": ["1", 0]}), "9": show("2", 0)}
    )
    assert shown(run) == [4]


@on_server
async def test_stop_in_the_sidebar_is_no_failure(
    client: driver.Client, workflow: Callable[[Json], str], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    name = workflow(slow(120, log))
    prompt = {"1": node("TinyNumber", value=3), "2": loop(name, iterations=9, **{"in:n": ["1", 0]})}
    status, answer = await client.queue(prompt)
    assert status == 200, answer

    await begun(log)
    runs = (await client.get("/discomfort/state"))["runs"]
    (live,) = [run for run in runs if run["live"]]
    assert (live["source"], live["outer_node"]["id"]) == ("editor", "2")
    await client.post(f"/discomfort/runs/{live['run_id']}/command", {"command": "stop"})
    await client.receive_until("execution_interrupted", prompt_id=answer["prompt_id"])
    events = await client.get(f"/discomfort/runs/{live['run_id']}/events?offset=0")
    assert events["events"][-1]["state"] == "stopped"


@on_server
async def test_two_runner_nodes_and_two_prompts(client: driver.Client, workflow: Callable[[Json], str]) -> None:
    name = workflow(add_workflow())
    prompts = [
        {
            "1": node("TinyNumber", value=number),
            "2": runner(name, **{"in:a": ["1", 0], "in:b": ["1", 0]}),
            "3": loop(name, iterations=3, **{"in:a": ["2", 0], "in:b": ["1", 0]}),
            "9": show("3", 0),
        }
        for number in (7, 8)
    ]
    queued = [await client.queue(prompt) for prompt in prompts]
    for number, (status, answer) in zip((7, 8), queued, strict=True):
        assert status == 200
        await client.receive_until("executing", node=None, prompt_id=answer["prompt_id"])
        history = (await client.get(f"/history/{answer['prompt_id']}"))[answer["prompt_id"]]
        assert history["outputs"]["9"]["values"] == [number * 5]


@on_server
async def test_an_inner_error_is_told_in_full(client: driver.Client, workflow: Callable[[Json], str]) -> None:
    name = workflow(
        {"1": port("n"), "2": node("RunTestRefuse", number=["1", 0], refused=12, log=os.devnull),
         "3": node("TinyAdd", a=["2", 0], b=1), "4": port("n", ["3", 0])}
    )  # fmt: skip
    run = await client.run({"1": node("TinyNumber", value=10), "2": loop(name, iterations=9, **{"in:n": ["1", 0]})})
    error = run.error()
    assert error["node_id"] == "2"
    first = error["exception_message"].splitlines()[0]
    for part in (name, "iteration 2", "RunTestRefuse", "#2", "my RunTestRefuse", "ValueError", "12 is refused"):
        assert part in first


@on_server
async def test_a_model_cannot_leave_and_harms_nobody_who_does_not_want_it(
    client: driver.Client, workflow: Callable[[Json], str], tmp_path: Path
) -> None:
    name = workflow(
        {"1": node("RunTestLoadModel", name="m", log=str(tmp_path / "log")), "2": port("model", ["1", 0]),
         "3": node("RunTestStrength", model=["1", 0], vae=["1", 2]), "4": port("strength", ["3", 0])}
    )  # fmt: skip
    order = json.dumps({"outputs": [{"name": "strength"}, {"name": "model"}]})
    run = await client.run({"2": runner(name, ports=order), "9": show("2", 0)})
    assert shown(run) == [1.5]
    run = await client.run({"2": runner(name, ports=order), "9": show("2", 1)})
    assert "lives in the nested server" in run.error()["exception_message"]


@on_server
async def test_progress_is_monotone_and_previews_come_through(
    client: driver.Client, workflow: Callable[[Json], str]
) -> None:
    name = workflow({"1": node("TinySteps", steps=12, seconds=0.6, preview=True, seed=1), "2": port("n", ["1", 0])})
    run = await client.run({"2": loop(name, iterations=3, seed_policy="as_saved"), "9": show("2", 0)})
    shown(run)
    values = [data["value"] for data in run.data("progress") if data["node"] == "2"]
    assert values == sorted(values)
    assert len(set(values)) > 4
    assert (values[0], values[-1]) == (0, 300)
    assert all(data["max"] == 300 for data in run.data("progress") if data["node"] == "2")
    assert [kind for kind in run.types() if isinstance(kind, int)], "no preview"


@on_server
async def test_the_server_answers_quickly_during_a_run(
    client: driver.Client, workflow: Callable[[Json], str], tmp_path: Path
) -> None:
    name = workflow(slow(1.5, tmp_path / "log"))
    prompt = {"1": node("TinyNumber", value=3), "2": runner(name, **{"in:n": ["1", 0]})}
    _, answer = await client.queue(prompt)
    worst = 0.0
    for _ in range(40):
        started = time.monotonic()
        await client.get("/queue")
        worst = max(worst, time.monotonic() - started)
        await asyncio.sleep(0.02)
    await client.receive_until("executing", node=None, prompt_id=answer["prompt_id"])
    assert worst < 0.75


@on_server
async def test_a_runner_inside_a_run_is_refused(client: driver.Client, workflow: Callable[[Json], str]) -> None:
    inner = workflow({"1": node("TinyNumber", value=1), "2": port("n", ["1", 0])})
    name = workflow({"1": runner(inner), "2": port("n", ["1", 0])})
    run = await client.run({"2": runner(name), "9": show("2", 0)})
    assert "contains a runner node" in run.error()["exception_message"]


@on_server
async def test_a_kept_run_goes_on(
    outer_comfyui: OuterServer, client: driver.Client, workflow: Callable[[Json], str], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    name = workflow(slow(0, log))
    prompt = {
        "1": node("TinyNumber", value=3),
        "2": loop(name, iterations=3, checkpoint="kept", collect="n", **{"in:n": ["1", 0]}),
        "9": show("2", 0),
    }
    for _ in range(2):
        run = await client.run(prompt)
        assert run.shown("9") == [3, 3, 3]
    assert log.read_text().count("begin") == 1  # the nested server caches what does not change
    assert "had been finished before" in run.shown("2", "text")[0]
    assert (outer_comfyui.output_folder / "discomfort" / "kept").is_dir()


@on_server
async def test_an_image_is_extended(
    outer_comfyui: OuterServer, client: driver.Client, workflow: Callable[[Json], str]
) -> None:
    picture = random_picture(outer_comfyui.input_folder, "extend.png")
    # The new room becomes the inverse of grey's neighbour: white where the mask is.
    name = workflow(
        {"1": port("image"), "2": port("mask"), "3": node("MaskToImage", mask=["2", 0]),
         "4": node("ImageBlend", image1=["1", 0], image2=["3", 0], blend_factor=1.0, blend_mode="screen"),
         "5": port("result", ["4", 0])}
    )  # fmt: skip
    run = await client.run(
        {
            "1": node("LoadImage", image="extend.png"),
            "2": node(
                "DiscomfortExtenderWorkflowRunner", image=["1", 0], workflow=name, times=3, direction="right", pixels=8,
                feathering=0, image_port="image", mask_port="mask", free_memory_first=False,
            ),
            "3": node("SaveImage", images=["2", 0], filename_prefix="extended"),
            "4": node("SaveImage", images=["2", 1], filename_prefix="passes"),
        }
    )  # fmt: skip
    assert run.history["status"]["status_str"] == "success", run.data("execution_error")
    (last,) = pixels(outer_comfyui.output_folder, "extended")
    assert last.shape == (24, 32 + 3 * 8, 3)
    assert np.abs(last[:, :32].astype(int) - picture).max() <= 1
    assert last[:, 32:].min() == 255
    assert [one.shape[1] for one in pixels(outer_comfyui.output_folder, "passes")] == [40, 48, 56]


@on_server
async def test_the_extender_says_what_it_cannot_give(client: driver.Client, workflow: Callable[[Json], str]) -> None:
    name = workflow({**INVERT, "7": port("prompt"), "8": node("TinyShow", value=["7", 0])})
    empty = node("EmptyImage", width=8, height=8, batch_size=1, color=0)
    values = {"times": 1, "direction": "none", "pixels": 8, "feathering": 0, "free_memory_first": False}
    ports = {"image_port": "image", "mask_port": "mask"}
    made = node("DiscomfortExtenderWorkflowRunner", image=["1", 0], workflow=name, **values, **ports)
    run = await client.run({"1": empty, "2": made})
    assert f"INPUT port 'prompt' of {name}" in run.error()["exception_message"]
    run = await client.run({"1": empty, "2": {**made, "inputs": {**made["inputs"], "image_port": "picture"}}})
    assert "no INPUT port 'picture'" in run.error()["exception_message"]


@on_server
async def test_a_workflow_of_the_editor_is_converted_and_run(outer_comfyui: OuterServer, client: driver.Client) -> None:
    random_picture(outer_comfyui.input_folder, "refine.png")
    shutil.copy(TESTS.parent / "examples" / "workflows" / "refine.json", outer_comfyui.workflows_folder)
    run = await client.run(
        {
            "1": node("LoadImage", image="refine.png"),
            "2": loop("refine", iterations=2, **{"in:image": ["1", 0], "in:amount": 0.0}),
            "3": node("SaveImage", images=["2", 0], filename_prefix="refined"),
        }
    )
    assert run.history["status"]["status_str"] == "success", run.data("execution_error")
    assert pixels(outer_comfyui.output_folder, "refined")[0].shape == (24, 32, 3)


# ----------------------------------------------------------------------------------------------------------- the end


async def _run_slow(server: OuterServer, log: Path) -> None:
    """Queue a run that is in its inner node when this returns."""
    save(server.workflows_folder / "slow.json", slow(120, log))
    async with driver.connect(server) as client:  # type: ignore[arg-type]
        prompt = {"1": node("TinyNumber", value=3), "2": runner("slow.json", **{"in:n": ["1", 0]})}
        status, answer = await client.queue(prompt)
        assert status == 200, answer

        try:
            await begun(log)
        except AssertionError as error:
            raise AssertionError(f"{error}; the server's log:\n{server.log()[-5000:]}") from None


@pytest.mark.asyncio
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL, signal.SIGTERM], ids=lambda n: n.name)
@pytest.mark.parametrize("kind", ["embedded", pytest.param("comfyui", marks=pytest.mark.real_comfyui)])
async def test_the_nested_server_ends_with_the_outer_one(
    kind: str, number: signal.Signals, tmp_path: Path, wait_for: Callable[..., Any]
) -> None:
    with outer_server(kind, tmp_path / "base", packs=PACKS) as server:
        await _run_slow(server, tmp_path / "log")
        assert len(server.left()) > 1
        server.process.send_signal(number)
        await asyncio.to_thread(server.process.wait, 20)
        await asyncio.to_thread(wait_for, lambda: not server.left(), 15, "the end of what it has started")
        # An orderly end leaves nothing half done in the loop, of which Python would complain.
        assert "was destroyed but it is pending" not in server.log()


@pytest.mark.asyncio
async def test_an_unused_nested_server_ends_by_itself(tmp_path: Path, wait_for: Callable[..., Any]) -> None:
    with outer_server("embedded", tmp_path / "base", packs=PACKS) as server:
        save(server.workflows_folder / "w.json", {"1": node("TinyNumber", value=1), "2": port("n", ["1", 0])})
        (server.user_folder / "comfy.settings.json").write_text(json.dumps({running.IDLE_SETTING: 0.02}))
        async with driver.connect(server) as client:  # type: ignore[arg-type]
            assert shown(await client.run({"2": runner("w.json"), "9": show("2", 0)})) == [1]
        await asyncio.to_thread(wait_for, lambda: len(server.left()) == 1, 15, "the end of the nested server")
