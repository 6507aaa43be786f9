"""The embedded server and a real ComfyUI do the same with the same prompts.

Both get the package of tiny nodes. What they send over the websocket, answer over HTTP and keep in the history
must be equal, apart from what cannot be: times, ids, the inside of tracebacks, and the order of what ComfyUI
keeps in sets. Run with COMFYUI_PATH naming 0.3.64 or 0.8.0.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
import pytest_asyncio
from conformance import driver

node, link, show = driver.node, driver.link, driver.show

pytestmark = [
    pytest.mark.real_comfyui,
    pytest.mark.skipif("COMFYUI_PATH" not in os.environ, reason="COMFYUI_PATH does not name a ComfyUI"),
    pytest.mark.asyncio(loop_scope="module"),
]


_NUMBER = {"1": node("TinyNumber", value=3)}
_SUM = {"1": node("TinyNumber", value=3), "2": node("TinyAdd", a=link("1"), b=4)}

# Name -> prompts run one after the other; each a prompt, or (prompt, further fields of POST /prompt).
SCENARIOS: dict[str, list[Any]] = {
    "changed, then cached": [show(link("2"), **_SUM), show(link("2"), **_SUM)],
    "changed value": [show(link("2"), **_SUM), show(link("2"), **{**_SUM, "1": node("TinyNumber", value=5)})],
    "A, B, A": [show(link("1"), **_NUMBER), show("text"), show(link("1"), **_NUMBER)],
    "two outputs": [{**_SUM, "8": node("TinyShow", value=link("1")), "9": node("TinyShow", value=link("2"))}],
    "partial": [
        (
            {**_SUM, "8": node("TinyShow", value=link("1")), "9": node("TinyShow", value=link("2"))},
            {"partial_execution_targets": ["8"]},
        )
    ],
    "constants converted": [show(link("1"), **{"1": node("TinyNumber", value="7", note=5, scale="1.5")})],
    "wrapped list": [show({"__value__": ["1", 0, 2]})],
    "progress": [show(link("1"), **{"1": node("TinySteps", steps=3, seconds=0, preview=False, seed=1)})],
    "preview": [show(link("1"), **{"1": node("TinySteps", steps=2, seconds=0, preview=True, seed=2)})],
    "node raises": [show(link("1"), **{"1": node("TinyFail", a=3, what="value")})],
    "node raises after others": [show(link("3"), **_SUM, **{"3": node("TinyFail", a=link("2"), what="value")})],
    "node returns none": [show(link("1"), **{"1": node("TinyFail", a=3, what="none")})],
    "out of memory": [show(link("1"), **{"1": node("TinyFail", a=3, what="memory")})],
    "is_changed nan": [show(link("1"), **{"1": node("TinyChanging", how="nan")})] * 2,
    "is_changed math.nan": [show(link("1"), **{"1": node("TinyChanging", how="math.nan")})] * 2,
    "is_changed constant": [
        show(link("1"), **{"1": node("TinyChanging", how="constant")}),
        (show(link("1"), **{"1": node("TinyChanging", how="constant")}), {"extra_data": {"extra_pnginfo": {"a": 1}}}),
    ],
    "is_changed raises": [show(link("1"), **{"1": node("TinyChanging", how="raise")})] * 2,
    "not idempotent": [
        {
            **{i: node("TinyUnique", value=1) for i in "12"},
            "8": node("TinyShow", value=link("1")),
            "9": node("TinyShow", value=link("2")),
        }
    ],
    "equal nodes": [
        {
            **{i: node("TinyNumber", value=1) for i in "12"},
            "3": node("TinyAdd", a=link("1"), b=link("2")),
            "9": node("TinyShow", value=link("3")),
        }
    ],
    "lists": [
        {
            "1": node("TinyCount", n=3),
            "2": node("TinyAdd", a=link("1"), b=10),
            "3": node("TinyJoin", values=link("2"), mark="m"),
            "8": node("TinyShow", value=link("2")),
            "9": node("TinyShow", value=link("3")),
        }
    ],
    "empty list": [show(link("2"), **{"1": node("TinyCount", n=0), "2": node("TinyAdd", a=link("1"), b=1)})],
    "lazy": [
        show(link("3"), **_SUM, **{"3": node("TinyLazy", second=second, a=link("1"), b=link("2"))})
        for second in (False, True)
    ],
    "lazy constant": [show(link("3"), **_NUMBER, **{"3": node("TinyLazy", second=True, a=link("1"), b=5)})],
    "async": [
        {
            **{i: node("TinyAsync", seconds=0.05, value=int(i), fail=False) for i in "12"},
            "3": node("TinyAdd", a=link("1"), b=link("2")),
            "9": node("TinyShow", value=link("3")),
        }
    ],
    "async fails": [show(link("1"), **{"1": node("TinyAsync", seconds=0.05, value=1, fail=True)})],
    "async at once": [show(link("1"), **{"1": node("TinyAsync", seconds=0, value=1, fail=False)})],
    "block silently": [
        {
            "1": node("TinyBlock", message="", bare=False),
            "8": node("TinyShow", value=link("1")),
            "9": node("TinyShow", value=1),
        }
    ],
    "block with message": [
        {
            "1": node("TinyBlock", message="no", bare=True),
            "2": node("TinyAdd", a=link("1"), b=1),
            "9": node("TinyShow", value=link("2")),
        }
    ],
    "expand": [show(link("1"), **{"1": node("TinyExpand", n=2)})] * 2,
    "hidden": [
        (
            {"9": node("TinyHidden", seed=1)},
            {"extra_data": {"extra_pnginfo": {"workflow": {"id": "w"}}, "auth_token_comfy_org": "secret"}},
        ),
        {"9": node("TinyHidden", seed=2, mode="given")},
    ],
    # refused
    "empty": [{}],
    "no outputs": [_NUMBER],
    "no class_type": [{"1": {"inputs": {}}, **show(1)}],
    "unknown class": [show(link("1"), **{"1": node("NoSuch")})],
    "no inputs": [{"9": {"class_type": "TinyShow"}}],
    "missing input": [show(link("1"), **{"1": node("TinyNumber")})],
    "too small": [show(link("1"), **{"1": node("TinyNumber", value=-1)})],
    "too big": [show(link("1"), **{"1": node("TinyNumber", value=101)})],
    "not a number": [show(link("1"), **{"1": node("TinyNumber", value="x")})],
    "not in list": [show(link("1"), **{"1": node("TinyText", choice="three", long="1")})],
    "not in long list": [show(link("1"), **{"1": node("TinyText", choice="one", long="x")})],
    "wrong type": [
        show(link("2"), **{"1": node("TinyText", choice="one", long="1"), "2": node("TinyNumber", value=link("1"))})
    ],
    "bad link": [show(link("1"), **{"1": node("TinyNumber", value=["1", 0, 0])})],
    "link to nowhere": [show(link("1"), **{"1": node("TinyNumber", value=link("77"))})],
    "output linked to nowhere": [show(link("77"))],
    "no such slot": [show(link("1", 5), **_NUMBER)],
    "own check says no": [show(link("1"), **{"1": node("TinyChecked", value=15, other=1)})],
    "own check says why": [show(link("1"), **{"1": node("TinyChecked", value=25, other=1)})],
    "own check raises": [show(link("1"), **{"1": node("TinyChecked", value=13, other=1)})],
    "own check and range": [show(link("1"), **{"1": node("TinyChecked", value=7, other=7)})],
    "own types": [
        show(link("2"), **{"1": node("TinyText", choice="one", long="1"), "2": node("TinyTyped", value=link("1"))}),
        show(link("2"), **{"1": node("TinyImage", size=8, grey=0.5), "2": node("TinyTyped", value=link("1"))}),
    ],
    "one output refused": [{**_NUMBER, "8": node("TinyShow", value=link("1")), "9": node("TinyShow")}],
    "own checks say no": [
        show(link("1"), **{"1": node(f"ExecChecks{kind}", answer=answer, number=5)})
        for kind in ("", "All", "Some", "Async", "Lists", "Nothing")
        for answer in ("no", "none", "because", "raise", "blocker")
    ],
    "choices": [show(link("1"), **{"1": node("ExecCombo", choice=choice)}) for choice in ("x", "z", None, 5)],
    "unions": [
        show(link("2", 2), **{"1": node("ExecUnion"), "2": node("ExecUnion", either=link("1", slot))})
        for slot in range(3)
    ],
    "inputs of any name": [
        show(link("2"), **_NUMBER, **{"2": node("ExecDynamic", a=link("1"), raw=link("1"), b=[1, 2, 3], c={"x": 1})})
    ],
    "declared inputs": [
        show(link("2"), **_NUMBER, **{"2": node("ExecDeclared", a="5", b=link("1"), raw=link("1"), c=link("1"), d=1)})
    ],
    # lazy inputs
    **{
        f"lazy {kind} {wants}": [
            show(
                link("5"),
                **{str(i): node("ExecNote", name=f"n{i}", value=i) for i in (1, 2, 3)},
                **{"5": node(kind, wants=wants, a=link("1"), b=link("2"), c="constant", eager=link("3"))},
            )
        ]
        * 2
        for kind in ("ExecLazy", "ExecLazyAsync")
        # Not two at once: ComfyUI computes them in the order of a set.
        for wants in ("", "a b", "b eager", "nosuch")
    },
    "lazy oddities": [
        show(link("2"), **_NUMBER, **{"2": node("ExecLazyOdd", how=how, a=link("1"))})
        for how in ("none", "text", "tuple", "mixed", "unknown", "self", "raise")
    ],
    # lists and blocked values
    "lists of all lengths": [
        show(
            link("3"),
            **{"1": node("ExecList", items=a), "2": node("ExecList", items=b)},
            **{"3": node(kind, a=link("1"), b=link("2"))},
        )
        for kind in ("ExecItems", "ExecWhole")
        for a, b in (("[]", "[]"), ("[1]", "[]"), ("[1, 2]", "[3]"), ('[{"block": "b"}, 2]', "[1, 2, 3]"))
    ],
    "one blocker as a list": [
        {
            "1": node("ExecListBlocked", message="m"),
            "2": node("ExecNote", name="n", value=link("1")),
            "9": node("TinyShow", value=link("2")),
        }
    ],
    "what is shown": [{"9": node("ExecUi", value=5, how=how)} for how in ("ui", "both", "result", "nothing", "blocker")]
    * 2,
    # errors
    "async node fails beside others": [
        {
            "1": node("ExecAfter", how="raise", value=1),
            "2": node("ExecAfter", how="cancelled", value=1),
            "3": node("TinyAdd", a=link("1"), b=link("2")),
            "9": node("TinyShow", value=link("3")),
        }
    ],
    "async node interrupts": [show(link("1"), **{"1": node("ExecAfter", how="interrupt", value=1)})],
    # expansion
    **{
        f"expand {name}": [show(link("1"), **{"1": node("ExecExpand", graph=json.dumps(graph))})] * 2
        for name, graph in {
            "into one": {"nodes": {"$id.a": node("TinyNumber", value=5)}, "result": [["$id.a", 0], 1]},
            "into an output": {"nodes": {"$id.a": node("TinyShow", value=5)}, "result": [1, 2], "ui": {"values": [6]}},
            "into a list": {"nodes": {"$id.a": node("TinyCount", n=2)}, "result": [["$id.a", 0]]},
            "into a blocker": {"nodes": {}, "result": {"block": "blocked"}},
            "without a result": {"nodes": {"$id.a": node("TinyNumber", value=5)}},
            "with a failing node": {"nodes": {"$id.a": node("TinyFail", a=1, what="value")}, "result": [["$id.a", 0]]},
            "with an unknown class": {"nodes": {"$id.a": node("NoSuch")}, "result": [1, 2]},
            "with a link to nowhere": {"nodes": {}, "result": [["nowhere", 0]]},
            "shown elsewhere": {
                "nodes": {"$id.a": {**node("TinyShow", value=5), "override_display_id": "9"}},
                "result": [["$id.a", 0], 1],
            },
        }.items()
    },
    "expand a loop": [show(link("1"), **{"1": node("ExecWhile", total=1, limit=n)}) for n in (3, 3, 5)],
    "expand a longer loop": [show(link("1"), **{"1": node("ExecFor", count=n, start=1, shown_as="9")}) for n in (2, 4)],
    "expand items": [
        {
            "1": node("ExecList", items='[1, 2, {"block": "b"}, 4]'),
            "2": node("ExecExpandItems", value=link("1")),
            "9": node("TinyShow", value=link("2")),
        }
    ],
    "expand and then fail": [
        {
            "1": node("TinyExpand", n=1),
            "2": node("TinyFail", a=link("1"), what="value"),
            "9": node("TinyShow", value=link("2")),
        },
    ]
    * 2,
    "objects": [show(link("1"), **{"1": node("ExecKeep", name=name)}) for name in "aab"],
    "is_changed answers": [
        show(link("1"), **{"1": node("ExecChanged", how=how, value=1)}) for how in ("none", "list", "bytes", "raise")
    ],
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def servers(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[list[Any]]:
    """The embedded server and the real one."""
    started = []
    try:
        for start in (driver.Server.embedded, driver.Server.comfyui):
            base = tmp_path_factory.mktemp(start.__name__)
            driver.install_pack(base)
            started.append(start(base))
        for server in started:
            await server.wait_until_ready()
        yield started
    finally:
        for server in started:
            server.stop()


def _normal(value: Any, prompt_id: str) -> Any:
    """A message or answer without what differs from run to run."""
    if isinstance(value, Mapping):
        result = {}
        for key, item in value.items():
            if key in ("timestamp", "sid", "create_time", "current_outputs", "dependent_outputs", "executed"):
                item = sorted(item) if isinstance(item, list) else "..."
            elif key == "traceback":
                # The last frame is the node's, the others the server's.
                item = str(item[-1]).rsplit(", in ", 1)[-1] if item and "tiny" in str(item[-1]) else bool(item)
            elif key in ("outputs", "nodes") and isinstance(item, list):
                item = sorted(item)
            if key != "create_time":
                result[key] = _normal(item, prompt_id)
        return result
    if isinstance(value, (list, tuple)):
        return [_normal(item, prompt_id) for item in value]
    if isinstance(value, bytes):
        return f"{len(value)} bytes" if b"JFIF" not in value[:40] else "jpeg"
    if isinstance(value, str):
        return value.replace(prompt_id, "PROMPT_ID") if prompt_id else value
    return value


def _sorted_errors(response: dict[str, Any]) -> dict[str, Any]:
    """A refusal with the errors of a node in a fixed order: ComfyUI goes through a set of inputs."""
    for entry in response.get("node_errors", {}).values():
        entry["errors"].sort(key=lambda error: (error["type"], error["details"]))
    if isinstance(response.get("error"), dict):
        response["error"]["details"] = sorted(response["error"]["details"].split("\n"))
    return response


async def _observe(server: Any, prompts: list[Any], flags: Any) -> list[Any]:
    """All a client sees of prompts run one after the other on a server that has forgotten what was before."""
    observed = []
    async with driver.connect(server, flags=flags) as client:
        await client.forget()
        for item in prompts:
            prompt, fields = item if isinstance(item, tuple) else (item, {})
            run = await client.run(prompt, **fields)
            prompt_id = str(run.response.get("prompt_id", ""))
            response = _sorted_errors(run.response)
            response.pop("number", None)
            if run.history:
                # ComfyUI keeps outputs in the order of a set
                prompt_entry = run.history["prompt"]
                prompt_entry[0] = "number"
                prompt_entry[3].pop("client_id")
                prompt_entry[3].pop("auth_token_comfy_org", None)
                prompt_entry[4].sort()
            observed.append(
                {
                    "status": run.status,
                    "response": _normal(response, prompt_id),
                    "messages": [_normal(m, prompt_id) for m in run.messages],
                    "history": _normal(run.history, prompt_id),
                }
            )
    return observed


# Scenarios in which later versions say something else than 0.3.64, which the embedded server follows: since when, what.
LATER: dict[str, tuple[tuple[int, ...], str]] = {
    "expand into an output": ((0, 8), "the history lacks what an expanding node has shown while it was cached"),
    "progress": ((0, 11), "steps that follow too closely are not sent"),
    "no class_type": ((0, 12), "the error has a type of its own, missing_node_type"),
    "unknown class": ((0, 12), "the error has a type of its own, missing_node_type"),
    "choices": ((0, 21), "a refused value is shown without quotes unless it is a text"),
    "expand a loop": ((0, 21), "the nodes of a loop are begun in another order"),
}


def _comparable(observed: dict[str, Any], of_a_set: bool) -> list[Any]:
    """The messages; of prompts with several outputs in no order, as ComfyUI runs a set of outputs.

    The progress of all nodes, repeated at each step, then depends on that order, too.

    Args:
        of_a_set: ComfyUI runs something else of the prompt in the order of a set.
    """
    messages: list[Any] = observed["messages"]
    if not of_a_set and (not observed["history"] or len(observed["history"]["prompt"][4]) == 1):
        return messages
    return sorted(json.dumps(m, sort_keys=True) for m in messages if m[0] != "progress_state")


@pytest.mark.parametrize("name", SCENARIOS)
async def test_prompts_are_treated_alike(servers: list[Any], name: str) -> None:
    """Answers, messages and history of a scenario are the same on both."""
    since, what = LATER.get(name, (None, ""))
    if since is not None and servers[1].version >= since:
        pytest.skip(f"since ComfyUI {'.'.join(map(str, since))}: {what}")
    flags = {"supports_preview_metadata": True} if name == "preview" else None
    embedded, real = [await _observe(server, SCENARIOS[name], flags) for server in servers]
    # Inputs that a node asks for together.
    of_a_set = name.endswith("a+b")
    for mine, theirs in zip(embedded, real, strict=True):
        assert mine["response"] == theirs["response"]
        assert mine["status"] == theirs["status"]
        assert _comparable(mine, of_a_set) == _comparable(theirs, of_a_set)
        assert mine["history"] == theirs["history"]
