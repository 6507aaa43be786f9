"""Nodes with dynamic inputs, where the version has them."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from comfy_api.latest import io

NODES: list[Any] = []


def _shown(values: Any) -> io.NodeOutput:
    """Values as JSON text, in the order they came in."""
    return io.NodeOutput(json.dumps(values), ui={"values": [values]})


if hasattr(io, "Autogrow") and hasattr(io.Autogrow, "TemplatePrefix"):

    class V3Grow(io.ComfyNode):
        """As many numbers as are linked, of which one is required; and a word."""

        @classmethod
        def define_schema(cls) -> io.Schema:
            template = io.Autogrow.TemplatePrefix(io.Int.Input("number", min=0), prefix="n", min=1, max=3)
            inputs = [io.Autogrow.Input("numbers", template=template), io.String.Input("word", default="w")]
            return io.Schema("V3Grow", inputs=inputs, outputs=[io.String.Output()], is_output_node=True)

        @classmethod
        def execute(cls, numbers: io.Autogrow.Type, word: str) -> io.NodeOutput:
            return _shown({"numbers": numbers, "word": word})

    class V3GrowNames(io.ComfyNode):
        """Values of given names, none required."""

        @classmethod
        def define_schema(cls) -> io.Schema:
            template = io.Autogrow.TemplateNames(io.AnyType.Input("value", optional=True), names=["x", "y"], min=0)
            inputs = [io.Autogrow.Input("values", template=template, optional=True)]
            return io.Schema("V3GrowNames", inputs=inputs, outputs=[io.String.Output()], is_output_node=True)

        @classmethod
        def execute(cls, values: io.Autogrow.Type) -> io.NodeOutput:
            return _shown(values)

    class V3Choose(io.ComfyNode):
        """A choice with inputs of its own, one of them a choice again."""

        @classmethod
        def define_schema(cls) -> io.Schema:
            template = io.Autogrow.TemplatePrefix(io.Float.Input("f"), prefix="f", min=0, max=2)
            inner = [
                io.DynamicCombo.Option("one", [io.Float.Input("x", max=1.0), io.Float.Input("y", optional=True)]),
                io.DynamicCombo.Option("grow", [io.Autogrow.Input("many", template=template)]),
            ]
            options = [
                io.DynamicCombo.Option("text", [io.String.Input("text")]),
                io.DynamicCombo.Option("nothing", []),
                io.DynamicCombo.Option("inner", [io.DynamicCombo.Input("inner", options=inner)]),
            ]
            inputs = [io.DynamicCombo.Input("choice", options=options, tooltip="Choose")]
            return io.Schema("V3Choose", inputs=inputs, outputs=[io.String.Output()], is_output_node=True)

        @classmethod
        def execute(cls, choice: io.DynamicCombo.Type) -> io.NodeOutput:
            return _shown(choice)

    class V3Switch(io.ComfyNode):
        """One of two values of the same type; both lazy."""

        @classmethod
        def define_schema(cls) -> io.Schema:
            template = io.MatchType.Template("same", [io.Int, io.String])
            inputs = [io.Boolean.Input("second"), *(io.MatchType.Input(n, template=template, lazy=True) for n in "ab")]
            outputs = [io.MatchType.Output(template=template, display_name="chosen"), io.Int.Output()]
            return io.Schema("V3Switch", inputs=inputs, outputs=outputs)

        @classmethod
        def check_lazy_status(cls, second: bool, a: Any = None, b: Any = None) -> list[str]:
            return [name for name, value in (("b", b) if second else ("a", a),) if value is None]

        @classmethod
        def execute(cls, second: bool, a: Any = None, b: Any = None) -> io.NodeOutput:
            return io.NodeOutput(b if second else a, int(second))

    class V3GrowChecked(io.ComfyNode):
        """Checks what it gets, and says what it is asked with."""

        @classmethod
        def define_schema(cls) -> io.Schema:
            template = io.Autogrow.TemplatePrefix(io.Int.Input("n"), prefix="n", min=0, max=3)
            inputs = [io.Autogrow.Input("numbers", template=template), io.Int.Input("limit", default=10)]
            return io.Schema("V3GrowChecked", inputs=inputs, outputs=[io.String.Output()], is_output_node=True)

        @classmethod
        def validate_inputs(cls, limit: int, **others: Any) -> bool | str:
            return True if limit < 20 else f"too much: {sorted(others['numbers'].items())}"

        @classmethod
        def check_lazy_status(cls, numbers: dict[str, tuple[Any, str]], limit: Any) -> list[str]:
            cls.SEEN.append(json.dumps([numbers, limit]))
            return []

        SEEN: ClassVar[list[str]] = []

        @classmethod
        def execute(cls, numbers: io.Autogrow.Type, limit: int) -> io.NodeOutput:
            return _shown([numbers, limit, cls.SEEN[-1]])

    NODES += [V3Grow, V3GrowNames, V3Choose, V3Switch, V3GrowChecked]

    if "accept_all_inputs" in io.Schema.__dataclass_fields__:

        class V3TakesAll(io.ComfyNode):
            """Gets also what it does not declare."""

            @classmethod
            def define_schema(cls) -> io.Schema:
                return io.Schema(
                    "V3TakesAll",
                    inputs=[io.Int.Input("a")],
                    outputs=[io.String.Output()],
                    is_output_node=True,
                    accept_all_inputs=True,
                )

            @classmethod
            def execute(cls, **values: Any) -> io.NodeOutput:
                return _shown(values)

        NODES.append(V3TakesAll)
