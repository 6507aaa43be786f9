"""Control flow as data: conditions, steps (Branch, Loop) and per-iteration inputs. Pure; it runs no workflow.

An orchestrator walks the steps, asks a `Condition` whether it holds and a `PerIteration` for its value. Everything a
user writes is checked when it is written (`Condition.parse`, the constructors, `parse_steps`): a bad expression is an
error before anything runs.

Expressions
-----------
Evaluated by simpleeval, restricted further to: numbers, text, True/False/None, the names of values, ``iteration``
(counted from 0), ``+ - * / // % **``, comparisons, ``in``, ``is``, ``and or not``, ``x if c else y``, indexing
(``latent["samples"]``, ``shape(image)[1]``), lists and tuples, and calls of the functions in `FUNCTIONS`. No
attributes, no assignments, no comprehensions; length, depth and the size of powers are bounded. On tensors the
functions give plain numbers, so ``mean(image) < 0.5`` is a truth value where ``image < 0.5`` is a tensor of them.

Errors: `ConditionError` (a ValueError) for conditions; ValueError and TypeError for steps.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import json
import keyword
import math
import operator
import os
import re
import statistics
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Union

# The name under which an expression reads the number of the iteration, from 0.
ITERATION = "iteration"

_MAX_LENGTH = 1000
_MAX_DEPTH = 40
_MAX_POWER_BITS = 4096
_MAX_EXPONENT = 1000


class ConditionError(ValueError):
    """A condition that cannot be understood, or that failed on the values it got."""


# -------------------------------------------------------------------------------------------- functions on any value


def _tensor(value: Any) -> Any:
    """The torch tensor a value is or holds (a LATENT's ``samples``, a numpy array); None for anything else."""
    if isinstance(value, Mapping) and hasattr(value.get("samples"), "detach"):
        return value["samples"].detach()
    if hasattr(value, "detach") and hasattr(value, "shape"):
        return value.detach()
    if hasattr(value, "__array_interface__") and getattr(value, "shape", ()) != ():
        import torch

        return torch.as_tensor(value)
    return None


def _numbers(value: Any) -> Any:
    return value.values() if isinstance(value, Mapping) else value


def mean(value: Any) -> float:
    """Arithmetic mean of all elements of a tensor or sequence; a number is its own mean."""
    tensor = _tensor(value)
    if tensor is not None:
        import torch

        return float(tensor.mean(dtype=torch.float64))
    return float(value) if isinstance(value, (int, float)) else statistics.fmean(_numbers(value))


def std(value: Any) -> float:
    """Population standard deviation (divided by n) of all elements; 0.0 for a number."""
    tensor = _tensor(value)
    if tensor is not None:
        return float(tensor.double().std(correction=0))
    return 0.0 if isinstance(value, (int, float)) else statistics.pstdev(map(float, _numbers(value)))


def _sum(value: Any) -> float | int:
    tensor = _tensor(value)
    if tensor is not None:
        import torch

        is_float = tensor.is_floating_point()
        return (tensor.sum(dtype=torch.float64) if is_float else tensor.sum()).item()  # type: ignore[no-any-return]
    return value if isinstance(value, (int, float)) else sum(_numbers(value))


def _extreme(name: str) -> Callable[..., Any]:
    def extreme(*values: Any) -> Any:
        items = [_one_extreme(name, v) for v in values]
        return items[0] if len(items) == 1 else getattr(builtins, name)(items)

    extreme.__name__ = name
    extreme.__doc__ = f"The {name}imum of all elements of a tensor or sequence, or of several numbers."
    return extreme


def _one_extreme(name: str, value: Any) -> Any:
    tensor = _tensor(value)
    if tensor is not None:
        return getattr(tensor, name)().item()
    return value if isinstance(value, (int, float, str)) else getattr(builtins, name)(_numbers(value))


def _round(value: Any, digits: int = 0) -> Any:
    # A huge negative count would make Python compute 10 ** count.
    if not isinstance(digits, int) or abs(digits) > 20:
        raise ValueError(f"round takes at most 20 digits, not {digits!r}")
    tensor = _tensor(value)
    if tensor is not None:
        return tensor.round(decimals=digits)
    return round(value, digits) if digits else round(value)


def _abs(value: Any) -> Any:
    tensor = _tensor(value)
    return abs(value) if tensor is None else tensor.abs()


def _len(value: Any) -> int:
    """Items of a sequence, characters of a text, the first dimension (batch) of a tensor."""
    tensor = _tensor(value)
    return len(value) if tensor is None else int(tensor.shape[0])


def shape(value: Any) -> tuple[int, ...]:
    """A tensor's shape: (B, H, W, C) for an IMAGE; () for a number; (n,) for a sequence."""
    tensor = _tensor(value)
    if tensor is not None:
        return tuple(int(n) for n in tensor.shape)
    return (len(value),) if hasattr(value, "__len__") else ()


def _any(value: Any) -> bool:
    tensor = _tensor(value)
    return any(_numbers(value)) if tensor is None else bool(tensor.any())


def _all(value: Any) -> bool:
    tensor = _tensor(value)
    return all(_numbers(value)) if tensor is None else bool(tensor.all())


# What an expression may call; `value("my port")`, which reads a value whose name is no identifier, comes on top.
FUNCTIONS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "mean": mean,
        "std": std,
        "min": _extreme("min"),
        "max": _extreme("max"),
        "abs": _abs,
        "len": _len,
        "shape": shape,
        "sum": _sum,
        "round": _round,
        "any": _any,
        "all": _all,
    }
)


