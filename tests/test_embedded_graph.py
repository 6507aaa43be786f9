"""The order in which the embedded server runs nodes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from discomfort.embedded import node_registry
from discomfort.embedded.graph import DynamicPrompt, ExecutionList, NodeInputError, NodeNotFoundError
from discomfort.embedded.graph_utils import GraphBuilder, add_graph_prefix, is_link


class Plain:
    """A node; ``lazy`` is a lazy input."""

    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"a": ("INT", {})}, "optional": {"lazy": ("INT", {"lazy": True})}}

    def run(self) -> None: ...


class Output(Plain):
    """An output node."""

    OUTPUT_NODE = True


class Async(Plain):
    """A node that may wait."""

    async def run(self) -> None: ...  # type: ignore[override]


class Nothing:
    """A cache with the results of some nodes."""

    def __init__(self, *cached: str) -> None:
        self.cached = cached

    def get(self, node_id: str) -> Any:
        return [] if node_id in self.cached else None


@pytest.fixture(autouse=True)
def classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server knows these three classes."""
    monkeypatch.setattr(node_registry, "NODE_CLASS_MAPPINGS", {c.__name__: c for c in (Plain, Output, Async)})


def make(spec: str) -> dict[str, Any]:
    """A prompt from ``"id:Class<source,source ..."``; a source with a ~ is linked to the lazy input."""
    prompt = {}
    for part in spec.split():
        head, _, sources = part.partition("<")
        node_id, _, class_type = head.partition(":")
        inputs: dict[str, Any] = {}
        for index, source in enumerate(filter(None, sources.split(","))):
            name = "lazy" if source[0] == "~" else f"a{index}"
            inputs[name] = [source.lstrip("~"), 0]
        prompt[node_id] = {"class_type": class_type or "Plain", "inputs": inputs}
    return prompt


async def order(spec: str, outputs: str, *cached: str) -> str:
    """The ids in the order they run."""
    todo = ExecutionList(DynamicPrompt(make(spec)), Nothing(*cached))
    for node_id in outputs:
        todo.add_node(node_id)
    ran = ""
    while not todo.is_empty():
        node_id, _, _ = await todo.stage_node_execution()
        assert node_id is not None
        ran += node_id
        todo.complete_node_execution()
    return ran


@pytest.mark.parametrize(
    ("spec", "outputs", "cached", "expected"),
    [
        ("1 2<1 3:Output<2", "3", "", "123"),
        # only what an output needs
        ("1 2<1 3:Output<1 4<2", "3", "", "13"),
        ("1 2<1 3:Output<2", "3", "2", "3"),
        ("1 2<1 3:Output<2", "3", "1", "23"),
        # a cached output node has its turn all the same: it is shown again
        ("1 3:Output<1", "3", "13", "3"),
        # an output as soon as it can run
        ("1 2 3 4<3 8:Output<1 9:Output<4", "89", "", "18349"),
        # an async node before others
        ("1 2:Async 9:Output<1,2", "9", "", "219"),
        # a lazy input is left out
        ("1 2 9:Output<1,~2", "9", "", "19"),
    ],
)
async def test_nodes_run_in_order(spec: str, outputs: str, cached: str, expected: str) -> None:
    """Sources first; then outputs, async nodes and what leads to an output."""
    assert await order(spec, outputs, *cached) == expected


async def test_a_lazy_input_that_is_asked_for_runs_first() -> None:
    """The staged node goes back and waits."""
    todo = ExecutionList(DynamicPrompt(make("1 2 9:Output<1,~2")), Nothing())
    todo.add_node("9")
    assert (await todo.stage_node_execution())[0] == "1"
    todo.complete_node_execution()
    assert (await todo.stage_node_execution())[0] == "9"
    todo.make_input_strong_link("9", "lazy")
    todo.unstage_node_execution()
    for expected in "29":
        assert (await todo.stage_node_execution())[0] == expected
        todo.complete_node_execution()
    assert todo.is_empty()


async def test_only_links_can_be_asked_for() -> None:
    """A constant or an input that is not there is the node's mistake."""
    prompt = make("9:Output")
    prompt["9"]["inputs"]["constant"] = 5
    todo = ExecutionList(DynamicPrompt(prompt), Nothing())
    todo.add_node("9")
    with pytest.raises(NodeInputError, match="constant"):
        todo.make_input_strong_link("9", "constant")
    with pytest.raises(NodeInputError, match="no input"):
        todo.make_input_strong_link("9", "other")


async def test_nodes_that_wait_for_each_other_are_reported() -> None:
    """The error names the node that was expanded into the cycle; without one, the first that cannot run."""
    for parent, blamed in ((None, "9"), ("5", "5")):
        dynprompt = DynamicPrompt(make("5 9:Output<5,1 1<2 2<1"))
        if parent is not None:
            for node_id in "12":
                dynprompt.add_ephemeral_node(node_id, dynprompt.original_prompt.pop(node_id), parent, parent)
        todo = ExecutionList(dynprompt, Nothing("5"))
        todo.add_node("9")
        node_id, details, error = await todo.stage_node_execution()
        assert node_id is None
        assert details is not None
        assert details["node_id"] == blamed
        assert str(error) == "Dependency cycle detected"


