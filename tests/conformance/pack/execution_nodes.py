"""Tiny nodes that show how prompts are validated, scheduled, called and cached. Imported by the package."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import threading
import weakref
from typing import Any, ClassVar

import comfy.model_management
from aiohttp import web
from comfy.utils import ProgressBar
from comfy_execution.graph import ExecutionBlocker
from comfy_execution.graph_utils import GraphBuilder
from comfy_execution.utils import get_executing_context
from server import PromptServer


class AnyType(str):
    """A type that is unequal to none."""

    def __ne__(self, other: object) -> bool:
        return False


ANY = AnyType("*")

# What nodes have noted, oldest first; a test empties it. Nodes add from the executor's thread, routes read.
NOTES: list[str] = []
# Marks that the package's handlers have found in the body of POST /prompt.
HANDLED: list[str] = []
# Names on which ExecHold waits -> what releases it.
RELEASES: dict[str, threading.Event] = {}
# Values made by ExecTrack and ExecKeep that are still referred to.
ALIVE: weakref.WeakSet[Tracked] = weakref.WeakSet()


class Tracked:
    """A value that can be seen to be alive."""

    def __init__(self, name: str) -> None:
        self.name = name
        ALIVE.add(self)


@PromptServer.instance.routes.get("/tiny/notes")
async def take_notes(_: web.Request) -> web.Response:
    """What nodes have noted since the last request."""
    taken = NOTES[:]
    del NOTES[: len(taken)]
    return web.json_response(taken)


@PromptServer.instance.routes.get("/tiny/alive")
async def get_alive(_: web.Request) -> web.Response:
    """The names of all tracked values that something refers to."""
    gc.collect()
    return web.json_response(sorted(value.name for value in ALIVE))


@PromptServer.instance.routes.get("/tiny/release/{name}")
async def release(request: web.Request) -> web.Response:
    """Let the ExecHold of this name end, now or when it comes to it."""
    RELEASES.setdefault(request.match_info["name"], threading.Event()).set()
    return web.Response()


@PromptServer.instance.routes.get("/tiny/handled")
async def get_handled(_: web.Request) -> web.Response:
    """The marks that the package's handlers have found, oldest first."""
    return web.json_response(HANDLED)


def _change_prompt(body: dict[str, Any]) -> dict[str, Any]:
    """An on_prompt handler: notes the mark of a body, and puts its text where "MARK" stands."""
    mark = body.get("tiny_mark")
    if mark is None:
        return body
    HANDLED.append(mark)
    return json.loads(json.dumps(body).replace("MARK", mark))


def _broken_handler(body: dict[str, Any]) -> dict[str, Any]:
    """An on_prompt handler that raises: the next one gets the body all the same."""
    if "tiny_mark" in body:
        raise RuntimeError("the handler is broken")
    return body


PromptServer.instance.add_on_prompt_handler(_broken_handler)
PromptServer.instance.add_on_prompt_handler(_change_prompt)


class _Exec:
    CATEGORY = "tiny/execution"
    FUNCTION = "run"
    RETURN_TYPES: tuple[Any, ...] = (ANY,)


class ExecNote(_Exec):
    """Passes a value on and notes that it ran."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"name": ("STRING", {}), "value": (ANY, {})}}

    def run(self, name: str, value: Any) -> tuple[Any]:
        NOTES.append(name)
        return (value,)


class ExecHold(_Exec):
    """Waits in the executor's thread until it is released over HTTP, or interrupted; then passes its value on."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"name": ("STRING", {}), "value": (ANY, {})}}

    def run(self, name: str, value: Any) -> tuple[Any]:
        event = RELEASES.setdefault(name, threading.Event())
        for _ in range(6000):
            comfy.model_management.throw_exception_if_processing_interrupted()
            if event.wait(0.01):
                return (value,)
        raise TimeoutError(f"nobody has released {name}")


