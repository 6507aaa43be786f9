"""Core nodes that make numbers of other things: expressions, conversions, seeds, sizes, colours. As ComfyUI 0.33.0."""

from __future__ import annotations

import math
import string
import sys
from collections.abc import Callable, Iterable
from typing import Any

from ..node_api import io

CATEGORY = "utilities"

# The largest exponent an expression may use: pow(9, 10**9) would take hours and all memory.
_LARGEST_EXPONENT = 4000


# -- expressions -------------------------------------------------------------------------------------------------


def _sum(*values: Any) -> Any:
    """The sum of a list, or of the arguments."""
    alone = len(values) == 1 and isinstance(values[0], Iterable)
    return sum(values[0] if alone else values)


def _power(base: Any, exponent: Any) -> Any:
    """A power, unless it would take too long.

    Raises:
        ValueError: it would.
    """
    if abs(exponent) > _LARGEST_EXPONENT:
        raise ValueError(f"Exponent {exponent} exceeds maximum allowed ({_LARGEST_EXPONENT})")
    return base**exponent


MATH_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "sum": _sum,
    "pow": _power,
    **{function.__name__: function for function in (min, max, abs, round, int, float)},
    **{name: getattr(math, name) for name in ("sqrt", "ceil", "floor", "log", "log2", "log10", "sin", "cos", "tan")},
}


class MathExpressionNode(io.ComfyNode):
    """A number from an expression with the linked values as ``a`` to ``z``, and all of them as ``values``."""

    RELATIVE_PYTHON_MODULE = "comfy_extras.nodes_math"

    @classmethod
    def define_schema(cls) -> io.Schema:
        number = io.MultiType.Input("value", [io.Float, io.Int, io.Boolean])
        template = io.Autogrow.TemplateNames(number, names=list(string.ascii_lowercase), min=1)
        return io.Schema(
            node_id="ComfyMathExpression",
            display_name="Math Expression",
            category=CATEGORY,
            search_aliases=["expression", "formula", "calculate", "calculator", "eval", "math"],
            inputs=[
                io.String.Input("expression", default="a + b", multiline=True),
                io.Autogrow.Input("values", template=template),
            ],
            outputs=[
                io.Float.Output(display_name="FLOAT"),
                io.Int.Output(display_name="INT"),
                io.Boolean.Output(display_name="BOOL"),
            ],
        )

    @classmethod
    def execute(cls, expression: str, values: dict[str, Any]) -> io.NodeOutput:
        """The result as a number, cut to a whole number, and whether it is not 0.

        Raises:
            ValueError: the expression is empty, or gives no finite number.
            simpleeval.InvalidExpression: it is no expression, or one with names or functions there are not.
        """
        if not expression.strip():
            raise ValueError("Expression cannot be empty.")
        import simpleeval

        names = {**values, "values": list(values.values())}
        result = simpleeval.simple_eval(expression, names=names, functions=MATH_FUNCTIONS)
        if not isinstance(result, (int, float)):
            raise ValueError(
                f"Math Expression '{expression}' must evaluate to a numeric result, "
                f"got {type(result).__name__}: {result!r}"
            )
        try:
            number = float(result)
        except OverflowError:
            raise ValueError(
                f"Math Expression '{expression}' produced a result too large to represent as a float: {result}"
            ) from None
        if not math.isfinite(number):
            raise ValueError(f"Math Expression '{expression}' produced a non-finite result: {result}")
        return io.NodeOutput(number, int(result), bool(result))


# -- conversions -------------------------------------------------------------------------------------------------


class NumberConvertNode(io.ComfyNode):
    """A number from a number, text or truth value."""

    RELATIVE_PYTHON_MODULE = "comfy_extras.nodes_number_convert"

    @classmethod
    def define_schema(cls) -> io.Schema:
        aliases = [
            "int to float",
            "float to int",
            "number convert",
            "int2float",
            "float2int",
            "cast",
            "parse number",
            "string to number",
            "bool to int",
        ]
        types = [io.Int, io.Float, io.String, io.Boolean]
        return io.Schema(
            node_id="ComfyNumberConvert",
            display_name="Convert Number",
            category=CATEGORY,
            search_aliases=aliases,
            inputs=[io.MultiType.Input("value", types, display_name="value")],
            outputs=[io.Float.Output(display_name="FLOAT"), io.Int.Output(display_name="INT")],
        )

    @classmethod
    def execute(cls, value: Any) -> io.NodeOutput:
        """The value as a number and cut to a whole number; whole numbers of any size are exact.

        Raises:
            ValueError: the text is no number, or the number is not finite.
            TypeError: another type.
        """
        if isinstance(value, str):
            number, whole = _parse_number(value)
        elif isinstance(value, (bool, int)):
            number, whole = float(value), int(value)
        elif isinstance(value, float):
            number, whole = value, None
        else:
            raise TypeError(f"Unsupported input type: {type(value).__name__}")
        if whole is None:
            # Cut before it is checked, as ComfyUI does: the error of a number that is not finite is Python's.
            whole = int(number)
        return io.NodeOutput(number, whole)