def truth(value: Any) -> bool:
    """The truth of a port's value, as a condition that only names the port takes it.

    A tensor is true if any element is not zero (an empty mask is false; NaN counts as not zero), whatever its size;
    so is a LATENT for its samples. Everything else is Python's truth: 0, 0.0, "", None, [] and {} are false, the
    text "false" is true.
    """
    tensor = _tensor(value)
    return bool(value) if tensor is None else bool(tensor.any())


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "shape") and not isinstance(value, Mapping)


def _power(base: Any, exponent: Any) -> Any:
    if not isinstance(exponent, (int, float)) or abs(exponent) > _MAX_EXPONENT:
        raise ValueError(f"an exponent must be a number up to {_MAX_EXPONENT}")
    if isinstance(base, int) and isinstance(exponent, int) and base.bit_length() * abs(exponent) > _MAX_POWER_BITS:
        raise ValueError(f"{base} ** {exponent} is too large a number")
    return base**exponent


def _multiply(left: Any, right: Any) -> Any:
    # Repeating text or lists needs no place in a condition, and would be a way to fill the memory.
    for factor in (left, right):
        if not (isinstance(factor, (int, float)) or _is_tensor(factor)):
            raise TypeError(f"cannot multiply {type(factor).__name__}")
    return left * right


def _modulo(left: Any, right: Any) -> Any:
    # "%1000000000d" % 1 would be text formatting.
    if isinstance(left, (str, bytes)):
        raise TypeError("cannot take the remainder of text")
    return left % right


_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: _multiply,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: _modulo,
    ast.Pow: _power,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Gt: operator.gt,
    ast.Lt: operator.lt,
    ast.GtE: operator.ge,
    ast.LtE: operator.le,
    ast.Not: operator.not_,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.In: lambda x, y: operator.contains(y, x),
    ast.NotIn: lambda x, y: not operator.contains(y, x),
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
}

_ALLOWED_SYNTAX: tuple[type[ast.AST], ...] = (
    *(ast.Expression, ast.BoolOp, ast.And, ast.Or, ast.BinOp, ast.UnaryOp, ast.Compare, ast.Call, ast.Name, ast.Load),
    *(ast.Constant, ast.IfExp, ast.Subscript, ast.Slice, ast.List, ast.Tuple),
    *_OPERATORS,
)


# ------------------------------------------------------------------------------------------------------- conditions

ConditionFunction = Callable[..., Any]
ConditionSpec = Union[str, bool, ConditionFunction, "Condition"]

_PLAIN_NAME = re.compile(r"\w[\w .:#/@-]*")


