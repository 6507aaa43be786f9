"""DiscomfortLoopExecutor: run workflows in a loop, with a condition, a branch, and all values of the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ..control_flow import Branch, Condition, Step
from ..nodes_internal import ANY_TYPE, only
from . import outer
from .batching import join_batch
from .node_run import NodeRun, changed, run_for_node, workflow_path
from .runner_sockets import (
    FREE_MEMORY_FIRST,
    HIDDEN,
    MAX_OUTPUTS,
    PORTS_WIDGET,
    PlanPorts,
    PortInputs,
    blocked,
    check_given,
    given_values,
    output_names,
    output_sockets,
    plan_ports,
)

SEED_POLICIES = ("as_saved", "fixed", "increment", "randomize")
COLLECTED_AS = ("list", "batch")
ON_ERROR = ("stop", "skip")

#: below ComfyUI's output folder: where the folders of kept runs are
CHECKPOINTS = "discomfort"


@dataclass(frozen=True)
class LoopWidgets:
    """What the node's widgets say."""

    workflows: str = ""
    iterations: int = 1
    condition: str = ""
    branch_condition: str = ""
    then_workflows: str = ""
    otherwise_workflows: str = ""
    collect: str = ""
    collected_as: str = "list"
    seed_policy: str = "as_saved"
    master_seed: int = 0
    on_error: str = "stop"
    checkpoint: str = ""
    free_memory_first: bool = False
    ports: str = ""

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> LoopWidgets:
        """From the node's keyword arguments, in which every value is in a list (INPUT_IS_LIST)."""
        return cls(**{name: only(arguments[name]) for name in cls.__dataclass_fields__ if name in arguments})

    @property
    def names(self) -> list[str]:
        """All workflows, in the order of the node."""
        return [name for text in (self.workflows, *self.branch_sides) for name in lines(text)]

    @property
    def branch_sides(self) -> tuple[str, str]:
        return self.then_workflows, self.otherwise_workflows

    @property
    def always_runs(self) -> bool:
        """Whether the same graph again may give something else, or has to go on where it was cut off."""
        return bool(self.checkpoint.strip()) or (self.seed_policy == "randomize" and not self.master_seed)


def lines(text: str) -> list[str]:
    """The workflows of a widget: one a line; blank lines and those that begin with # do not count."""
    stripped = (line.strip() for line in text.splitlines())
    return [line for line in stripped if line and not line.startswith("#")]


def plan_steps(widgets: LoopWidgets) -> list[Step]:
    """The steps of an iteration: the workflows, then the branch.

    Raises:
        ValueError: there is nothing to run, or half a branch. FileNotFoundError: a workflow does not exist.
    """
    steps: list[Step] = [workflow_path(name) for name in lines(widgets.workflows)]
    then, otherwise = ([workflow_path(name) for name in lines(text)] for text in widgets.branch_sides)
    condition = widgets.branch_condition.strip()
    if condition and not (then or otherwise):
        raise ValueError(
            f"branch_condition is {condition!r}, but neither then_workflows nor otherwise_workflows names a workflow. "
            "Name one, or empty branch_condition."
        )
    if (then or otherwise) and not condition:
        raise ValueError(
            "then_workflows and otherwise_workflows are run by a branch, but branch_condition is empty. Write when "
            "then_workflows are to be run, for instance: score < 0.5"
        )
    if condition:
        steps.append(Branch(condition, then, otherwise))
    if not steps:
        raise ValueError("The widget workflows is empty. Name the workflows to run, one a line.")
    return steps


def collected_names(widgets: LoopWidgets, ports: PlanPorts) -> list[str]:
    """The ports whose value of every iteration is kept.

    Raises:
        ValueError: one of them is no OUTPUT port.
    """
    names = list(dict.fromkeys(name.strip() for name in widgets.collect.split(",") if name.strip()))
    for name in names:
        if name not in ports.outputs:
            available = ", ".join(map(repr, ports.outputs)) or "none"
            raise ValueError(
                f"collect names {name!r}, but no workflow has an OUTPUT port of that name. There are: {available}."
            )
    return names


