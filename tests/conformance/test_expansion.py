"""Nodes that expand into others while the prompt runs: subgraphs, loops, recursion, what is told and kept of them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from conformance.differences import expected
from conformance.driver import Client, Server, link, node, show


def _expand(nodes: dict[str, Any], result: Any, class_type: str = "ExecExpand", **more: Any) -> dict[str, Any]:
    """A node that expands into these nodes; ``$id`` in ids and links is its own id."""
    inputs = {name: more.pop(name) for name in ("value",) if name in more}
    return node(class_type, graph=json.dumps({"nodes": nodes, "result": result, **more}), **inputs)


async def test_a_node_becomes_a_subgraph(client: Client) -> None:
    """Its result is that of the subgraph; the editor sees the node that it has."""
    nodes = {"$id.a": node("TinyNumber", value=5), "$id.b": node("TinyAdd", a=["$id.a", 0], b=link("1"))}
    prompt = show(link("2"), **{"1": node("TinyNumber", value=2), "2": _expand(nodes, [["$id.b", 0], "constant"])})
    run = await client.run({**prompt, "8": node("TinyShow", value=link("2", 1))})
    assert run.shown("9") == [7]
    assert run.shown("8") == ["constant"]
    order = [data["node"] for data in run.data("executing")]
    assert order[:4] == ["2", "2.a", "1", "2.b"] or order[:4] == ["2", "1", "2.a", "2.b"]
    # The expanding node does not run again when it is finished, and is not said to be executing again.
    assert order.count("2") == 1
    assert {data["display_node"] for data in run.data("executing") if data["node"] in ("2.a", "2.b")} == {"2"}
    state = run.data("progress_state")[-1]["nodes"]["2.b"]
    assert [state[f"{kind}_node_id"] for kind in ("display", "parent", "real")] == ["2", "2", "2"]
    assert state["node_id"] == "2.b"


async def test_what_a_subgraph_shows_is_shown_under_its_own_id(client: Client) -> None:
    """Messages and history name the new node, and the ones it belongs to."""
    nodes = {"$id.show": node("TinyShow", value=5)}
    run = await client.run(show(link("1"), **{"1": _expand(nodes, [1, 2], ui={"values": ["of 1"]})}))
    assert run.shown("1.show") == [5]
    assert run.shown("1") == ["of 1"]
    assert run.history["meta"]["1.show"] == {
        "node_id": "1.show",
        "display_node": "1",
        "parent_node": "1",
        "real_node_id": "1",
    }
    shown = [(data["node"], data["display_node"]) for data in run.data("executed")]
    assert shown == [("1", "1"), ("1.show", "1"), ("9", "9")]


async def test_expansions_in_expansions(client: Client) -> None:
    """Parent, display and real ids of a node two levels down; another node may be shown in its place."""

    def inner(value: int) -> dict[str, Any]:
        graph = {"nodes": {"$later.deep": node("TinyShow", value=value)}, "result": [["$later.deep", 0], 0]}
        return node("ExecExpand", graph=json.dumps(graph))

    middle = {"$id.in": inner(3), "$id.shown": {**inner(4), "override_display_id": "7"}}
    prompt = show(link("1"), **{"1": _expand(middle, [["$id.in", 0], ["$id.shown", 0]])})
    run = await client.run({**prompt, "7": node("TinyNumber", value=7), "8": node("TinyShow", value=link("1", 1))})
    assert (run.shown("9"), run.shown("8")) == ([3], [4])
    metas = {
        key: (meta["display_node"], meta["parent_node"], meta["real_node_id"])
        for key, meta in run.history["meta"].items()
        if "deep" in key
    }
    assert metas == {"1.in.deep": ("1", "1.in", "1"), "1.shown.deep": ("7", "1.shown", "1")}


async def test_recursion_and_loops(client: Client) -> None:
    """A node that expands into itself, to a depth; each round waits for the one within."""
    run = await client.run(show(link("1"), **{"1": node("TinyExpand", n=4)}))
    assert run.shown("9") == [10]
    assert [run.shown(key) for key in run.history["outputs"] if key.endswith("show")].count([1]) == 1
    run = await client.run(show(link("1"), **{"1": node("ExecWhile", total=3, limit=15)}))
    assert run.shown("9") == [15]
    assert len([n for n in run.ran() if n.endswith(".add")]) == 12
    deepest = max(run.data("progress_state")[-1]["nodes"].values(), key=lambda state: len(state["node_id"]))
    assert (deepest["display_node_id"], deepest["real_node_id"]) == ("1", "1")


async def test_a_loop_that_is_changed_runs_only_what_is_new(client: Client) -> None:
    """A loop with one round more finds the first rounds in the cache of its ids, if they are the same."""
    loop = {"1": node("ExecFor", count=3, start=0, shown_as="")}
    first = await client.run(show(link("1"), **loop))
    assert first.shown("9") == [3]
    longer = await client.run(show(link("1"), **{"1": node("ExecFor", count=5, start=0, shown_as="")}))
    assert longer.shown("9") == [5]
    assert [n for n in longer.ran() if "add" in n] == ["1.0.0.add3", "1.0.0.add4"]
    # Only the client's nodes are named as cached.
    assert longer.cached() == set()


async def test_other_nodes_may_be_shown_as_busy(client: Client) -> None:
    """override_display_id."""
    prompt = show(link("1"), **{"1": node("ExecFor", count=1, start=0, shown_as="9")})
    run = await client.run(prompt)
    assert {d["display_node"] for d in run.data("executing") if d["node"] and d["node"].startswith("1.")} == {"9"}
    (shown,) = [d for d in run.data("executed") if d["node"] != "9"]
    assert shown["display_node"] == "9"
    assert run.history["meta"][shown["node"]]["parent_node"] == "1"


async def test_a_cached_expansion_is_not_made_again(client: Client) -> None:
    """Its result is kept as that of the node; what its nodes have shown is not shown again."""
    prompt = show(link("1"), **{"1": node("TinyExpand", n=1)})
    first = await client.run(prompt)
    assert {"1", "9", "1.0.0.show"} <= set(first.history["outputs"]) | {"1"}
    again = await client.run(prompt)
    assert again.cached() == {"1", "9"}
    assert again.ran() == []
    assert again.shown("9") == [1]
    assert set(again.history["outputs"]) == {"9"}


async def test_expansion_per_item(client: Client) -> None:
    """Some calls expand, others return: the results keep their order, and each call has its own ids."""
    prompt = {
        "1": node("ExecList", items="[2, 3, 4]"),
        "2": node("ExecExpandItems", value=link("1")),
        "3": node("TinyJoin", values=link("2"), mark="m"),
        "9": node("TinyShow", value=link("3")),
    }
    run = await client.run(prompt)
    assert run.shown("9") == ["[3, 300, 5] ['m'] ['3']"]
    assert {n.rpartition(".")[0] for n in run.ran() if "." in n} == {"2.0.0", "2.2.0"}


async def test_a_list_from_a_subgraph_is_spread_over_the_outputs(client: Client) -> None:
    """The items of a list that an expansion returns take the places of outputs, one after the other."""
    nodes = {"$id.n": node("TinyCount", n=3)}
    prompt = {
        "1": _expand(nodes, [["$id.n", 0]]),
        "8": node("TinyShow", value=link("1")),
        "9": node("TinyShow", value=link("1", 1)),
    }
    run = await client.run(prompt)
    assert (run.shown("8"), run.shown("9")) == ([0], [1])


async def test_raw_links_lead_into_the_subgraph(client: Client) -> None:
    """A node that takes a raw link hands it on: what it leads to runs when the subgraph needs it."""
    nodes = {"$id.add": node("TinyAdd", a="$link", b=1)}
    prompt = {
        "1": node("TinyNumber", value=4),
        "2": _expand(nodes, [["$id.add", 0], 0], value=link("1")),
        "9": node("TinyShow", value=link("2")),
    }
    run = await client.run(prompt)
    assert run.shown("9") == [5]
    # A raw link is one to wait for all the same.
    assert run.ran() == ["1", "2", "2.add", "9"]


async def test_blockers_come_out_of_and_go_into_expansions(client: Client) -> None:
    """A blocker as the whole result blocks all outputs; one that goes in stops the expansion."""
    nodes = {"$id.n": node("TinyShow", value=3)}
    prompt = {
        "1": _expand(nodes, {"block": None}),
        "2": node("TinyBlock", message="not in", bare=False),
        "3": node("ExecExpandItems", value=link("2")),
        "7": node("TinyShow", value=link("1")),
        "8": node("TinyShow", value=link("1", 1)),
        "9": node("TinyShow", value=link("3")),
    }
    run = await client.run(prompt)
    assert set(run.history["outputs"]) == {"1.n"}
    assert run.history["status"]["status_str"] == "success"
    (error,) = run.data("execution_error")
    assert (error["node_id"], error["exception_message"]) == ("3", "Execution Blocked: not in")


async def test_ids_must_be_new(server: Server, client: Client) -> None:
    """An id that the prompt has already is refused; later versions do not check, and lose what the node showed."""
    nodes = {"9": node("TinyNumber", value=3)}
    run = await client.run(show(link("1"), **{"1": _expand(nodes, [1, 2])}))
    if server.version >= (0, 8):
        assert run.history["status"]["status_str"] == "success"
        assert run.history["outputs"] == {}
        return
    error = run.error()
    assert error["node_id"] == "1"
    assert error["exception_type"] == "execution.DuplicateNodeError"
    assert error["exception_message"] == (
        "Attempt to add duplicate node 9. Ensure node ids are unique and deterministic or use "
        "graph_utils.GraphBuilder.\n"
    )


@pytest.mark.parametrize(
    ("nodes", "result", "raised"),
    [
        ({"$id.x": node("NoSuchClass")}, [1, 2], "KeyError"),
        ({"$id.x": node("TinyFail", a=1, what="value")}, [["$id.x", 0]], "ValueError"),
        ({"$id.x": node("TinyNumber")}, [["$id.x", 0]], "TypeError"),
        ({}, [["nowhere", 0]], "comfy_execution.graph.NodeNotFoundError"),
    ],
    ids=["class", "raises", "inputs", "link"],
)
async def test_errors_of_expanded_nodes_are_the_expanding_nodes(
    client: Client, nodes: dict[str, Any], result: list[Any], raised: str
) -> None:
    """The editor knows only the node that was expanded; no validation is done of what it expands into."""
    run = await client.run(show(link("1"), **{"1": _expand(nodes, result)}))
    error = run.error()
    assert (error["node_id"], error["node_type"], error["exception_type"]) == ("1", "ExecExpand", raised)
    assert run.history["status"]["status_str"] == "error"


async def test_an_expansion_without_a_result_fails(client: Client) -> None:
    """Nothing says what its outputs are."""
    graph = json.dumps({"nodes": {"$id.x": node("TinyNumber", value=1)}})
    error = (await client.run(show(link("1"), **{"1": node("ExecExpand", graph=graph)}))).error()
    assert (error["exception_type"], error["exception_message"]) == (
        "TypeError",
        "object of type 'NoneType' has no len()\n",
    )


async def test_a_cycle_made_by_expansion_is_found(server: Server, client: Client) -> None:
    """Nodes that wait for each other end the prompt, and the node that made them is blamed."""
    nodes = {"$id.x": node("TinyAdd", a=["$id.y", 0], b=1), "$id.y": node("TinyAdd", a=["$id.x", 0], b=1)}
    prompt = {
        "1": node("TinyNumber", value=1),
        "2": _expand(nodes, [["$id.x", 0], 1], value=link("1")),
        "9": node("TinyShow", value=link("2")),
    }
    run = await client.run(prompt)
    error = run.error()
    assert (error["node_id"], error["node_type"]) == ("2", "ExecExpand")
    assert error["exception_message"] == "Dependency cycle detected"
    assert error["exception_type"] == "graph.DependencyCycleError"
    assert error["traceback"] == []
    assert sorted(error["current_outputs"]) == ["1", "2", "9"]
    status = expected(server, "cycle status", comfyui="success", embedded="error")
    assert run.history["status"]["status_str"] == status


async def test_outputs_in_a_subgraph_run_even_if_nothing_uses_them(client: Client) -> None:
    """Other nodes of it run only if they are needed."""
    nodes = {
        "$id.show": node("TinyShow", value=1),
        "$id.used": node("TinyNumber", value=2),
        "$id.unused": node("TinyNumber", value=3),
        "$id.unused2": node("TinyAdd", a=["$id.unused", 0], b=1),
    }
    run = await client.run(show(link("1"), **{"1": _expand(nodes, [["$id.used", 0], 0])}))
    assert set(run.ran()) == {"1", "1.show", "1.used", "9"}


async def test_an_expanding_output_node_shows_when_it_expands(client: Client) -> None:
    """Its own ui comes first, and again when it is cached."""
    prompt = {"1": _expand({"$id.n": node("TinyShow", value=1)}, [1, 2], "ExecExpandEnd", ui={"values": [5]})}
    run = await client.run(prompt)
    assert [data["node"] for data in run.data("executed")] == ["1", "1.n"]
    again = await client.run(prompt)
    assert [data["node"] for data in again.data("executed")] == ["1"]
    assert again.shown("1") == [5]
