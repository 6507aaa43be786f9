"""Inputs of several types, and inputs that become other inputs; see :mod:`.dynamic_inputs` for what becomes of them."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

from .declaration import ComfyType, ComfyTypeI, ComfyTypeIO, comfytype
from .inputs import Input as InputBase
from .inputs import WidgetInput, create_input_dict_v1
from .options import prune_dict
from .outputs import Output as OutputBase
from .plain_types import AnyType
from .type_names import MATCH_TYPE

AUTOGROW = "COMFY_AUTOGROW_V3"
DYNAMIC_COMBO = "COMFY_DYNAMICCOMBO_V3"
DYNAMIC_SLOT = "COMFY_DYNAMICSLOT_V3"


# -- several types -----------------------------------------------------------------------------------------------


@comfytype(io_type="COMFY_MULTITYPED_V3")
class MultiType(ComfyTypeIO):
    """One of several types."""

    class Input(InputBase):
        """An input that takes several types.

        Args:
            id: its name; or an input of one of the types, whose name, options and widget it gets.
            types: the types.
        """

        def __init__(
            self,
            id: str | InputBase,
            types: list[Any],
            display_name: str | None = None,
            optional: bool = False,
            tooltip: str | None = None,
            lazy: bool | None = None,
            extra_dict: dict[str, Any] | None = None,
            raw_link: bool | None = None,
            advanced: bool | None = None,
        ) -> None:
            # The input it was made from, None if it was made from a name.
            self.input_override: InputBase | None = None
            name: Any = id
            if isinstance(id, InputBase):
                model = self.input_override = copy.copy(id)
                if isinstance(model, WidgetInput):
                    model.widget_type = model.get_io_type()
                name = model.id
                optional = model.optional is True or optional
                tooltip = tooltip if model.tooltip is None else model.tooltip
                display_name = display_name if model.display_name is None else model.display_name
                lazy = lazy if model.lazy is None else model.lazy
            super().__init__(name, display_name, optional, tooltip, lazy, extra_dict, raw_link, advanced)
            self._io_types = types

        @property
        def io_types(self) -> list[Any]:
            """The types, as classes."""
            return [kind if isinstance(kind, type) else type(kind) for kind in self._io_types]

        def get_io_type(self) -> Any:
            """The names of the types, joined; the one with the widget first."""
            names = [] if self.input_override is None else [self.input_override.get_io_type()]
            names += [kind.io_type for kind in self.io_types]
            return ",".join(dict.fromkeys(names))

        def as_dict(self) -> dict[str, Any]:
            """The options as /object_info has them."""
            options = {} if self.input_override is None else self.input_override.as_dict()
            return {**options, **super().as_dict()}


@comfytype(io_type=MATCH_TYPE)
class MatchType(ComfyTypeIO):
    """Any type, the same for all inputs and outputs of one template. The editor sees to that, the server does not."""

    class Template:
        """What belongs together.

        Args:
            template_id: its name in the node.
            allowed_types: one type or several.

        Raises:
            ValueError: one of them is no type.
        """

        def __init__(self, template_id: str, allowed_types: Any = AnyType) -> None:
            self.template_id = template_id
            self.allowed_types = allowed_types if isinstance(allowed_types, Iterable) else [allowed_types]
            for kind in self.allowed_types:
                known = issubclass(kind, ComfyType) if isinstance(kind, type) else isinstance(kind, ComfyType)
                if not known:
                    name = kind.__name__ if isinstance(kind, type) else type(kind).__name__
                    raise ValueError(f"Allowed types must be a ComfyType or a list of ComfyTypes, got {name}")

        def as_dict(self) -> dict[str, Any]:
            """The template as /object_info has it."""
            types = ",".join(kind.io_type for kind in self.allowed_types)
            return {"template_id": self.template_id, "allowed_types": types}

    class Input(InputBase):
        """An input of a template."""

        def __init__(
            self,
            id: str,
            template: MatchType.Template,
            display_name: str | None = None,
            optional: bool = False,
            tooltip: str | None = None,
            lazy: bool | None = None,
            extra_dict: dict[str, Any] | None = None,
            raw_link: bool | None = None,
            advanced: bool | None = None,
        ) -> None:
            super().__init__(id, display_name, optional, tooltip, lazy, extra_dict, raw_link, advanced)
            self.template = template

        def as_dict(self) -> dict[str, Any]:
            """The options as /object_info has them."""
            return {**super().as_dict(), "template": self.template.as_dict()}

    class Output(OutputBase):
        """An output of a template."""

        def __init__(
            self,
            template: MatchType.Template,
            id: str | None = None,
            display_name: str | None = None,
            tooltip: str | None = None,
            is_output_list: bool = False,
        ) -> None:
            display_name = display_name if id or display_name else "MATCHTYPE"
            super().__init__(id, display_name, tooltip, is_output_list)
            self.template = template

        def as_dict(self) -> dict[str, Any]:
            """The output's options."""
            return {**super().as_dict(), "template": self.template.as_dict()}