async def test_a_long_chain_costs_no_more_per_node_than_a_short_one() -> None:
    """A step looks at the nodes that are ready, not at all that are left."""
    todo = ExecutionList(DynamicPrompt(make("0 " + " ".join(f"{i}<{i - 1}" for i in range(1, 400)))), Nothing())
    todo.add_node("399")
    looked_at: list[str] = []
    todo.pending = _Counting(todo.pending, looked_at)
    while not todo.is_empty():
        await todo.stage_node_execution()
        todo.complete_node_execution()
    assert 400 <= len(looked_at) < 400 * 10


class _Counting(dict[str, Any]):
    """A dict that notes what is read from it."""

    def __init__(self, values: dict[str, Any], looked_at: list[str]) -> None:
        super().__init__(values)
        self.looked_at = looked_at

    def __getitem__(self, key: str) -> Any:
        self.looked_at.append(key)
        return super().__getitem__(key)

    def items(self) -> Any:
        self.looked_at.extend(self)
        return super().items()


async def test_a_node_that_waits_outside_the_graph_lets_others_go_first() -> None:
    """With nothing else to do, the next node is awaited."""
    todo = ExecutionList(DynamicPrompt(make("1:Async 2 9:Output<1,2")), Nothing())
    todo.add_node("9")
    assert (await todo.stage_node_execution())[0] == "1"
    unblock = todo.add_external_block("1")
    todo.unstage_node_execution()
    assert (await todo.stage_node_execution())[0] == "2"
    todo.complete_node_execution()
    waiting = asyncio.create_task(todo.stage_node_execution())
    await asyncio.sleep(0)
    assert not waiting.done()
    unblock()
    assert (await waiting)[0] == "1"


def test_added_nodes_know_where_they_come_from() -> None:
    """Their messages carry the client's node."""
    dynprompt = DynamicPrompt(make("1 2"))
    dynprompt.add_ephemeral_node("1.0.0.1", make("x")["x"], "1", "2")
    dynprompt.add_ephemeral_node("1.0.0.1.0.0.1", make("x")["x"], "1.0.0.1", "1.0.0.1")
    assert dynprompt.get_real_node_id("1.0.0.1.0.0.1") == "1"
    assert dynprompt.get_display_node_id("1.0.0.1.0.0.1") == "2"
    assert dynprompt.get_parent_node_id("1.0.0.1.0.0.1") == "1.0.0.1"
    assert dynprompt.get_parent_node_id("1") is None
    with pytest.raises(NodeNotFoundError):
        dynprompt.get_node("3")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (["1", 0], True),
        (["1", 0.0], True),
        (["1", "0"], False),
        ([1, 0], False),
        (["1", 0, 0], False),
        (("1", 0), False),
        ("1", False),
    ],
)
def test_a_link_is_a_list_of_id_and_slot(value: Any, expected: bool) -> None:
    """Everything else is a constant."""
    assert is_link(value) is expected


def test_builders_of_one_call_do_not_share_ids_and_repeat_them_in_the_next_run() -> None:
    """Ids are deterministic, so cached results are found again."""

    def build() -> list[str]:
        GraphBuilder.set_default_prefix("7", 2)
        first, second = GraphBuilder(), GraphBuilder()
        first.node("Plain", a=1)
        second.node("Plain", id="named", a=1)
        return [*first.finalize(), *second.finalize()]

    assert build() == build() == ["7.2.0.1", "7.2.1.named"]


async def test_calls_that_run_at_once_have_ids_of_their_own() -> None:
    """The prefix belongs to a call, not to the process: async nodes may build after others have begun."""

    async def call(node_id: str) -> str:
        GraphBuilder.set_default_prefix(node_id, 0)
        await asyncio.sleep(0)
        return GraphBuilder().prefix

    assert await asyncio.gather(call("1"), call("2")) == ["1.0.0.", "2.0.0."]


def test_a_built_graph_can_be_edited() -> None:
    """Outputs replaced, inputs set and removed, nodes removed."""
    graph = GraphBuilder("p.")
    source = graph.node("Plain", a=1)
    user = graph.node("Plain", id="user", a=source.out(0), b=source.out(1))
    assert graph.node("Plain", id="user") is graph.lookup_node("user") is user
    graph.replace_node_output("1", 0, 5)
    graph.replace_node_output("1", 1, None)
    user.set_override_display_id("9")
    graph.remove_node("1")
    assert graph.finalize() == {"p.user": {"class_type": "Plain", "inputs": {"a": 5}, "override_display_id": "9"}}


def test_a_graph_can_be_renamed_with_its_links() -> None:
    """Every id gets the prefix, in inputs and outputs, too."""
    graph = {"1": {"class_type": "P", "inputs": {"a": ["2", 0], "b": 3}}, "2": {"class_type": "P"}}
    renamed, outputs = add_graph_prefix(graph, [["1", 0], "x"], "p.")
    assert renamed["p.1"]["inputs"] == {"a": ["p.2", 0], "b": 3}
    assert outputs == (["p.1", 0], "x")