class ExecDeaf(_Exec):
    """Waits as ExecHold does, but hears no interruption; its client gets a message when it has begun."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"name": ("STRING", {}), "value": (ANY, {})}}

    def run(self, name: str, value: Any) -> tuple[Any]:
        server = PromptServer.instance
        server.send_sync("tiny.begun", {"name": name}, server.client_id)
        if not RELEASES.setdefault(name, threading.Event()).wait(60):
            raise TimeoutError(f"nobody has released {name}")
        return (value,)


class ExecSteps(_Exec):
    """Reports steps; under another node's name if asked to."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"values": ("STRING", {}), "total": ("INT", {})}, "optional": {"node": ("STRING", {})}}

    def run(self, values: str, total: int, node: str | None = None) -> tuple[int]:
        bar = ProgressBar(total) if node is None else ProgressBar(total, node_id=node)
        for value in values.split(","):
            if value.startswith("+"):
                bar.update(int(value))
            else:
                bar.update_absolute(int(value), total)
        return (total,)


# -- lazy inputs ---------------------------------------------------------------------------------------------


class ExecLazy(_Exec):
    """Asks for lazy inputs as ``wants`` says: names separated by spaces, one after the other; a + joins names.

    Shows which inputs it had: ``a=1 b=None``.
    """

    RETURN_TYPES = ("STRING",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"wants": ("STRING", {}), "a": (ANY, {"lazy": True})},
            "optional": {"b": (ANY, {"lazy": True}), "c": (ANY, {"lazy": True}), "eager": (ANY, {})},
        }

    def check_lazy_status(self, wants: str, **inputs: Any) -> Any:
        NOTES.append(f"asked {_shown(inputs)}")
        for group in wants.split():
            missing = [name for name in group.split("+") if inputs.get(name) is None]
            if missing:
                return missing
        return []

    def run(self, wants: str, **inputs: Any) -> tuple[str]:
        return (_shown(inputs),)


class ExecLazyAsync(ExecLazy):
    """As ExecLazy, after a while."""

    async def check_lazy_status(self, wants: str, **inputs: Any) -> Any:
        await asyncio.sleep(0.01)
        return super().check_lazy_status(wants, **inputs)


class ExecLazyOdd(_Exec):
    """Answers what makes no sense."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"how": ("STRING", {}), "a": (ANY, {"lazy": True})},
        }

    def check_lazy_status(self, how: str, a: Any) -> Any:
        answers = {
            "none": None,
            "text": "a",
            "tuple": ("a",),
            "mixed": [None, 5],
            "unknown": ["nosuch"],
            "self": ["how"],
        }
        if how == "raise":
            raise RuntimeError("cannot say what is needed")
        return answers[how]

    def run(self, how: str, a: Any) -> tuple[str]:
        return (f"{how} {a}",)


class ExecLazyLists(_Exec):
    """Gets lists and asks for its lazy input if the first of ``flags`` is set."""

    INPUT_IS_LIST = True
    RETURN_TYPES = ("STRING",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"flags": (ANY, {}), "a": (ANY, {"lazy": True})}}

    def check_lazy_status(self, flags: list[Any], a: Any) -> list[str]:
        NOTES.append(f"asked flags={flags} a={list(a)}")
        return ["a"] if flags[0] and a[0] is None else []

    def run(self, flags: list[Any], a: Any) -> tuple[str]:
        return (f"flags={flags} a={list(a)}",)


def _shown(inputs: dict[str, Any]) -> str:
    return " ".join(f"{name}={inputs[name]}" for name in sorted(inputs))


# -- caching -------------------------------------------------------------------------------------------------


class ExecTrack(_Exec):
    """Makes a tracked value. What is linked to it does not matter."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"name": ("STRING", {})}, "optional": {"after": (ANY, {}), "fail": ("BOOLEAN", {})}}

    def run(self, name: str, after: Any = None, fail: bool = False) -> tuple[Tracked]:
        value = Tracked(name)
        if fail:
            raise RuntimeError(f"{name} fails")
        return (value,)


class ExecTrackAsync(ExecTrack):
    """As ExecTrack, after a while."""

    async def run(self, name: str, after: Any = None, fail: bool = False) -> tuple[Tracked]:  # type: ignore[override]
        await asyncio.sleep(0.01)
        return super().run(name, after, fail)


class ExecTrackEnd(ExecTrack):
    """An output node with a tracked value."""

    OUTPUT_NODE = True