def checkpoint_folder(name: str) -> Path | None:
    """The folder that a run is kept in: a name means one below ComfyUI's output folder; "" means none.

    Raises:
        ValueError: a relative path that leads out of there.
    """
    if not name.strip():
        return None
    path = Path(name.strip()).expanduser()
    if path.is_absolute():
        return path
    root = (outer.output_folder() / CHECKPOINTS).resolve()
    folder = (root / path).resolve()
    if root not in folder.parents:
        raise ValueError(
            f"checkpoint is {name!r}, which leads out of {root}. Give a name for a folder in it, or an absolute path."
        )
    return folder


def check_widgets(widgets: LoopWidgets) -> None:
    """Refuse values that prompts made by hand may have; the editor offers no others.

    Raises:
        ValueError: names the widget, its value and what is allowed.
    """
    for name, allowed in (("collected_as", COLLECTED_AS), ("seed_policy", SEED_POLICIES), ("on_error", ON_ERROR)):
        if getattr(widgets, name) not in allowed:
            raise ValueError(f"{name} is {getattr(widgets, name)!r}; it must be one of {', '.join(allowed)}.")
    if widgets.condition.strip():
        Condition.parse(widgets.condition.strip())  # before a server is started for it


def run_loop(
    widgets: LoopWidgets, given: Mapping[str, list[Any]], node_id: str, title: str
) -> tuple[str, tuple[Any, ...]]:
    """What the node does.

    Returns:
        (a summary for people, the items of each output socket).
    """
    check_widgets(widgets)
    steps = plan_steps(widgets)
    ports = plan_ports(steps)
    names = output_names(widgets.ports, ports)
    check_given(ports, given)
    collect = collected_names(widgets, ports)
    control: dict[str, Any] = {
        "collect": collect,
        "loop_condition": widgets.condition.strip() or None,
        "seed_policy": widgets.seed_policy,
        "master_seed": widgets.master_seed or None,
        "on_error": widgets.on_error,
        "checkpoint": checkpoint_folder(widgets.checkpoint),
    }
    outcome = run_for_node(
        NodeRun(
            steps,
            given,
            node_id,
            title,
            iterations=widgets.iterations,
            control=control,
            free_memory_first=widgets.free_memory_first,
        )
    )
    values = dict(outcome.values)
    if widgets.collected_as == "batch":
        values.update({name: [join_batch(name, values[name])] for name in collect if values.get(name)})
    _add_missing(values, names, outcome.record.iterations)
    return outcome.record.summary(with_server=False), output_sockets(values, names)


def _add_missing(values: dict[str, list[Any]], names: Sequence[str], iterations: int) -> None:
    """Outputs that nothing was delivered for: the loop never ran, the other side of the branch did, or all failed."""
    for name in names:
        if not values.get(name):
            values[name] = [
                blocked(
                    f"The output {name!r} has no value: in the {iterations} iterations of this run no workflow "
                    "delivered one. Look at the loop's condition, its branch and its failed iterations."
                )
            ]


