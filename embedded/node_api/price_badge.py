"""What a node that calls a paid service says of its price: an expression the editor evaluates."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .inputs import Input


@dataclass
class PriceBadgeDepends:
    """What the price depends on: ids of widgets, of linked inputs, and of groups of inputs."""

    widgets: list[str] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    input_groups: list[str] = field(default_factory=list)

    def validate(self) -> None:
        """Raises ValueError for what is no list of ids."""
        for name, value in vars(self).items():
            if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
                raise ValueError(f"PriceBadgeDepends.{name} must be a list[str].")

    def as_dict(self, schema_inputs: list[Input]) -> dict[str, Any]:
        """As /object_info has it, widgets with their types.

        Raises:
            ValueError: the schema has no such widget.
        """
        types: dict[str, Any] = {}
        for item in schema_inputs:
            _, *nested = item.get_all()
            types[item.id] = item.get_io_type()
            types.update({f"{item.id}.{inner.id}": inner.get_io_type() for inner in nested})
        for name in self.widgets:
            if name not in types:
                raise ValueError(
                    f"PriceBadge depends_on.widgets references unknown widget '{name}'. "
                    f"Available widgets: {list(types)}"
                )
        widgets = [{"name": name, "type": types[name]} for name in self.widgets]
        return {"widgets": widgets, "inputs": self.inputs, "input_groups": self.input_groups}


@dataclass
class PriceBadge:
    """A JSONata expression, and what it reads."""

    expr: str
    depends_on: PriceBadgeDepends = field(default_factory=PriceBadgeDepends)
    engine: str = "jsonata"

    def validate(self) -> None:
        """Raises ValueError for another engine, an empty expression, and what ``depends_on`` cannot be."""
        if self.engine != "jsonata":
            raise ValueError(f"Unsupported PriceBadge.engine '{self.engine}'. Only 'jsonata' is supported.")
        if not isinstance(self.expr, str) or not self.expr.strip():
            raise ValueError("PriceBadge.expr must be a non-empty string.")
        self.depends_on.validate()

    def as_dict(self, schema_inputs: list[Input]) -> dict[str, Any]:
        """As /object_info has it."""
        return {"engine": self.engine, "depends_on": self.depends_on.as_dict(schema_inputs), "expr": self.expr}
