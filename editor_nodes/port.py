"""DiscomfortPort: a named input or output of a workflow."""

from __future__ import annotations

from typing import Any, ClassVar

from .. import nodes_internal
from ..nodes_internal import ANY_TYPE


class DiscomfortPort:
    """A named input or output of a workflow.

    Its wires decide what it is. Nothing arrives: an INPUT port, replaced by a DiscomfortDataLoader before a run.
    Nothing leaves: an OUTPUT port, whose value is saved into the run's context. Both: it passes values through.
    Outside a run of Discomfort, in the plain editor, it passes its input through and does nothing else.
    """

    CATEGORY = "Discomfort"
    DESCRIPTION = (
        "A named input or output of this workflow for Discomfort. Without an incoming wire it is an INPUT, without an "
        "outgoing wire an OUTPUT, with both it passes the value through. Takes every type."
    )
    RETURN_TYPES = (ANY_TYPE,)
    RETURN_NAMES = ("output",)
    OUTPUT_TOOLTIPS = ("The value that came in; for an INPUT port the value that the run was given.",)
    FUNCTION = "process_port"
    OUTPUT_NODE = True
    # Lists reach the port whole: called once per item it would keep the last item only.
    INPUT_IS_LIST = True
    OUTPUT_IS_LIST = (True,)
    SEARCH_ALIASES: ClassVar[list[str]] = ["discomfort input", "discomfort output", "loop variable"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Sockets and widgets, in the order in which saved workflows hold them."""
        return {
            "required": {
                "unique_id": (
                    "STRING",
                    {"default": "", "tooltip": "Name of the port: the key under which scripts give or read its value."},
                ),
                "tags": ("STRING", {"default": "", "tooltip": "Free words, separated by commas, for your scripts."}),
            },
            "optional": {
                "input_data": (ANY_TYPE, {"tooltip": "Value to hand out. Leave it unconnected to make an INPUT port."}),
            },
            "hidden": {
                # Set in the prompt by a run, never by the editor: "OUTPUT" (save the value), "REF" (hand it on by
                # reference: the run keeps its recipe) or "PASSTHRU".
                "mode": ("STRING", {"default": ""}),
                # Carries the run's id. It is not part of ComfyUI's cache key, the inputs above are.
                "extra_pnginfo": "EXTRA_PNGINFO",
            },
        }

    @classmethod
    def VALIDATE_INPUTS(cls, input_types: Any) -> bool:
        """Every type may come in: taking ``input_types`` turns ComfyUI's own comparison of types off (0.3.64)."""
        return True

    @classmethod
    def IS_CHANGED(cls, mode: Any = None, **_: Any) -> Any:
        """An OUTPUT port of a run always executes (NaN equals nothing), so that a cached graph still delivers."""
        return float("nan") if nodes_internal.only(mode) == "OUTPUT" else ""

    def process_port(
        self,
        unique_id: Any,
        tags: Any = "",
        input_data: list[Any] | None = None,
        mode: Any = "",
        extra_pnginfo: Any = None,
    ) -> dict[str, Any] | tuple[list[Any]]:
        """Hand the value on; in OUTPUT mode save it into the run's context first."""
        if input_data is None:
            return ([nodes_internal.block_execution()],)
        if nodes_internal.only(mode) == "REF":
            # It executed, so what is before it works; that is all that the run wants to know.
            delivered = {"unique_id": nodes_internal.only(unique_id), "pass_by": "ref"}
            return {"ui": {"discomfort": [delivered]}, "result": (input_data,)}
        if nodes_internal.only(mode) != "OUTPUT":
            return (input_data,)
        saved = nodes_internal.save_output(
            nodes_internal.only(extra_pnginfo), nodes_internal.only(unique_id), input_data
        )
        # The history entry of the prompt then says what was written: the orchestrator believes nothing else.
        return {"ui": {"discomfort": [saved]}, "result": (input_data,)}