class Condition:
    """Whether to go on, or which way to go. Made by `Condition.parse`.

    Read-only attributes:
        source: what the user wrote.
        kind: "port", "expression", "function" or "constant".
        names: the values it reads, for a check beforehand; empty for a function, whose reads only show when it runs.
    """

    def __init__(self, source: Any, kind: str, names: Iterable[str], tree: ast.Expression | None = None) -> None:
        self.source = source
        self.kind = kind
        self.names: frozenset[str] = frozenset(names)
        self._tree = tree
        # How many arguments a function takes; asked once, as a loop calls it again and again.
        self._count = _positional_count(source) if kind == "function" else None

    @classmethod
    def parse(cls, spec: ConditionSpec) -> Condition:
        """Understands a condition.

        Args:
            spec: the name of a port (its value's `truth`); an expression; a function, sync or async, called with a
                read-only mapping of the values (and the iteration, if it takes two arguments), whose result counts by
                its `truth`; True or False; or a Condition. A text that is both a port's name and an expression
                ("image-1") is the port wherever a value of that name exists.

        Raises:
            ConditionError: a syntax error (with its column), an unknown function, or what an expression may not do.
            TypeError: none of the kinds above.
        """
        if isinstance(spec, Condition):
            return spec
        if isinstance(spec, bool):
            return cls(spec, "constant", ())
        if isinstance(spec, str):
            return cls._parse_text(spec)
        if callable(spec):
            return cls(spec, "function", ())
        raise TypeError(
            "A condition is a port's name, an expression such as 'score < 0.9', or a function; not "
            f"{type(spec).__name__}."
        )

    @classmethod
    def _parse_text(cls, text: str) -> Condition:
        name = text.strip()
        if not name:
            raise ConditionError("The condition is empty. Write a port's name or an expression such as 'score < 0.9'.")
        if name.isidentifier() and name not in ("True", "False", "None", ITERATION):
            return cls(text, "port", [name])
        try:
            tree = _parse_expression(name)
        except ConditionError:
            # "my image" and "a.b" are no expressions, but good names for ports; "a and" is neither.
            if _PLAIN_NAME.fullmatch(name) and not any(map(keyword.iskeyword, name.split())):
                return cls(text, "port", [name])
            raise
        return cls(text, "expression", _names_in(tree), tree)

    def missing(self, known: Collection[str]) -> frozenset[str]:
        """The names it reads that are not among the known ones: what to complain about before a run."""
        if isinstance(self.source, str) and self.source.strip() in known:
            return frozenset()
        return self.names - frozenset(known)

    async def holds(self, values: Mapping[str, Any], iteration: int = 0) -> bool:
        """Whether the condition is true now.

        Args:
            values: the run's values by unique_id. Only those the condition names are read, so it may load lazily.
            iteration: number of the iteration, from 0.

        A synchronous function runs in the event loop's thread: what takes long belongs into an async one. Cancelling is
        safe. Raises ConditionError if a value is missing or does not suit the expression; what a function raises
        comes through unchanged.
        """
        if self.kind == "constant":
            return bool(self.source)
        if self.kind == "function":
            result = self.source(*(MappingProxyType(values), iteration)[: self._count])
            return truth(await result if inspect.isawaitable(result) else result)
        text = str(self.source).strip()
        if self.kind == "port" or text in values:
            return truth(_read(values, text, text))
        return self._evaluate(text, values, iteration)

    def _evaluate(self, text: str, values: Mapping[str, Any], iteration: int) -> bool:
        import simpleeval

        def name_value(node: ast.Name) -> Any:
            return iteration if node.id == ITERATION else _read(values, node.id, text)

        functions = {**FUNCTIONS, "value": lambda name: _read(values, name, text)}
        evaluator = simpleeval.EvalWithCompoundTypes(operators=_OPERATORS, functions=functions, names=name_value)
        try:
            result = evaluator.eval(text, previously_parsed=self._tree.body if self._tree else None)
            if _is_tensor(result) and math.prod(result.shape) != 1:
                raise ValueError(
                    f"it gives a tensor of shape {tuple(result.shape)}; reduce it with mean, min, max, any or all"
                )
            return bool(result)
        except ConditionError:
            raise
        except Exception as error:
            raise ConditionError(
                f"The condition {text!r} failed in iteration {iteration}: {type(error).__name__}: {error}"
            ) from error

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Condition) and self.source == other.source

    def __hash__(self) -> int:
        return hash(self.source)

    def __repr__(self) -> str:
        return f"Condition({self.source!r})"


def _read(values: Mapping[str, Any], name: str, text: str) -> Any:
    try:
        return values[name]
    except KeyError:
        known = ", ".join(sorted(map(str, values))) or "none"
        raise ConditionError(
            f"The condition {text!r} reads {name!r}, which has no value. There are values for: {known}."
        ) from None


