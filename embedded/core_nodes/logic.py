"""Core nodes that decide and gather: switches, truth values, choices, lists. As ComfyUI 0.33.0; 0.3.64 has none."""

from __future__ import annotations

from typing import Any

from ..node_api import io

CATEGORY = "utilities/logic"
_RULES = "Uses Python's rules for truthiness."


class SwitchNode(io.ComfyNode):
    """One of two values; the other one is not computed."""

    RELATIVE_PYTHON_MODULE = "comfy_extras.nodes_logic"

    @classmethod
    def define_schema(cls) -> io.Schema:
        template = io.MatchType.Template("switch")
        return io.Schema(
            node_id="ComfySwitchNode",
            display_name="If/Else Switch",
            category=CATEGORY,
            search_aliases=["if", "then", "switch", "conditional", "branch"],
            is_experimental=True,
            inputs=[
                io.Boolean.Input("switch"),
                io.MatchType.Input("on_false", template=template, lazy=True),
                io.MatchType.Input("on_true", template=template, lazy=True),
            ],
            outputs=[io.MatchType.Output(template=template, display_name="output")],
        )

    @classmethod
    def check_lazy_status(cls, switch: bool, on_false: Any = None, on_true: Any = None) -> list[str]:
        """The one that is chosen."""
        name, value = ("on_true", on_true) if switch else ("on_false", on_false)
        return [name] if value is None else []

    @classmethod
    def execute(cls, switch: bool, on_true: Any, on_false: Any) -> io.NodeOutput:
        """The chosen value itself."""
        return io.NodeOutput(on_true if switch else on_false)


class NotNode(io.ComfyNode):
    """Whether a value is none, as Python says it: 0, empty, False."""

    RELATIVE_PYTHON_MODULE = "comfy_extras.nodes_logic"

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ComfyNotNode",
            display_name="Not",
            category=CATEGORY,
            description=f"Logical NOT operation. Returns true if the value is falsy. {_RULES}",
            search_aliases=["invert", "toggle", "negate", "flip boolean"],
            inputs=[io.AnyType.Input("value")],
            outputs=[io.Boolean.Output()],
        )

    @classmethod
    def execute(cls, value: Any) -> io.NodeOutput:
        """True or False."""
        return io.NodeOutput(not value)


def _truth_schema(node_id: str, title: str, description: str, aliases: list[str]) -> io.Schema:
    """A truth value of one to ten values."""
    template = io.Autogrow.TemplatePrefix(io.AnyType.Input("value"), prefix="value", min=1)
    return io.Schema(
        node_id=node_id,
        display_name=title,
        category=CATEGORY,
        description=f"{description} {_RULES}",
        search_aliases=aliases,
        inputs=[io.Autogrow.Input("values", template=template)],
        outputs=[io.Boolean.Output()],
    )


class AndNode(io.ComfyNode):
    """Whether all values are something, as Python says it."""

    RELATIVE_PYTHON_MODULE = "comfy_extras.nodes_logic"

    @classmethod
    def define_schema(cls) -> io.Schema:
        description = "Logical AND operation. Returns true if all of the values are truthy."
        return _truth_schema("ComfyAndNode", "And", description, ["all", "every"])

    @classmethod
    def execute(cls, values: dict[str, Any]) -> io.NodeOutput:
        """True or False."""
        return io.NodeOutput(all(values.values()))


class OrNode(io.ComfyNode):
    """Whether any value is something, as Python says it."""

    RELATIVE_PYTHON_MODULE = "comfy_extras.nodes_logic"

    @classmethod
    def define_schema(cls) -> io.Schema:
        description = "Logical OR operation. Returns true if any of the values are truthy."
        return _truth_schema("ComfyOrNode", "Or", description, ["any", "some"])

    @classmethod
    def execute(cls, values: dict[str, Any]) -> io.NodeOutput:
        """True or False."""
        return io.NodeOutput(any(values.values()))


class CustomComboNode(io.ComfyNode):
    """A choice whose options the user writes in the editor: only it knows them, so nothing is checked."""

    RELATIVE_PYTHON_MODULE = "comfy_extras.nodes_logic"

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CustomCombo",
            display_name="Custom Combo",
            category="utilities",
            is_experimental=True,
            inputs=[io.Combo.Input("choice", options=[])],
            outputs=[io.String.Output(display_name="STRING"), io.Int.Output(display_name="INDEX")],
            accept_all_inputs=True,
        )

    @classmethod
    def validate_inputs(cls, choice: str, index: int = 0, **options: Any) -> bool:
        """Takes the check of the choice over, to accept everything."""
        return True

    @classmethod
    def execute(cls, choice: str, index: int = 0, **options: Any) -> io.NodeOutput:
        """The choice and its place among the options, which the editor sends."""
        return io.NodeOutput(choice, index)


class CreateList(io.ComfyNode):
    """A list of one to ten values of the same type; lists are joined. What comes behind runs once per item."""

    RELATIVE_PYTHON_MODULE = "comfy_extras.nodes_toolkit"

    @classmethod
    def define_schema(cls) -> io.Schema:
        template = io.MatchType.Template("type")
        growing = io.Autogrow.TemplatePrefix(io.MatchType.Input("input", template=template), prefix="input")
        return io.Schema(
            node_id="CreateList",
            display_name="Create List",
            category="utilities",
            is_input_list=True,
            search_aliases=["Image Iterator", "Text Iterator", "Iterator"],
            inputs=[io.Autogrow.Input("inputs", template=growing)],
            outputs=[io.MatchType.Output(template=template, is_output_list=True, display_name="list")],
        )

    @classmethod
    def execute(cls, inputs: dict[str, list[Any]]) -> io.NodeOutput:
        """All items, in the order of the inputs in the prompt."""
        return io.NodeOutput([item for items in inputs.values() for item in items])


NODE_CLASS_MAPPINGS: dict[str, type] = {
    "ComfySwitchNode": SwitchNode,
    "CustomCombo": CustomComboNode,
    "ComfyNotNode": NotNode,
    "ComfyAndNode": AndNode,
    "ComfyOrNode": OrNode,
    "CreateList": CreateList,
}

NODE_DISPLAY_NAME_MAPPINGS = {
    "ComfySwitchNode": "If/Else Switch",
    "CustomCombo": "Custom Combo",
    "ComfyNotNode": "Not",
    "ComfyAndNode": "And",
    "ComfyOrNode": "Or",
    "CreateList": "Create List",
}