class ExecTrackExpand(ExecTrack):
    """Expands into two ExecTrack, ``name`` with .1 and .2."""

    def run(self, name: str, after: Any = None, fail: bool = False) -> Any:
        graph = GraphBuilder()
        first = graph.node("ExecTrack", name=f"{name}.1")
        second = graph.node("ExecTrack", name=f"{name}.2", after=first.out(0), fail=fail)
        return {"result": (second.out(0),), "expand": graph.finalize()}


class ExecKeep(_Exec):
    """Keeps a tracked value in the node itself, and counts its calls there."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"name": ("STRING", {})}, "optional": {"after": (ANY, {})}}

    def __init__(self) -> None:
        self.calls = 0
        self.kept: Tracked | None = None

    def run(self, name: str, after: Any = None) -> tuple[int]:
        self.calls += 1
        self.kept = self.kept or Tracked(f"object {name}")
        return (self.calls,)


class ExecChanged(_Exec):
    """Says how it has changed in many ways; shows what the prompt then has as its ``is_changed``, and its calls."""

    RETURN_TYPES = ("STRING",)
    calls = 0

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"how": ("STRING", {}), "value": (ANY, {})},
            "hidden": {"prompt": "PROMPT", "node_id": "UNIQUE_ID", "extra": "EXTRA_PNGINFO", "dynprompt": "DYNPROMPT"},
        }

    @classmethod
    def IS_CHANGED(cls, how: str, value: Any, **hidden: Any) -> Any:
        NOTES.append(f"IS_CHANGED {value} {hidden}")
        if how == "raise":
            raise RuntimeError("cannot say")
        answers = {
            "none": None,
            "true": True,
            "bytes": b"\x01\x02",
            "list": [1, [2, {"a": (3,)}]],
            "dict": {"b": 1, "a": [2]},
            "value": value,
            "blocker": ExecutionBlocker("never shown"),
        }
        return object() if how == "object" else answers[how]

    def run(self, how: str, value: Any, prompt: Any, node_id: str, **_: Any) -> tuple[str]:
        ExecChanged.calls += 1
        return (f"{prompt[node_id].get('is_changed', 'nothing')!r:.30} {ExecChanged.calls}",)


class ExecChangedAsync(ExecChanged):
    """As ExecChanged, after a while."""

    @classmethod
    async def IS_CHANGED(cls, how: str, value: Any, **hidden: Any) -> Any:
        await asyncio.sleep(0.01)
        return super().IS_CHANGED(how, value, **hidden)


# -- validation ----------------------------------------------------------------------------------------------


class ExecChecks(_Exec):
    """Notes what VALIDATE_INPUTS is given, and answers as ``answer`` says."""

    RETURN_TYPES = ("STRING",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"answer": ("STRING", {}), "number": ("INT", {"min": 0, "max": 9})},
            "optional": {"choice": (["a", "b"], {}), "link": ("INT", {"forceInput": True})},
            "hidden": {"node_id": "UNIQUE_ID", "prompt": "PROMPT"},
        }

    @classmethod
    def _answer(cls, answer: str) -> Any:
        if answer == "raise":
            raise ValueError("cannot check")
        answers = {"no": False, "none": None, "one": 1, "blocker": ExecutionBlocker("x"), "list": ["no"], "empty": ""}
        return answers.get(answer, True if answer == "yes" else answer)

    @classmethod
    def VALIDATE_INPUTS(cls, answer: str) -> Any:
        return cls._answer(answer)

    def run(self, answer: str, number: int, choice: str = "-", link: Any = None, **_: Any) -> tuple[str]:
        return (f"{answer} {number} {choice} {link}",)


class ExecChecksAll(ExecChecks):
    """Is given everything."""

    @classmethod
    def VALIDATE_INPUTS(cls, **kwargs: Any) -> Any:
        NOTES.append(f"VALIDATE_INPUTS {_shown(kwargs)}")
        return cls._answer(kwargs["answer"])


class ExecChecksSome(ExecChecks):
    """Names the link, a hidden input and the types, too."""

    @classmethod
    def VALIDATE_INPUTS(cls, answer: str, input_types: Any, link: Any = "no link", node_id: Any = "no id") -> Any:
        NOTES.append(f"VALIDATE_INPUTS {input_types} {link} {node_id}")
        return cls._answer(answer)


class ExecChecksAsync(ExecChecks):
    """Takes its time."""

    @classmethod
    async def VALIDATE_INPUTS(cls, answer: str, number: int) -> Any:
        await asyncio.sleep(0.01)
        NOTES.append(f"VALIDATE_INPUTS {number}")
        return cls._answer(answer)


class ExecChecksLists(ExecChecks):
    """Gets lists."""

    INPUT_IS_LIST = True

    @classmethod
    def VALIDATE_INPUTS(cls, answer: list[str], number: list[int]) -> Any:
        NOTES.append(f"VALIDATE_INPUTS {answer} {number}")
        return cls._answer(answer[0])

    def run(self, answer: Any, number: Any, choice: Any = "-", link: Any = None, **_: Any) -> tuple[str]:
        return (f"{answer} {number} {choice} {link}",)


class ExecChecksNothing(ExecChecks):
    """Has a check without parameters, which is called all the same if it is a class method."""

    @classmethod
    def VALIDATE_INPUTS(cls) -> Any:
        NOTES.append("VALIDATE_INPUTS")
        return "never an error, as no input has it"


class ExecUnion(_Exec):
    """Takes one of two types, gives another two."""

    RETURN_TYPES = ("FLOAT,BOOLEAN", "INT", "STRING")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"optional": {"either": ("INT,FLOAT", {}), "any": ("*", {}), "combo": (["x", "y"], {})}}

    def run(self, either: Any = None, any: Any = None, combo: Any = None) -> tuple[Any, ...]:
        return (1.5, 2, f"{either!r} {any!r} {combo!r}")


class ExecCombo(_Exec):
    """A choice like another node's, which may be linked to it, and one in the new form."""

    RETURN_TYPES = (["x", "y"],)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"choice": (["x", "y"], {})},
            "optional": {
                "new": ("COMBO", {"options": ["p", "q"]}),
                "several": (["p", "q"], {"multiselect": True}),
                "remote": ("COMBO", {"remote": {"route": "/nowhere"}}),
            },
        }

    def run(self, choice: str, **_: Any) -> tuple[str]:
        return (choice,)