def _parse_expression(text: str) -> ast.Expression:
    """The checked syntax tree of an expression; ConditionError where it is none, or does what it may not."""
    if len(text) > _MAX_LENGTH:
        raise ConditionError(
            f"The condition is {len(text)} characters long; at most {_MAX_LENGTH} are allowed. Use a function."
        )
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        # Where the text just ends too early, Python gives no column.
        where = f" at column {error.offset or len(text) + 1}" if isinstance(error, SyntaxError) else ""
        message = getattr(error, "msg", None) or str(error)
        raise ConditionError(
            f"The condition {text!r} is no expression: {message}{where}. Write for instance 'score < 0.9 and "
            "iteration < 20'; a port whose name has unusual characters is read by value('its name')."
        ) from None
    _check_syntax(tree, text)
    return tree


def _check_syntax(tree: ast.Expression, text: str) -> None:
    pending: list[tuple[ast.AST, int]] = [(tree, 0)]
    while pending:
        node, depth = pending.pop()
        if depth > _MAX_DEPTH:
            raise ConditionError(f"The condition {text!r} is nested deeper than {_MAX_DEPTH} levels. Use a function.")
        if isinstance(node, ast.Call):
            _check_call(node, text)
        elif not isinstance(node, _ALLOWED_SYNTAX):
            raise ConditionError(_forbidden_message(node, text))
        elif isinstance(node, ast.Constant) and not isinstance(node.value, (int, float, str, bool, type(None))):
            raise ConditionError(f"The condition {text!r} has a {type(node.value).__name__}, which it may not.")
        pending.extend((child, depth + 1) for child in ast.iter_child_nodes(node))


def _check_call(node: ast.Call, text: str) -> None:
    allowed = ", ".join([*FUNCTIONS, "value"])
    if not isinstance(node.func, ast.Name) or node.func.id not in (*FUNCTIONS, "value"):
        called = ast.unparse(node.func)
        raise ConditionError(f"The condition {text!r} calls {called!r}. It may call only: {allowed}.")
    if node.keywords or any(isinstance(argument, ast.Starred) for argument in node.args):
        raise ConditionError(f"The condition {text!r} calls {node.func.id} with keywords or *; pass plain arguments.")
    is_literal = len(node.args) == 1 and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str)
    if node.func.id == "value" and not is_literal:
        raise ConditionError(f"In the condition {text!r}, value(...) takes one name in quotes: value('my image').")


def _forbidden_message(node: ast.AST, text: str) -> str:
    column = getattr(node, "col_offset", None)
    where = f" at column {column + 1}" if column is not None else ""
    hint = " Write latent['samples'] for an item." if isinstance(node, ast.Attribute) else ""
    what = f"{type(node).__name__}{where}, which an expression may not"
    return f"The condition {text!r} uses {what}.{hint} Use a function for more."


def _names_in(tree: ast.Expression) -> set[str]:
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    functions = {id(call.func) for call in calls}
    names = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and id(n) not in functions} - {ITERATION}
    quoted = {c.args[0].value for c in calls if isinstance(c.func, ast.Name) and c.func.id == "value"}  # type: ignore[attr-defined]
    return names | quoted