# -- inputs that become others -----------------------------------------------------------------------------------


class DynamicInput(InputBase):
    """An input that stands for others."""


class DynamicOutput(OutputBase):
    """An output that stands for others; there is none yet."""


class _AutogrowTemplate:
    """The inputs an :class:`Autogrow` may become: copies of one, under other names."""

    def __init__(self, input: InputBase, names: list[str], min: int) -> None:
        if isinstance(input, DynamicInput):
            raise AssertionError(f"input {input.id!r} is dynamic itself and cannot be repeated by an Autogrow")
        if min < 0:
            raise AssertionError(f"an Autogrow needs a min of 0 or more, not {min}")
        self.input = copy.copy(input)
        if isinstance(self.input, WidgetInput):
            self.input.force_input = True
        self.names = names
        # How many of them, the first ones, are required.
        self.min = min
        self.cached_inputs = {name: self._renamed(name) for name in names}

    def _renamed(self, name: str) -> InputBase:
        renamed = copy.copy(self.input)
        renamed.id = name
        return renamed

    def get_all(self) -> list[InputBase]:
        """The inputs it may become."""
        return list(self.cached_inputs.values())

    def as_dict(self) -> dict[str, Any]:
        """The template as /object_info has it."""
        return {"input": create_input_dict_v1([self.input])}

    def validate(self) -> None:
        """Raises if its input cannot be."""
        self.input.validate()


@comfytype(io_type=AUTOGROW)
class Autogrow(ComfyTypeI):
    """As many inputs of one kind as the user links. ``execute`` gets a dict of those that are."""

    Type = dict[str, Any]
    # The most inputs one may become.
    _MaxNames = 100

    class TemplatePrefix(_AutogrowTemplate):
        """Inputs named ``prefix`` with 0, 1, ... ``max`` - 1; the first ``min`` are required."""

        def __init__(self, input: InputBase, prefix: str, min: int = 1, max: int = 10) -> None:
            if not 1 <= max <= Autogrow._MaxNames:
                raise AssertionError(f"an Autogrow needs a max of 1 to {Autogrow._MaxNames}, not {max}")
            super().__init__(input, [f"{prefix}{number}" for number in range(max)], min)
            self.prefix = prefix
            self.max = max

        def as_dict(self) -> dict[str, Any]:
            """The template as /object_info has it."""
            return {**super().as_dict(), "prefix": self.prefix, "min": self.min, "max": self.max}

    class TemplateNames(_AutogrowTemplate):
        """Inputs of these names; the first ``min`` are required."""

        def __init__(self, input: InputBase, names: list[str], min: int = 1) -> None:
            super().__init__(input, names[: Autogrow._MaxNames], min)

        def as_dict(self) -> dict[str, Any]:
            """The template as /object_info has it."""
            return {**super().as_dict(), "names": self.names, "min": self.min}

    class Input(DynamicInput):
        """The input; in prompts ``id.name``."""

        def __init__(
            self,
            id: str,
            template: Any,
            display_name: str | None = None,
            optional: bool = False,
            tooltip: str | None = None,
            lazy: bool | None = None,
            extra_dict: dict[str, Any] | None = None,
        ) -> None:
            super().__init__(id, display_name, optional, tooltip, lazy, extra_dict)
            self.template = template

        def as_dict(self) -> dict[str, Any]:
            """The options as /object_info has them."""
            return {**super().as_dict(), "template": self.template.as_dict()}

        def get_all(self) -> list[InputBase]:
            """This input and those it may become."""
            return [self, *self.template.get_all()]

        def validate(self) -> None:
            """Raises if its template cannot be."""
            self.template.validate()


