"""DiscomfortTestRunner: run one workflow from the editor, as a script would."""

from __future__ import annotations

from typing import Any, ClassVar

from ..nodes_internal import ANY_TYPE, only
from . import outer
from .node_run import NodeRun, changed, run_for_node, workflow_path
from .runner_sockets import (
    FREE_MEMORY_FIRST,
    HIDDEN,
    MAX_OUTPUTS,
    PORTS_WIDGET,
    PortInputs,
    check_given,
    given_values,
    output_names,
    output_sockets,
    plan_ports,
)


class DiscomfortTestRunner:
    """Runs a saved workflow once. Its INPUT ports are inputs of the node, its OUTPUT ports are outputs."""

    CATEGORY = "Discomfort"
    DESCRIPTION = (
        "Runs one of your saved workflows once, in a ComfyUI of its own: its INPUT ports are this node's inputs, its "
        "OUTPUT ports this node's outputs. Made for trying a workflow out before a loop or a script uses it."
    )
    RETURN_TYPES = (ANY_TYPE,) * MAX_OUTPUTS
    RETURN_NAMES = tuple(f"output {number}" for number in range(1, MAX_OUTPUTS + 1))
    OUTPUT_TOOLTIPS = ("The value that the workflow's OUTPUT port of this name delivered.",) * MAX_OUTPUTS
    OUTPUT_IS_LIST = (True,) * MAX_OUTPUTS
    INPUT_IS_LIST = True
    FUNCTION = "run_workflow"
    OUTPUT_NODE = True
    SEARCH_ALIASES: ClassVar[list[str]] = ["run workflow", "nested workflow", "sub workflow", "test workflow"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Sockets and widgets, in the order in which saved workflows hold them."""
        return {
            "required": {
                "workflow": (
                    "STRING",
                    {"default": "", "tooltip": "The workflow: one of your saved ones, or the path of a .json file."},
                ),
                "free_memory_first": FREE_MEMORY_FIRST,
            },
            # A dict of this kind takes the sockets of all ports, whatever they are called.
            "optional": PortInputs({"ports": PORTS_WIDGET}),
            "hidden": dict(HIDDEN),
        }

    @classmethod
    def IS_CHANGED(cls, workflow: Any = "", **_: Any) -> Any:
        """See :func:`.node_run.changed`."""
        return changed([only(workflow)])

    def run_workflow(
        self,
        workflow: Any,
        free_memory_first: Any = False,
        ports: Any = "",
        unique_id: Any = "",
        prompt: Any = None,
        extra_pnginfo: Any = None,
        **values: Any,
    ) -> dict[str, Any]:
        """Run it; the values that arrived go in, those that it delivers come out."""
        steps = [workflow_path(only(workflow))]
        found, given = plan_ports(steps), given_values(values)
        names = output_names(only(ports) or "", found)
        check_given(found, given)
        title = outer.node_title(extra_pnginfo, prompt, unique_id)
        run = NodeRun(steps, given, str(only(unique_id)), title, free_memory_first=bool(only(free_memory_first)))
        outcome = run_for_node(run)
        return {
            "ui": {"text": [outcome.record.summary(with_server=False)]},
            "result": output_sockets(outcome.values, names),
        }