def _positional_count(function: Callable[..., Any]) -> int | None:
    """How many arguments a function takes by position, at least one; None: any number."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return 1
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return None
    return max(1, sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters))


# ----------------------------------------------------------------------------------------------- per-iteration input


class PerIteration:
    """An input that has another value in every iteration.

    Args:
        source: a sequence (its item number `iteration` is the value), or a function, sync or async, called with
            (iteration) or (iteration, values): the number from 0, and a read-only mapping of the run's values.

    Raises:
        TypeError: neither of the two; text counts as neither.
    """

    def __init__(self, source: Sequence[Any] | Callable[..., Any]) -> None:
        is_sequence = hasattr(source, "__getitem__") and hasattr(source, "__len__")
        if isinstance(source, (str, bytes, Mapping)) or not (is_sequence or callable(source)):
            raise TypeError(
                f"PerIteration takes a sequence (a value for each iteration) or a function of the iteration, not "
                f"{type(source).__name__}."
            )
        self._is_sequence = is_sequence
        self.source = source
        self._count = None if is_sequence else _positional_count(source)  # type: ignore[arg-type]

    @property
    def length(self) -> int | None:
        """For how many iterations there are values; None: for any number."""
        return len(self.source) if self._is_sequence else None  # type: ignore[arg-type]

    async def value(self, iteration: int, values: Mapping[str, Any] | None = None, name: str = "") -> Any:
        """The value for an iteration (from 0).

        Args:
            values: the run's values, for a function that takes them.
            name: the input's name, for the message if the sequence is too short.

        Raises:
            IndexError: the sequence is too short; names the input, the iteration and the length. What a function
                raises comes through unchanged. A synchronous function runs in the event loop's thread.
        """
        if not self._is_sequence:
            result = self.source(*(iteration, MappingProxyType(values or {}))[: self._count])  # type: ignore[operator]
            return await result if inspect.isawaitable(result) else result
        if iteration < 0 or iteration >= len(self.source):  # type: ignore[arg-type]
            raise IndexError(
                f"The input {name!r} has a sequence of {self.length} values (PerIteration), so there is none for "
                f"iteration {iteration} (counted from 0). Give it more values or run fewer iterations."
            )
        return self.source[iteration]  # type: ignore[index]

    def __repr__(self) -> str:
        return f"PerIteration({self.source!r})"


# ------------------------------------------------------------------------------------------------------------ steps

# A path, a workflow dict (editor or API format), a Branch or a Loop, in any form that `parse_steps` takes but the list,
# which is for JSON: as a type it would hide a list of steps inside a list. `parse_steps` leaves no tuple.
Step = Union[str, os.PathLike[str], Mapping[str, Any], "Branch", "Loop", tuple[Any, ...]]


@dataclass(frozen=True)
class Branch:
    """Runs `then` if the condition holds when this step's turn comes, else `otherwise`.

    Attributes, after construction: `condition` is a Condition, `then` and `otherwise` are tuples of steps.
    Raises, on construction: as `Condition.parse` and `parse_steps`.
    """

    condition: Condition | ConditionSpec
    then: Sequence[Step] = ()
    otherwise: Sequence[Step] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "condition", Condition.parse(self.condition))
        object.__setattr__(self, "then", parse_steps(self.then, "then"))
        object.__setattr__(self, "otherwise", parse_steps(self.otherwise, "otherwise"))


@dataclass(frozen=True)
class Loop:
    """Runs `body` again and again: `iterations` times, and only as long as the condition holds.

    Attributes, after construction:
        body: tuple of steps.
        iterations: how many times at most; None: until the condition is false.
        condition: a Condition, or None for none.

    Raises, on construction: ValueError without both iterations and condition (it would never end) or with a
    negative number; and as `Condition.parse` and `parse_steps`.
    """

    body: Sequence[Step]
    iterations: int | None = None
    condition: Condition | ConditionSpec | None = field(default=None)

    def __post_init__(self) -> None:
        count = self.iterations
        if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 0):
            raise ValueError(f"A Loop's iterations must be a whole number from 0, or None; got {count!r}.")
        if count is None and self.condition is None:
            raise ValueError("A Loop needs a number of iterations or a condition; without both it would never end.")
        if self.condition is not None:
            object.__setattr__(self, "condition", Condition.parse(self.condition))
        object.__setattr__(self, "body", parse_steps(self.body, "body"))


_STEP_KEYS = {
    "branch": ({"condition"}, {"then", "otherwise"}),
    "loop": ({"body"}, {"iterations", "condition"}),
}


def parse_steps(steps: Any, where: str = "steps", problems: list[Exception] | None = None) -> tuple[Step, ...]:
    """Steps in any of their forms, checked and made uniform.

    Args:
        steps: a list or tuple of steps, or a single one. A step is a path; a workflow dict (editor or API format); a
            `Branch` or `Loop`; the tuple ``("branch", condition, then, otherwise)`` or
            ``("loop", body, iterations, condition)``, where what stands last may be left out (a list does too, as JSON
            has no tuples); or the JSON object
            ``{"branch": {"condition": ..., "then": [...], "otherwise": [...]}}`` or
            ``{"loop": {"body": [...], "iterations": N, "condition": ...}}``.
        where: what messages call the list.
        problems: errors are added to this list, and the steps that have them left out; None: the first one is raised.

    Returns:
        tuple of paths (as given), workflow dicts (as given), Branch and Loop objects.

    Raises:
        ValueError, TypeError: with the position, "steps[2].then[0]: ...". ConditionError is a ValueError.
    """
    if isinstance(steps, (str, os.PathLike, Mapping, Branch, Loop)) or _is_tuple_form(steps):
        entries = [(where, steps)]
    elif isinstance(steps, (list, tuple)):
        entries = [(f"{where}[{index}]", step) for index, step in enumerate(steps)]
    else:
        entries = []
        _note(
            TypeError(
                f"{where}: expected a list of steps (paths, workflows, Branch, Loop), not {type(steps).__name__}."
            ),
            problems,
        )
    parsed: list[Step] = []
    for position, step in entries:
        try:
            parsed.append(_parse_step(step, position, problems))
        except (ValueError, TypeError) as error:
            _note(error, problems)
    return tuple(parsed)


def _note(error: Exception, problems: list[Exception] | None) -> None:
    """Add an error to the list, or raise it where there is none."""
    if problems is None:
        raise error
    problems.append(error)


def load_steps(path: str | os.PathLike[str]) -> tuple[Step, ...]:
    """The steps of a JSON file; relative workflow paths in it count from the file's folder.

    Raises:
        FileNotFoundError: no such file. ValueError, TypeError: not JSON, or as `parse_steps`.
    """
    file = Path(path)
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"The step file {str(file)!r} is not JSON: {error}") from None
    return tuple(_based(step, file.parent) for step in parse_steps(content, f"{file.name}"))


def _based(step: Step, folder: Path) -> Step:
    if isinstance(step, Branch):
        then, otherwise = ([_based(s, folder) for s in side] for side in (step.then, step.otherwise))
        return Branch(step.condition, then, otherwise)
    if isinstance(step, Loop):
        return Loop([_based(s, folder) for s in step.body], step.iterations, step.condition)
    return step if isinstance(step, (Mapping, tuple)) else folder / step


def _is_tuple_form(step: Any) -> bool:
    return isinstance(step, (list, tuple)) and len(step) > 0 and step[0] in ("branch", "loop")


def _parse_step(step: Any, where: str, problems: list[Exception] | None = None) -> Step:
    if isinstance(step, (Branch, Loop)):
        return step
    if isinstance(step, str):
        if not step.strip():
            raise ValueError(f"{where}: the path of the workflow is empty.")
        return step
    if isinstance(step, os.PathLike):
        return Path(step)
    if _is_tuple_form(step):
        return _from_tuple(step, where, problems)
    if isinstance(step, Mapping):
        return _from_mapping(step, where, problems)
    raise TypeError(f"{where}: a step is a path, a workflow dict, a Branch or a Loop; not {type(step).__name__}.")


def _from_tuple(step: Sequence[Any], where: str, problems: list[Exception] | None) -> Branch | Loop:
    names = ("condition", "then", "otherwise") if step[0] == "branch" else ("body", "iterations", "condition")
    if not 2 <= len(step) <= 4:
        raise ValueError(
            f"{where}: a step ({step[0]!r}, ...) has {', '.join(names)}; this one has {len(step) - 1} parts."
        )
    return _build(step[0], dict(zip(names, step[1:], strict=False)), where, problems)


def _from_mapping(step: Mapping[str, Any], where: str, problems: list[Exception] | None) -> Step:
    kind = next((k for k in _STEP_KEYS if set(step) == {k} and isinstance(step[k], Mapping)), None)
    if kind is not None and "class_type" not in step[kind]:
        required, optional = _STEP_KEYS[kind]
        given = set(step[kind])
        if given - required - optional or required - given:
            allowed = ", ".join(sorted(required | optional))
            raise ValueError(
                f"{where}: a {kind} has the keys {allowed}; this one has "
                f"{', '.join(sorted(map(str, given))) or 'none'}."
            )
        return _build(kind, step[kind], where, problems)
    is_prompt = any(isinstance(node, Mapping) and "class_type" in node for node in step.values())
    if isinstance(step.get("nodes"), list) or is_prompt:
        return step
    keys = ", ".join(map(str, list(step)[:6])) or "none"
    raise ValueError(
        f"{where}: this object is neither a workflow (it has no 'nodes'), nor a prompt, nor {{'branch': {{...}}}} or "
        f"{{'loop': {{...}}}}; its keys: {keys}."
    )


def _build(kind: str, parts: Mapping[str, Any], where: str, problems: list[Exception] | None) -> Branch | Loop:
    """A step from its parts; errors of nested steps carry the whole position, the step's own carry `where`."""
    sides = [side for side in ("then", "otherwise", "body") if side in parts]
    nested = {side: parse_steps(parts[side], f"{where}.{side}", problems) for side in sides}
    try:
        return (Branch if kind == "branch" else Loop)(**{**parts, **nested})
    except (ValueError, TypeError) as error:
        raise type(error)(f"{where}: {error}") from error