class ExecBroken(_Exec):
    """A class with mistakes in it."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"value": (ANY, {"min": "a"})}}

    def run(self, value: Any) -> Any:
        # Not a tuple: its characters are taken as outputs.
        return "result"


# -- inputs --------------------------------------------------------------------------------------------------


class AnyInput(dict[str, Any]):
    """Optional inputs of any name, as packages make them: only ``in`` and ``[]`` know of them."""

    def __contains__(self, key: object) -> bool:
        return True

    def __getitem__(self, key: str) -> Any:
        return (ANY, {"rawLink": True}) if key.startswith("raw") else (ANY, {})


class ExecDynamic(_Exec):
    """Takes inputs of any name."""

    RETURN_TYPES = ("STRING",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {}, "optional": AnyInput(), "hidden": {"node_id": "UNIQUE_ID"}}

    def run(self, **inputs: Any) -> tuple[str]:
        return (_shown(inputs),)


class ExecDeclared(_Exec):
    """Takes what it has declared, and notes what it gets."""

    RETURN_TYPES = ("STRING",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"a": ("INT", {"default": 5})},
            "optional": {
                "b": ("INT", {"default": 6}),
                "raw": ("INT", {"rawLink": True}),
                "c": ("INT", {"forceInput": True}),
            },
            "hidden": {"secret": "TINY_SECRET"},
        }

    def run(self, **inputs: Any) -> tuple[str]:
        return (_shown(inputs),)


class ExecHidden(_Exec):
    """Shows every hidden input there is; fails with a negative seed."""

    OUTPUT_NODE = True
    RETURN_TYPES = ()

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        kinds = ("PROMPT", "DYNPROMPT", "EXTRA_PNGINFO", "UNIQUE_ID", "AUTH_TOKEN_COMFY_ORG", "API_KEY_COMFY_ORG")
        return {"required": {"seed": ("INT", {})}, "hidden": {kind.lower(): kind for kind in kinds}}

    def run(self, **inputs: Any) -> dict[str, Any]:
        if inputs["seed"] < 0:
            raise ValueError("a negative seed")
        dynprompt, prompt = inputs.pop("dynprompt"), inputs.pop("prompt")
        node_id = inputs["unique_id"]
        inputs["prompt_is_original"] = prompt is dynprompt.get_original_prompt()
        inputs["node"] = dynprompt.get_node(node_id)
        inputs["relatives"] = [
            dynprompt.get_real_node_id(node_id),
            dynprompt.get_display_node_id(node_id),
            dynprompt.get_parent_node_id(node_id),
        ]
        inputs["nodes"] = sorted(dynprompt.all_node_ids())
        return {"ui": {"hidden": [inputs]}}


# -- lists and blockers --------------------------------------------------------------------------------------


class ExecList(_Exec):
    """A list read from JSON, as a list of outputs; ``{"block": message}`` stands for a blocker."""

    OUTPUT_IS_LIST = (True,)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"items": ("STRING", {})}}

    def run(self, items: str) -> tuple[Any]:
        return ([_blocker_or_value(item) for item in json.loads(items)],)


class ExecListBlocked(_Exec):
    """A list output that is one blocker."""

    OUTPUT_IS_LIST = (True, False)
    RETURN_TYPES = (ANY, ANY)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"message": ("STRING", {})}}

    def run(self, message: str) -> tuple[Any, Any]:
        return (ExecutionBlocker(message or None), 1)


class ExecItems(_Exec):
    """Is called per item; shows with which, and as which call."""

    RETURN_TYPES = ("STRING",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"a": (ANY, {}), "b": (ANY, {})}, "optional": {"c": (ANY, {})}}

    def run(self, a: Any, b: Any, c: Any = "-") -> tuple[str]:
        context = get_executing_context()
        return (f"{a}{b}{c}@{context.list_index if context else None}",)


class ExecWhole(_Exec):
    """Gets lists, gives two lists and a single value; also shows them if it is asked to."""

    INPUT_IS_LIST = True
    OUTPUT_IS_LIST = (True, False)
    RETURN_TYPES = (ANY, ANY)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"a": (ANY, {}), "b": (ANY, {})}, "hidden": {"node_id": "UNIQUE_ID"}}

    def run(self, a: list[Any], b: list[Any], node_id: list[str]) -> tuple[list[Any], str]:
        return (list(a) + list(b), f"{a} {b} {node_id}")


class ExecUi(_Exec):
    """Shows without a result, or with one, or nothing."""

    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"value": (ANY, {}), "how": (["ui", "both", "result", "nothing", "blocker"], {})}}

    def run(self, value: Any, how: str) -> dict[str, Any]:
        ui, result = {"ui": {"values": [value], "text": "ab"}}, {"result": (value,)}
        if how == "blocker":
            return {**ui, "result": ExecutionBlocker("from ui")}
        return {"ui": ui, "both": {**ui, **result}, "result": result, "nothing": {}}[how]


def _blocker_or_value(value: Any) -> Any:
    if isinstance(value, dict) and set(value) == {"block"}:
        return ExecutionBlocker(value["block"])
    return value


# -- async ---------------------------------------------------------------------------------------------------


class ExecMeet(_Exec):
    """Waits until so many calls of this name wait at once: they can only meet if they run concurrently."""

    # name -> futures of those that wait
    waiting: ClassVar[dict[str, list[asyncio.Future[None]]]] = {}

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"name": ("STRING", {}), "parties": ("INT", {}), "value": (ANY, {})}}

    async def run(self, name: str, parties: int, value: Any) -> tuple[Any]:
        future = asyncio.get_running_loop().create_future()
        waiting = self.waiting.setdefault(name, [])
        waiting.append(future)
        if len(waiting) == parties:
            for other in self.waiting.pop(name):
                other.set_result(None)
        try:
            await asyncio.wait_for(future, 30)
        finally:
            self.waiting.pop(name, None)
        context = get_executing_context()
        NOTES.append(f"{context.node_id}.{context.list_index}" if context else "nothing")
        return (value,)


class ExecMeetExpand(ExecMeet):
    """Meets others, then expands into a number."""

    async def run(self, name: str, parties: int, value: Any) -> Any:  # type: ignore[override]
        await super().run(name, parties, value)
        graph = GraphBuilder()
        return {"result": (graph.node("TinyNumber", value=value).out(0),), "expand": graph.finalize()}


class ExecAfter(_Exec):
    """An async node that ends by raising, being interrupted, or well, after others have had their turn."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"how": (["raise", "interrupt", "value", "cancelled"], {}), "value": (ANY, {})}}

    async def run(self, how: str, value: Any) -> tuple[Any]:
        try:
            await asyncio.sleep(30 if how == "cancelled" else 0.05)
        except asyncio.CancelledError:
            NOTES.append("cancelled")
            raise
        if how == "raise":
            raise RuntimeError("raised later")
        if how == "interrupt":
            raise comfy.model_management.InterruptProcessingException()
        return (value,)