class DiscomfortLoopExecutor:
    """Runs workflows one after the other, again and again. What an OUTPUT port delivers, the INPUT port of the same
    name reads in the next workflow or the next iteration.
    """

    CATEGORY = "Discomfort"
    DESCRIPTION = (
        "Runs saved workflows one after the other, in a loop. An OUTPUT port delivers to the INPUT ports of its name, "
        "in later workflows and in the next iteration. The loop ends after a number of iterations or by a condition; a "
        "branch runs some workflows only where they are needed; a run with a checkpoint goes on after an interruption."
    )
    RETURN_TYPES = (ANY_TYPE,) * MAX_OUTPUTS
    RETURN_NAMES = tuple(f"output {number}" for number in range(1, MAX_OUTPUTS + 1))
    OUTPUT_TOOLTIPS = (
        "What the OUTPUT port of this name delivered last; of a collected port the values of all iterations.",
    ) * MAX_OUTPUTS
    OUTPUT_IS_LIST = (True,) * MAX_OUTPUTS
    INPUT_IS_LIST = True
    FUNCTION = "run_workflows"
    OUTPUT_NODE = True
    SEARCH_ALIASES: ClassVar[list[str]] = ["loop", "iterate", "repeat", "while", "for each", "branch"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Sockets and widgets, in the order in which saved workflows hold them."""

        def text(tooltip: str, multiline: bool = False) -> tuple[str, dict[str, Any]]:
            return ("STRING", {"default": "", "multiline": multiline, "tooltip": tooltip})

        return {
            "required": {
                "workflows": text(
                    "The workflows of an iteration, one a line, in their order: saved ones or paths. Lines that begin "
                    "with # are left out.",
                    multiline=True,
                ),
                "iterations": (
                    "INT",
                    {
                        "default": 5,
                        "min": 1,
                        "max": 1_000_000,
                        "tooltip": "How often they are run at most.",
                    },
                ),
                "condition": text(
                    "The loop goes on as long as this holds, for instance: score < 0.9. It is asked before every "
                    "iteration and reads ports by their names, and 'iteration' (from 0). Empty: always."
                ),
                "branch_condition": text(
                    "Asked in every iteration after the workflows above: which of the two lists below is run."
                ),
                "then_workflows": text("Run where the branch's condition holds; one a line.", multiline=True),
                "otherwise_workflows": text("Run where it does not; one a line.", multiline=True),
                "collect": text(
                    "OUTPUT ports whose value of every iteration is kept, separated by commas. Others give their last."
                ),
                "collected_as": (
                    list(COLLECTED_AS),
                    {
                        "default": "list",
                        "tooltip": "How kept values come out: as a list, or joined to one batch (images, masks and "
                        "latents of one size).",
                    },
                ),
                "seed_policy": (
                    list(SEED_POLICIES),
                    {
                        "default": "as_saved",
                        "tooltip": "Seeds from iteration to iteration: as each workflow's own 'control after generate' "
                        "says, always the saved ones, going up, or drawn each time.",
                    },
                ),
                "master_seed": (
                    "INT",
                    {
                        "default": 0,
                        "min": 0,
                        "max": 2**53 - 1,
                        "control_after_generate": False,
                        "tooltip": "What seeds are drawn from: the same number gives the same seeds. 0: a new one for "
                        "each run.",
                    },
                ),
                "on_error": (
                    list(ON_ERROR),
                    {
                        "default": "stop",
                        "tooltip": "When an iteration fails: end the run, or pass over the iteration and go on.",
                    },
                ),
                "checkpoint": text(
                    "Name of a folder (in 'discomfort' in the output folder) in which the run is kept: queued again "
                    "after an interruption it goes on where it was. Empty: nothing is kept."
                ),
                "free_memory_first": FREE_MEMORY_FIRST,
            },
            # A dict of this kind takes the sockets of all ports, whatever they are called.
            "optional": PortInputs({"ports": PORTS_WIDGET}),
            "hidden": dict(HIDDEN),
        }

    @classmethod
    def IS_CHANGED(cls, **arguments: Any) -> Any:
        """An edited file runs again, and so does whatever is not the same twice; NaN equals nothing."""
        try:
            widgets = LoopWidgets.of(arguments)
            return float("nan") if widgets.always_runs else changed(widgets.names)
        except AttributeError:  # a widget's value comes by wire: it is None here
            return float("nan")

    def run_workflows(
        self, unique_id: Any = "", prompt: Any = None, extra_pnginfo: Any = None, **arguments: Any
    ) -> dict[str, Any]:
        """Run the loop; the values that arrived go in, those that it delivers come out."""
        title = outer.node_title(extra_pnginfo, prompt, unique_id)
        summary, sockets = run_loop(LoopWidgets.of(arguments), given_values(arguments), str(only(unique_id)), title)
        return {"ui": {"text": [summary]}, "result": sockets}
