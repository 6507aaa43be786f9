"""The ports of a list of workflows, the workflows' names, and conditions over the ports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from discomfort.editor import workflow_files
from discomfort.editor.conditions import check_condition
from discomfort.editor.runner_ports import Part, joined_ports, ports_of_workflows
from discomfort.editor.workflow_files import list_workflows, resolve_workflow
from discomfort.workflow_graph import PortInfo

WORKFLOWS = Path(__file__).parent / "workflows"


def part(name: str, **ports: str) -> Part:
    """``part("a.json", in_image="IMAGE", out_score="FLOAT")``"""
    found = []
    for key, kind in ports.items():
        mode, _, unique_id = key.partition("_")
        found.append(
            PortInfo("1", unique_id, {"in": "INPUT", "out": "OUTPUT", "thru": "PASSTHRU"}[mode], kind, kind, kind, [])
        )
    return Part(name, found)


def names(entries: list[dict[str, Any]]) -> list[str]:
    return [entry["unique_id"] for entry in entries]


def test_what_an_earlier_workflow_delivers_is_not_wanted_from_outside() -> None:
    found = joined_ports(
        [
            part("a.json", in_seed="INT", out_image="IMAGE"),
            part("b.json", in_image="IMAGE", in_text="STRING", out_score="FLOAT"),
        ]
    )
    assert found["inputs"] == [
        {"unique_id": "seed", "type": "INT", "workflows": ["a.json"], "required": True},
        {"unique_id": "text", "type": "STRING", "workflows": ["b.json"], "required": True},
    ]
    assert found["outputs"] == [{"unique_id": "image", "type": "IMAGE"}, {"unique_id": "score", "type": "FLOAT"}]
    assert found["problems"] == []


def test_a_loop_variable_is_wanted_and_delivered_also_over_two_workflows() -> None:
    found = joined_ports([part("a.json", in_image="IMAGE", out_image="IMAGE")])
    assert names(found["inputs"]) == names(found["outputs"]) == ["image"]
    found = joined_ports([part("a.json", in_image="IMAGE", out_x="*"), part("b.json", in_x="*", out_image="IMAGE")])
    assert names(found["inputs"]) == ["image"]
    assert names(found["outputs"]) == ["x", "image"]


def test_ports_that_pass_values_through_or_have_no_name_are_no_sockets() -> None:
    found = joined_ports([part("a.json", thru_image="IMAGE", in_="INT", out_="INT")])
    assert found["inputs"] == found["outputs"] == []


def test_of_a_branch_either_side_may_run() -> None:
    found = joined_ports(
        [part("a.json", out_image="IMAGE")],
        [part("t.json", in_image="IMAGE", in_strength="FLOAT", out_result="IMAGE")],
        [part("o.json", in_result="IMAGE", out_other="MASK")],
    )
    # What the one side delivers does not feed the other.
    assert names(found["inputs"]) == ["strength", "result"]
    assert names(found["outputs"]) == ["image", "result", "other"]


def test_the_type_is_the_one_that_fits_all_and_what_does_not_fit_is_told() -> None:
    found = joined_ports(
        [part("a.json", in_x="*"), part("b.json", in_x="INT", out_y="MASK"), part("c.json", in_y="IMAGE")]
    )
    assert found["inputs"][0]["type"] == "INT"
    assert found["inputs"][0]["workflows"] == ["a.json", "b.json"]
    assert found["problems"] == ["c.json wants IMAGE as 'y', but an earlier workflow delivers MASK under that name."]
    found = joined_ports([part("a.json", in_x="MASK"), part("b.json", in_x="IMAGE")])
    assert found["inputs"][0]["type"] == "*"
    assert found["problems"] == ["No one type fits all INPUT ports 'x': they want MASK, IMAGE."]


def test_the_ports_of_files_and_a_version_that_changes_with_them(tmp_path: Path) -> None:
    for name in ("part_make.json", "part_use.json"):
        (tmp_path / name).write_bytes((WORKFLOWS / name).read_bytes())

    def ports() -> dict[str, Any]:
        return ports_of_workflows(
            ["part_make.json", "part_use"], resolve=lambda name: resolve_workflow(name, [tmp_path])
        )

    first = ports()
    assert first == ports()
    assert first["titles"] == ["part_make", "part_use"]
    assert first["outputs"]
    alone = ports_of_workflows([str(WORKFLOWS / "part_use.json")])
    assert "inverted" in names(alone["inputs"])
    assert "inverted" not in names(first["inputs"])
    content = json.loads((tmp_path / "part_make.json").read_text("utf-8"))
    (tmp_path / "part_make.json").write_text(json.dumps({**content, "nodes": [], "links": []}), "utf-8")
    changed = ports()
    assert changed["version"] != first["version"]
    assert "inverted" in names(changed["inputs"])


def test_a_file_that_is_missing_or_no_workflow_is_a_problem_and_the_others_are_read(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text('{"nodes": [', "utf-8")
    (tmp_path / "list.json").write_text("[]", "utf-8")
    found = ports_of_workflows(
        ["absent.json", "broken.json", "list.json", str(WORKFLOWS / "part_make.json"), " "],
        resolve=lambda name: resolve_workflow(name, [tmp_path]),
    )
    assert found["outputs"]
    said = " ".join(found["problems"])
    for words in (
        "There is no workflow 'absent.json'",
        "is not JSON",
        "a workflow is an object",
        "No workflow is named",
    ):
        assert words in said
    (tmp_path / "absent.json").write_bytes((WORKFLOWS / "part_make.json").read_bytes())
    again = ports_of_workflows(["absent.json"], resolve=lambda name: resolve_workflow(name, [tmp_path]))
    assert again["outputs"]


# ------------------------------------------------------------------------------------------------------------ names


@pytest.fixture
def places(tmp_path: Path) -> list[Path]:
    """The user's workflows, the examples, and ComfyUI's folder."""
    found = [tmp_path / "user" / "workflows", tmp_path / "examples" / "workflows", tmp_path / "comfyui"]
    for place, files in zip(
        found, (["refine.json", "sub/upscale.json", ".index.json"], ["refine.json", "x.json"], ["c.json"]), strict=True
    ):
        for file in files:
            (place / file).parent.mkdir(parents=True, exist_ok=True)
            (place / file).write_text("{}", "utf-8")
    return found


def test_a_name_counts_from_the_users_folder_first_then_the_examples_then_comfyui(places: list[Path]) -> None:
    for name, path in {
        "refine.json": places[0] / "refine.json",
        " refine ": places[0] / "refine.json",
        "sub/upscale.json": places[0] / "sub/upscale.json",
        "x.json": places[1] / "x.json",
        "c.json": places[2] / "c.json",
        str(places[1] / "refine.json"): places[1] / "refine.json",
    }.items():
        assert resolve_workflow(name, places) == path


def test_a_name_that_is_wrong_is_told_with_where_it_was_looked_for_and_what_is_similar(places: list[Path]) -> None:
    with pytest.raises(FileNotFoundError) as error:
        resolve_workflow("refined.json", places)
    assert "Did you mean 'refine.json'?" in str(error.value)
    assert all(str(place) in str(error.value) for place in places)
    with pytest.raises(FileNotFoundError, match="no workflow file '/no/such"):
        resolve_workflow("/no/such/file.json", places)
    with pytest.raises(ValueError, match="No workflow is named"):
        resolve_workflow("  ", places)


def test_other_files_are_refused_unread(places: list[Path], tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("x", "utf-8")
    with pytest.raises(ValueError, match=r"those are \.json files"):
        resolve_workflow(str(tmp_path / "secret.txt"), places)


def test_the_list_has_each_name_once_and_neither_hidden_files_nor_comfyuis_folder(places: list[Path]) -> None:
    found = list_workflows(places)
    assert [one["name"] for one in found] == ["refine.json", "sub/upscale.json", "x.json"]
    assert found[0]["path"] == str(places[0] / "refine.json")
    assert all(resolve_workflow(one["name"], places) == Path(one["path"]) for one in found)


def test_outside_of_comfyui_there_are_the_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(__import__("sys").modules, "folder_paths", raising=False)
    assert workflow_files.folders() == [workflow_files.EXAMPLES]


# ------------------------------------------------------------------------------------------------------- conditions


def test_a_condition_is_checked_for_syntax_and_names() -> None:
    known = {"score", "my image"}
    good = {"problem": None, "names": ["my image", "score"]}
    assert check_condition("score < 0.9 and iteration < 20", known) == {**good, "reads": ["score"]}
    assert check_condition("  ", known) == {**good, "reads": []}
    assert check_condition("my image", known) == {**good, "reads": ["my image"]}
    wrong = check_condition("scor < 0.9", known)
    assert wrong["problem"] == (
        "The condition reads 'scor', but no port has that name. Did you mean 'score'? Ports: 'my image', 'score'."
    )
    assert "is no expression" in check_condition("score <", known)["problem"]
    assert "calls 'open'" in check_condition("open('/etc/passwd')", known)["problem"]
    assert check_condition("anything > 1")["problem"] is None