@comfytype(io_type=DYNAMIC_COMBO)
class DynamicCombo(ComfyTypeI):
    """A choice each of whose options has inputs of its own. ``execute`` gets a dict of those, and the choice."""

    Type = dict[str, Any]

    class Option:
        """A choice, ``key``, and its inputs."""

        def __init__(self, key: str, inputs: list[InputBase]) -> None:
            self.key = key
            self.inputs = inputs

        def as_dict(self) -> dict[str, Any]:
            """The option as /object_info has it."""
            return {"key": self.key, "inputs": create_input_dict_v1(self.inputs)}

    class Input(DynamicInput):
        """The choice; in prompts ``id``, and its option's inputs ``id.name``."""

        def __init__(
            self,
            id: str,
            options: list[DynamicCombo.Option],
            display_name: str | None = None,
            optional: bool = False,
            tooltip: str | None = None,
            lazy: bool | None = None,
            extra_dict: dict[str, Any] | None = None,
        ) -> None:
            super().__init__(id, display_name, optional, tooltip, lazy, extra_dict)
            self.options = options

        def as_dict(self) -> dict[str, Any]:
            """The options as /object_info has them."""
            return {**super().as_dict(), "options": [option.as_dict() for option in self.options]}

        def get_all(self) -> list[InputBase]:
            """This input and those it may become."""
            return [self, *(item for option in self.options for item in option.inputs)]

        def validate(self) -> None:
            """Raises if an option's input cannot be."""
            for option in self.options:
                for item in option.inputs:
                    item.validate()


@comfytype(io_type=DYNAMIC_SLOT)
class DynamicSlot(ComfyTypeI):
    """A socket that brings further inputs when it is linked. ``execute`` gets a dict of them, and the value."""

    Type = dict[str, Any]

    class Input(DynamicInput):
        """The socket; in prompts its id, and the further inputs ``id.name``.

        Args:
            slot: what is linked; a widget of its own it does not get.
            inputs: the further inputs.
        """

        def __init__(
            self,
            slot: InputBase,
            inputs: list[InputBase],
            display_name: str | None = None,
            tooltip: str | None = None,
            lazy: bool | None = None,
            extra_dict: dict[str, Any] | None = None,
        ) -> None:
            if isinstance(slot, DynamicInput):
                raise AssertionError(f"input {slot.id!r} is dynamic itself and cannot be a DynamicSlot's")
            self.slot = slot = copy.copy(slot)
            slot.display_name = display_name if slot.display_name is None else slot.display_name
            slot.tooltip = tooltip if slot.tooltip is None else slot.tooltip
            slot.lazy = lazy if slot.lazy is None else slot.lazy
            super().__init__(slot.id, slot.display_name, True, slot.tooltip, slot.lazy, slot.extra_dict)
            self.inputs = inputs
            self.force_input: bool | None = None
            if isinstance(slot, WidgetInput):
                self.force_input = slot.force_input = True

        def as_dict(self) -> dict[str, Any]:
            """The options as /object_info has them."""
            own = {
                "slotType": str(self.slot.get_io_type()),
                "inputs": create_input_dict_v1(self.inputs),
                "forceInput": self.force_input,
            }
            return {**super().as_dict(), **prune_dict(own)}

        def get_all(self) -> list[InputBase]:
            """The socket and the further inputs."""
            return [self.slot, *self.inputs]

        def validate(self) -> None:
            """Raises if one of its inputs cannot be."""
            for item in self.get_all():
                item.validate()
