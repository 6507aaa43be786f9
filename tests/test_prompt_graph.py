"""prompt_graph: recipes of values, and prompts that are filled with them."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from discomfort.prompt_graph import PromptTemplate, check_recipe, is_recipe, link_problems, make_recipe


def port(unique_id: str, source: list[Any] | None = None) -> dict[str, Any]:
    inputs = {"unique_id": unique_id, "tags": "", **({"input_data": source} if source else {})}
    return {"class_type": "DiscomfortPort", "inputs": inputs, "_meta": {"title": f"port {unique_id}"}}


def node(class_type: str, title: str = "", **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs, **({"_meta": {"title": title}} if title else {})}


LOADS = {
    "1": node("Load", "Load Checkpoint", name="base"),
    "2": node("Lora", model=["1", 0], clip=["1", 1], strength=0.5),
    "3": port("model", ["2", 0]),
    "4": port("vae", ["1", 2]),
    "5": node("Unrelated", name="x"),
}
USES = {
    "1": port("model"),
    "2": port("vae"),
    "3": node("Use", model=["1", 0], vae=["2", 0]),
    "4": port("out", ["3", 0]),
}


def recipe_of(prompt: dict[str, Any], port_id: str, kind: str = "MODEL") -> dict[str, Any]:
    return make_recipe(prompt, port_id, kind, "make.json")


def test_a_recipe_has_what_is_behind_the_port_and_nothing_else() -> None:
    before = copy.deepcopy(LOADS)
    recipe = recipe_of(LOADS, "3")
    assert sorted(n["class_type"] for n in recipe["prompt"].values()) == ["Load", "Lora"]
    output_id, slot = recipe["output"]
    assert recipe["prompt"][output_id]["class_type"] == "Lora"
    assert slot == 0
    assert recipe["prompt"][output_id]["inputs"]["strength"] == 0.5
    loader_id = recipe["prompt"][output_id]["inputs"]["model"][0]
    assert recipe["prompt"][loader_id]["_meta"]["title"] == "Load Checkpoint (of make.json, by reference)"
    assert (recipe["type"], recipe["workflow"], recipe["values"]) == ("MODEL", "make.json", {})
    assert is_recipe(recipe)
    assert json.loads(json.dumps(recipe)) == recipe
    assert before == LOADS


def test_recipes_share_the_nodes_that_they_share() -> None:
    """Under whatever ids and titles the same nodes stand."""
    renamed = json.loads(json.dumps(LOADS).replace('["1", ', '["77:1", ').replace('"1":', '"77:1":'))
    renamed["77:1"]["_meta"]["title"] = "Another title"
    model, vae, other = recipe_of(LOADS, "3"), recipe_of(LOADS, "4", "VAE"), recipe_of(renamed, "3")
    assert set(vae["prompt"]) < set(model["prompt"])
    assert set(other["prompt"]) == set(model["prompt"])
    different = copy.deepcopy(LOADS)
    different["1"]["inputs"]["name"] = "other"
    assert not set(recipe_of(different, "3")["prompt"]) & set(model["prompt"])


def test_a_prompt_that_reads_recipes_has_their_nodes_once() -> None:
    recipes = {"model": recipe_of(LOADS, "3"), "vae": recipe_of(LOADS, "4", "VAE")}
    filled = PromptTemplate(USES).fill({}, recipes)
    kinds = sorted(n["class_type"] for n in filled.values())
    assert kinds == ["DiscomfortPort", "Load", "Lora", "Use"]
    use = filled["3"]["inputs"]
    assert filled[use["model"][0]]["class_type"] == "Lora"
    assert use["vae"] == recipes["vae"]["output"]
    assert USES["3"]["inputs"]["model"] == ["1", 0]


def test_a_recipe_of_what_was_made_by_reference_stands_alone() -> None:
    """And says where each node came from first."""
    patch = {"1": port("model"), "2": node("Lora", model=["1", 0], strength=2.0), "3": port("model", ["2", 0])}
    filled = PromptTemplate(patch).fill({}, {"model": recipe_of(LOADS, "3")}, ["model"])
    assert filled["3"]["inputs"]["mode"] == "REF"
    recipe = make_recipe(filled, "3", "MODEL", "patch.json")
    assert sorted(n["class_type"] for n in recipe["prompt"].values()) == ["Load", "Lora", "Lora"]
    titles = {n["_meta"]["title"] for n in recipe["prompt"].values()}
    assert titles == {
        "Load Checkpoint (of make.json, by reference)",
        "Lora (of make.json, by reference)",
        "Lora (of patch.json, by reference)",
    }


def test_a_recipe_names_the_values_it_read() -> None:
    patch = {"1": port("amount"), "2": node("Load", strength=["1", 0]), "3": port("model", ["2", 0])}
    filled = PromptTemplate(patch).fill({"amount": "xxh3:1"})
    recipe = recipe_of(filled, "3")
    assert recipe["values"] == {"amount": "xxh3:1"}
    # With another content it is another node.
    other = recipe_of(PromptTemplate(patch).fill({"amount": "xxh3:2"}), "3")
    assert not set(other["prompt"]) & set(recipe["prompt"])


def test_values_replace_literals_and_get_into_the_recipe() -> None:
    filled = PromptTemplate(LOADS).fill({}, references=["model"], values={"2": {"strength": 0.75}})
    assert filled["2"]["inputs"] == {"model": ["1", 0], "clip": ["1", 1], "strength": 0.75}
    assert filled["4"]["inputs"]["mode"] == "OUTPUT"
    recipe = recipe_of(filled, "3")
    assert recipe["prompt"][recipe["output"][0]]["inputs"]["strength"] == 0.75
    assert LOADS["2"]["inputs"]["strength"] == 0.5


def test_a_long_chain_is_no_problem() -> None:
    prompt = {"0": node("Load")}
    for i in range(1, 5000):
        prompt[str(i)] = node("Lora", model=[str(i - 1), 0], strength=i)
    prompt["out"] = port("model", ["4999", 0])
    assert len(recipe_of(prompt, "out")["prompt"]) == 5000


def test_what_has_no_recipe() -> None:
    with pytest.raises(ValueError, match=r"Nothing arrives at DiscomfortPort #1"):
        recipe_of({"1": port("a")}, "1")
    with pytest.raises(ValueError, match="#9 is read, but does not exist"):
        recipe_of({"1": port("a", ["9", 0])}, "1")
    loop = {"1": node("A", x=["2", 0]), "2": node("A", x=["1", 0]), "3": port("a", ["1", 0])}
    with pytest.raises(ValueError, match="depends on itself"):
        recipe_of(loop, "3")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"discomfort_recipe": 7}, "a recipe of version 7"),
        ({"output": None}, "not whole"),
        ({"output": ["elsewhere", 0]}, "not whole"),
        ({"prompt": []}, "not whole"),
        ({"values": None}, "not whole"),
    ],
)
def test_a_recipe_that_was_changed_is_refused(changes: dict[str, Any], message: str) -> None:
    recipe = recipe_of(LOADS, "3")
    check_recipe(recipe)
    with pytest.raises(ValueError, match=message):
        check_recipe({**recipe, **changes})


def test_links_that_nothing_depends_on_do_no_harm() -> None:
    """The server does not look at them either."""
    prompt = {
        "1": node("Load"),
        "2": port("a", ["1", 0]),
        "8": node("A", x=["9", 0]),
        "9": node("A", x=["8", 0]),
        "7": node("A", x=["nowhere", 0]),
    }
    assert link_problems(prompt, ["2"]) == []
    assert link_problems(prompt, ["7"]) == ["Input 'x' of A #7 reads node nowhere, which does not exist."]
    (cycle,) = link_problems(prompt, ["8"])
    assert "cycle" in cycle
    assert "A #8" in cycle
    assert "A #9" in cycle


@pytest.mark.parametrize("value", [None, {}, {"prompt": {}}, "text", [1]])
def test_other_values_are_no_recipes(value: Any) -> None:
    assert not is_recipe(value)


def test_the_origin_of_a_port_lies_behind_ports_that_hand_on() -> None:
    prompt = {
        "in": port("a"),
        "p": port("b", ["in", 0]),
        "q": port("c", ["p", 0]),
        "made": port("d", ["x", 1]),
        "x": node("Load"),
        "end": port("e", ["made", 0]),
        "out": port("f", ["q", 0]),
        "lost": port("g", ["nowhere", 0]),
    }
    template = PromptTemplate(prompt)
    assert template.origin("out") == ("in", 0)
    assert template.origin("end") == ("x", 1)
    assert template.origin("lost") == ("nowhere", 0)
    assert template.origin("in") is None
    assert template.readers("a") == [("p", "input_data")]
    ring = PromptTemplate({"1": port("a", ["2", 0]), "2": port("b", ["1", 0]), "3": port("c", ["2", 0])})
    assert ring.origin("3") is None


def test_a_port_that_was_written_without_tags_gets_empty_ones() -> None:
    """ComfyUI would refuse it, when it is queued: the input is a required one."""
    written = {"1": node("Load", name="base"), "2": {"class_type": "DiscomfortPort", "inputs": {"unique_id": "out"}}}
    written["2"]["inputs"]["input_data"] = ["1", 0]
    assert PromptTemplate(written).fill({})["2"]["inputs"]["tags"] == ""
    tagged = {**written, "2": port("out", ["1", 0])}
    tagged["2"]["inputs"]["tags"] = "mine"
    assert PromptTemplate(tagged).fill({})["2"]["inputs"]["tags"] == "mine"
