"""What the editor's job list shows of outputs; the routes are in tests/conformance."""

from __future__ import annotations

from typing import Any

import pytest
from discomfort.embedded import jobs


def described(outputs: Any) -> dict[str, Any]:
    """A past job with these outputs."""
    entry = {"prompt": (1, "id", {}, {}, []), "outputs": outputs, "status": {"status_str": "success", "messages": []}}
    job = jobs.describe_job("id", [], [], {"id": entry})
    assert job is not None
    return job


NO_OUTPUTS = {"outputs_count": 0, "previewable_outputs_count": 0}
SAVED = {"filename": "a.png", "subfolder": "", "type": "output"}
NOTES = {"filename": "notes.md", "type": "output", "subfolder": ""}
SHOWN = {"filename": "b.png", "subfolder": "", "type": "temp"}


@pytest.mark.parametrize(
    ("outputs", "counts", "preview"),
    [
        ({}, (0, 0), None),
        ({"1": {"images": [SHOWN]}, "2": {"images": [SAVED]}}, (2, 2), {**SAVED, "nodeId": "2", "mediaType": "images"}),
        ({"1": {"images": [SHOWN], "animated": [True]}}, (1, 1), {**SHOWN, "nodeId": "1", "mediaType": "images"}),
        (
            {"1": {"gifs": [{**SAVED, "format": "video/mp4"}]}},
            (1, 1),
            {**SAVED, "format": "video/mp4", "nodeId": "1", "mediaType": "gifs"},
        ),
        ({"1": {"other": [SAVED]}}, (1, 0), None),
        (
            {"1": {"latents": [{**SAVED, "filename": "a.latent"}]}, "2": {"images": [SHOWN]}},
            (2, 1),
            {**SHOWN, "nodeId": "2", "mediaType": "images"},
        ),
        ({"1": {"values": [1, 2]}}, (0, 0), None),
        ({"1": {"text": ["hello"]}}, (0, 0), {"content": "hello", "nodeId": "1", "mediaType": "text"}),
        ({"1": {"text": [("hello",)]}}, (0, 0), {"content": "hello", "nodeId": "1", "mediaType": "text"}),
        (
            {"1": {"text": ["x" * 1025]}},
            (0, 0),
            {"content": "x" * 1024, "truncated": True, "nodeId": "1", "mediaType": "text"},
        ),
        ({"1": {"text": ["hello"]}, "2": {"images": [SAVED]}}, (1, 1), {**SAVED, "nodeId": "2", "mediaType": "images"}),
        (
            {"1": {"result": [None, "mesh.GLB"]}},
            (1, 1),
            {"filename": "mesh.GLB", "type": "output", "subfolder": "", "mediaType": "3d", "nodeId": "1"},
        ),
        ({"1": {"files": [NOTES]}}, (1, 1), {**NOTES, "nodeId": "1", "mediaType": "files"}),
        ({"1": {"files": [NOTES]}, "2": {"images": [SHOWN]}}, (2, 2), {**SHOWN, "nodeId": "2", "mediaType": "images"}),
        ({"1": {"text": ["hello"], "files": [NOTES]}}, (1, 1), {**NOTES, "nodeId": "1", "mediaType": "files"}),
        ({"1": {"text": [SAVED]}, "2": {"images": [SHOWN]}}, (2, 2), {**SHOWN, "nodeId": "2", "mediaType": "images"}),
        ({"1": "no object", "2": {"images": "no list"}}, (0, 0), None),
    ],
)
def test_a_job_is_shown_by_one_of_its_outputs(outputs: Any, counts: tuple[int, int], preview: Any) -> None:
    """A saved picture before a preview, that before a saved text, that before a shown one; shown texts do not count."""
    job = described(outputs)
    assert (job["outputs_count"], job["previewable_outputs_count"]) == counts
    assert job.get("preview_output") == preview


def test_the_outputs_of_a_job_have_no_gaps() -> None:
    """Empty places are left out, names of 3D models are files; all else is as in the history."""
    model = {"filename": "m.obj", "type": "output", "subfolder": "", "mediaType": "3d"}
    outputs = {"1": {"result": [None, "m.obj", "text", SAVED], "animated": [None], "x": 5}, "2": None}
    assert described(outputs)["outputs"] == {
        "1": {"result": [model, "text", SAVED], "animated": [None], "x": 5},
        "2": None,
    }


@pytest.mark.parametrize("info", [None, [1], "text", {"workflow": [1]}, {"workflow": None}, {"workflow": {}}])
def test_a_client_may_say_anything_of_its_workflow(info: Any) -> None:
    """One that says nonsense does not take the list from all others."""
    running = [(1.0, "p", {}, {"extra_pnginfo": info}, ["1"])]
    listed = jobs.list_jobs(jobs.JobQuery.parse({}), running, [], {})
    assert listed["jobs"] == [{"id": "p", "status": "in_progress", "priority": 1.0, **NO_OUTPUTS}]