# -- expansion -----------------------------------------------------------------------------------------------


class ExecExpand(_Exec):
    """Expands into a piece of a prompt written as JSON.

    Args of the JSON: ``nodes``, ``result`` (outputs; links or values), ``ui``. The text ``"$link"`` stands for
    whatever the input ``value`` is linked to, ``$id`` for the id of this node (``$later`` for ``$id`` in a graph within
    this one), and ``{"block": message}`` in ``result`` for a blocker.
    """

    RETURN_TYPES = (ANY, ANY)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"graph": ("STRING", {})},
            "optional": {"value": (ANY, {"rawLink": True})},
            "hidden": {"node_id": "UNIQUE_ID"},
        }

    def run(self, graph: str, node_id: str, value: Any = None) -> dict[str, Any]:
        NOTES.append(f"expands {node_id}")
        text = graph.replace('"$link"', json.dumps(value)).replace("$id", node_id).replace("$later", "$id")
        parts = json.loads(text)
        answer: dict[str, Any] = {"expand": parts["nodes"]}
        if "result" in parts:
            result = parts["result"]
            blocked = isinstance(result, dict)
            answer["result"] = _blocker_or_value(result) if blocked else tuple(map(_blocker_or_value, result))
        if "ui" in parts:
            answer["ui"] = parts["ui"]
        return answer