def _parse_number(value: str) -> tuple[float, int | None]:
    """A text as a number, and as a whole number if it is one.

    Raises:
        ValueError: it is no finite number.
    """
    text = value.strip()
    if not text:
        raise ValueError("Cannot convert empty string to number.")
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"Cannot convert string to number: {value!r}") from None
    if not math.isfinite(number):
        raise ValueError(f"Cannot convert non-finite value to number: {number}")
    try:
        return number, int(text)
    except ValueError:
        return number, None


class SeedNode(io.ComfyNode):
    """A seed, to be used in several places."""

    RELATIVE_PYTHON_MODULE = "comfy_extras.nodes_seed"

    @classmethod
    def define_schema(cls) -> io.Schema:
        control = io.ControlAfterGenerate.fixed
        return io.Schema(
            node_id="SeedNode",
            display_name="Seed",
            category=CATEGORY,
            search_aliases=["seed", "random"],
            inputs=[io.Int.Input("seed", min=0, max=sys.maxsize, control_after_generate=control)],
            outputs=[io.Int.Output(display_name="seed")],
        )

    @classmethod
    def execute(cls, seed: int) -> io.NodeOutput:
        """The seed itself."""
        return io.NodeOutput(seed)


# -- sizes and colours -------------------------------------------------------------------------------------------

# Option -> width to height.
_PROPORTIONS = {
    "1:1 (Square)": (1, 1),
    "2:3 (Portrait Photo)": (2, 3),
    "3:2 (Photo)": (3, 2),
    "3:4 (Portrait Standard)": (3, 4),
    "4:3 (Standard)": (4, 3),
    "9:16 (Portrait Widescreen)": (9, 16),
    "16:9 (Widescreen)": (16, 9),
    "21:9 (Ultrawide)": (21, 9),
}


class ResolutionSelector(io.ComfyNode):
    """A width and height of given proportions and area."""

    RELATIVE_PYTHON_MODULE = "comfy_extras.nodes_resolution"

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ResolutionSelector",
            display_name="Resolution Selector",
            category=CATEGORY,
            description=(
                "Calculate width and height from aspect ratio and megapixel target. Useful for setting up Empty "
                "Latent Image dimensions."
            ),
            inputs=[
                io.Combo.Input(
                    "aspect_ratio",
                    options=list(_PROPORTIONS),
                    default="1:1 (Square)",
                    tooltip="The aspect ratio for the output dimensions.",
                ),
                io.Float.Input(
                    "megapixels",
                    default=1.0,
                    min=0.1,
                    max=16.0,
                    step=0.1,
                    tooltip="Target total megapixels. 1.0 MP \u2248 1024x1024 for square.",
                ),
                io.Int.Input(
                    "multiple",
                    default=8,
                    min=8,
                    max=128,
                    step=4,
                    tooltip="Nearest multiple of the result to set the selected resolution to.",
                    advanced=True,
                ),
            ],
            outputs=[
                io.Int.Output(
                    display_name=name, tooltip=f"Calculated {name} in pixels multiplied by the selected multiple."
                )
                for name in ("width", "height")
            ],
        )

    @classmethod
    def execute(cls, aspect_ratio: str, megapixels: float, multiple: int) -> io.NodeOutput:
        """Both in pixels, rounded to the multiple; a megapixel is 1024 * 1024 of them."""
        sides = _PROPORTIONS[aspect_ratio]
        scale = math.sqrt(megapixels * 1024 * 1024 / (sides[0] * sides[1]))
        return io.NodeOutput(*(round(side * scale / multiple) * multiple for side in sides))


class ColorToRGBInt(io.ComfyNode):
    """A colour as a number."""

    RELATIVE_PYTHON_MODULE = "comfy_extras.nodes_color"

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ColorToRGBInt",
            display_name="Color Picker",
            category=CATEGORY,
            description="Return a color RGB integer value and hexadecimal representation.",
            inputs=[io.Color.Input("color")],
            outputs=[
                io.Int.Output(display_name="rgb_int"),
                io.Color.Output(display_name="hex"),
                io.Float.Output(display_name="alpha"),
            ],
        )

    @classmethod
    def execute(cls, color: str) -> io.NodeOutput:
        """``#RRGGBB`` or ``#RRGGBBAA`` as 0xRRGGBB, as ``#RRGGBB``, and its opacity in 0..1.

        Raises:
            ValueError: it is neither.
        """
        wrong = ValueError("Color must be in format #RRGGBB or #RRGGBBAA")
        if len(color) not in (7, 9) or color[0] != "#":
            raise wrong
        try:
            int(color[1:], 16)
        except ValueError:
            raise wrong from None
        alpha = int(color[7:], 16) / 255.0 if len(color) == 9 else 1.0
        return io.NodeOutput(int(color[1:7], 16), color[:7], alpha)


NODE_CLASS_MAPPINGS: dict[str, type] = {
    "ComfyMathExpression": MathExpressionNode,
    "ComfyNumberConvert": NumberConvertNode,
    "SeedNode": SeedNode,
    "ResolutionSelector": ResolutionSelector,
    "ColorToRGBInt": ColorToRGBInt,
}

NODE_DISPLAY_NAME_MAPPINGS = {
    "ComfyMathExpression": "Math Expression",
    "ComfyNumberConvert": "Convert Number",
    "SeedNode": "Seed",
    "ResolutionSelector": "Resolution Selector",
    "ColorToRGBInt": "Color Picker",
}
