"""What is common to all inputs of a schema."""

from __future__ import annotations

from typing import Any, ClassVar

from .options import prune_dict


class SchemaItem:
    """An input or output of a schema (``_IO_V3`` in ComfyUI)."""

    # The class of the type it belongs to; set by ``@comfytype``.
    Parent: Any = None

    def validate(self) -> None:
        """Called when the schema is validated; raises if this item cannot be."""

    @property
    def io_type(self) -> Any:
        """The type's name."""
        return self.Parent.io_type

    @property
    def Type(self) -> Any:
        """The Python type of values."""
        return self.Parent.Type


class Input(SchemaItem):
    """An input of a node.

    Args:
        id: its name in prompts, and the parameter of ``execute``.
        display_name: its name in the editor; None: the id.
        optional: whether a prompt may leave it out.
        tooltip: what the editor says when the mouse rests on it.
        lazy: computed only when ``check_lazy_status`` asks for it.
        extra_dict: further options for the editor.
        raw_link: ``execute`` gets the link ``[node_id, slot]`` instead of a value.
        advanced: the editor shows it with the advanced inputs.
    """

    # Attribute -> name in the JSON, of the class that declares them; subclasses add theirs. What is None is left out.
    _options: ClassVar[dict[str, str]] = {
        "display_name": "display_name",
        "optional": "optional",
        "tooltip": "tooltip",
        "lazy": "lazy",
        "rawLink": "rawLink",
        "advanced": "advanced",
    }

    def __init__(
        self,
        id: str,
        display_name: str | None = None,
        optional: bool = False,
        tooltip: str | None = None,
        lazy: bool | None = None,
        extra_dict: dict[str, Any] | None = None,
        raw_link: bool | None = None,
        advanced: bool | None = None,
    ) -> None:
        self.id = id
        self.display_name = display_name
        self.optional = optional
        self.tooltip = tooltip
        self.lazy = lazy
        self.extra_dict = extra_dict if extra_dict is not None else {}
        self.rawLink = raw_link
        self.advanced = advanced

    def as_dict(self) -> dict[str, Any]:
        """The options as /object_info has them; ``extra_dict`` never replaces those of a subclass."""
        found = {**self._read(Input._options), **prune_dict(self.extra_dict)}
        for kind in reversed(type(self).__mro__):
            own = kind.__dict__.get("_options")
            if own is not None and kind is not Input:
                found.update(self._read(own))
        return found

    def get_io_type(self) -> Any:
        """The type's name in /object_info."""
        return self.io_type

    def get_all(self) -> list[Input]:
        """This input and those it may become."""
        return [self]

    def _read(self, options: dict[str, str]) -> dict[str, Any]:
        return prune_dict({name: getattr(self, attribute) for attribute, name in options.items()})


class WidgetInput(Input):
    """An input the editor has a widget for.

    Args:
        default: the widget's first value.
        socketless: it cannot be linked.
        widget_type: a type whose widget is shown instead.
        force_input: it can only be linked.
    """

    _options: ClassVar[dict[str, str]] = {
        "default": "default",
        "socketless": "socketless",
        "widget_type": "widgetType",
        "force_input": "forceInput",
    }

    def __init__(
        self,
        id: str,
        display_name: str | None = None,
        optional: bool = False,
        tooltip: str | None = None,
        lazy: bool | None = None,
        default: Any = None,
        socketless: bool | None = None,
        widget_type: str | None = None,
        force_input: bool | None = None,
        extra_dict: dict[str, Any] | None = None,
        raw_link: bool | None = None,
        advanced: bool | None = None,
    ) -> None:
        super().__init__(id, display_name, optional, tooltip, lazy, extra_dict, raw_link, advanced)
        self.default = default
        self.socketless = socketless
        self.widget_type = widget_type
        self.force_input = force_input

    def get_io_type(self) -> Any:
        """The type whose widget is shown."""
        return super().get_io_type() if self.widget_type is None else self.widget_type


def create_input_dict_v1(inputs: list[Input]) -> dict[str, Any]:
    """Inputs as V1's INPUT_TYPES has them: category -> id -> (type, options)."""
    declared: dict[str, Any] = {"required": {}}
    for item in inputs:
        add_to_dict_v1(item, declared)
    return declared


def add_to_dict_v1(i: Input, d: dict[str, Any]) -> None:
    """Add one input to an INPUT_TYPES."""
    options = i.as_dict()
    options.pop("optional", None)
    d.setdefault("optional" if i.optional else "required", {})[i.id] = (i.get_io_type(), options)