class ExecExpandEnd(ExecExpand):
    """As ExecExpand, and an output node."""

    OUTPUT_NODE = True


class ExecExpandItems(_Exec):
    """Expands for each item of its list: even numbers into a node, odd ones are results as they are."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"value": (ANY, {})}}

    def run(self, value: Any) -> Any:
        if value % 2:
            return (value * 100,)
        graph = GraphBuilder()
        number = graph.node("TinyNumber", value=value)
        return {"result": (graph.node("TinyAdd", a=number.out(0), b=1).out(0),), "expand": graph.finalize()}


class ExecWhile(_Exec):
    """Adds 1 to a total until it is ``limit``: each round expands into the next."""

    RETURN_TYPES = ("INT",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"total": ("INT", {}), "limit": ("INT", {})}}

    def run(self, total: int, limit: int) -> Any:
        if total >= limit:
            return (total,)
        graph = GraphBuilder()
        total_after = graph.node("TinyAdd", id="add", a=total, b=1)
        again = graph.node("ExecWhile", id="again", total=total_after.out(0), limit=limit)
        return {"result": (again.out(0),), "expand": graph.finalize()}


class ExecFor(_Exec):
    """Calls of a chain: ``count`` times TinyAdd, shown in the middle under the id of another node."""

    RETURN_TYPES = ("INT",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"count": ("INT", {}), "start": ("INT", {}), "shown_as": ("STRING", {})}}

    def run(self, count: int, start: int, shown_as: str) -> Any:
        graph = GraphBuilder()
        value: Any = start
        for index in range(count):
            node = graph.node("TinyAdd", id=f"add{index}", a=value, b=1)
            if shown_as:
                node.set_override_display_id(shown_as)
            value = node.out(0)
        show = graph.node("TinyShow", value=value)
        if shown_as:
            show.set_override_display_id(shown_as)
        return {"result": (value,), "expand": graph.finalize()}


_CLASSES = [value for value in vars(sys.modules[__name__]).values() if isinstance(value, type)]
NODE_CLASS_MAPPINGS = {c.__name__: c for c in _CLASSES if issubclass(c, _Exec) and c is not _Exec}
