"""Types the editor has widgets for: truth values, numbers, text, combos, colours, boxes, curves and ranges."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any, ClassVar, TypedDict

from .declaration import ComfyTypeI, ComfyTypeIO, comfytype
from .inputs import WidgetInput
from .options import ControlAfterGenerate, FolderType, NumberDisplay, RemoteOptions, UploadType, prune_dict
from .outputs import Output as OutputBase
from .type_names import LazyClass

# -- single values -----------------------------------------------------------------------------------------------


@comfytype(io_type="BOOLEAN")
class Boolean(ComfyTypeIO):
    """Yes or no."""

    Type = bool

    class Input(WidgetInput):
        """A switch; ``label_on`` and ``label_off`` are what it shows."""

        _options: ClassVar[dict[str, str]] = {"label_on": "label_on", "label_off": "label_off"}

        def __init__(
            self,
            id: str,
            display_name: str | None = None,
            optional: bool = False,
            tooltip: str | None = None,
            lazy: bool | None = None,
            default: bool | None = None,
            label_on: str | None = None,
            label_off: str | None = None,
            socketless: bool | None = None,
            force_input: bool | None = None,
            extra_dict: dict[str, Any] | None = None,
            raw_link: bool | None = None,
            advanced: bool | None = None,
        ) -> None:
            super().__init__(
                id,
                display_name,
                optional,
                tooltip,
                lazy,
                default,
                socketless,
                None,
                force_input,
                extra_dict,
                raw_link,
                advanced,
            )
            self.label_on = label_on
            self.label_off = label_off


@comfytype(io_type="INT")
class Int(ComfyTypeIO):
    """A whole number."""

    Type = int

    class Input(WidgetInput):
        """A number field; ``min`` and ``max`` are checked by the server too."""

        _options: ClassVar[dict[str, str]] = {
            "min": "min",
            "max": "max",
            "step": "step",
            "control_after_generate": "control_after_generate",
            "display_mode": "display",
        }

        def __init__(
            self,
            id: str,
            display_name: str | None = None,
            optional: bool = False,
            tooltip: str | None = None,
            lazy: bool | None = None,
            default: int | None = None,
            min: int | None = None,
            max: int | None = None,
            step: int | None = None,
            control_after_generate: bool | ControlAfterGenerate | None = None,
            display_mode: NumberDisplay | None = None,
            socketless: bool | None = None,
            force_input: bool | None = None,
            extra_dict: dict[str, Any] | None = None,
            raw_link: bool | None = None,
            advanced: bool | None = None,
        ) -> None:
            super().__init__(
                id,
                display_name,
                optional,
                tooltip,
                lazy,
                default,
                socketless,
                None,
                force_input,
                extra_dict,
                raw_link,
                advanced,
            )
            self.min = min
            self.max = max
            self.step = step
            self.control_after_generate = control_after_generate
            self.display_mode = display_mode


@comfytype(io_type="FLOAT")
class Float(ComfyTypeIO):
    """A number."""

    Type = float

    class Input(WidgetInput):
        """A number field; ``min`` and ``max`` are checked by the server too.

        ``round`` is the step the editor rounds to, ``gradient_stops`` the colours of a gradient slider.
        """

        _options: ClassVar[dict[str, str]] = {
            "min": "min",
            "max": "max",
            "step": "step",
            "round": "round",
            "display_mode": "display",
            "gradient_stops": "gradient_stops",
        }

        def __init__(
            self,
            id: str,
            display_name: str | None = None,
            optional: bool = False,
            tooltip: str | None = None,
            lazy: bool | None = None,
            default: float | None = None,
            min: float | None = None,
            max: float | None = None,
            step: float | None = None,
            round: float | None = None,
            display_mode: NumberDisplay | None = None,
            gradient_stops: list[dict[str, Any]] | None = None,
            socketless: bool | None = None,
            force_input: bool | None = None,
            extra_dict: dict[str, Any] | None = None,
            raw_link: bool | None = None,
            advanced: bool | None = None,
        ) -> None:
            super().__init__(
                id,
                display_name,
                optional,
                tooltip,
                lazy,
                default,
                socketless,
                None,
                force_input,
                extra_dict,
                raw_link,
                advanced,
            )
            self.min = min
            self.max = max
            self.step = step
            self.round = round
            self.display_mode = display_mode
            self.gradient_stops = gradient_stops


@comfytype(io_type="STRING")
class String(ComfyTypeIO):
    """Text."""

    Type = str

    class Input(WidgetInput):
        """A text field, of several lines if ``multiline``; ``dynamic_prompts``: the editor picks from {a|b}."""

        _options: ClassVar[dict[str, str]] = {
            "multiline": "multiline",
            "placeholder": "placeholder",
            "dynamic_prompts": "dynamicPrompts",
        }

        def __init__(
            self,
            id: str,
            display_name: str | None = None,
            optional: bool = False,
            tooltip: str | None = None,
            lazy: bool | None = None,
            multiline: bool = False,
            placeholder: str | None = None,
            default: str | None = None,
            dynamic_prompts: bool | None = None,
            socketless: bool | None = None,
            force_input: bool | None = None,
            extra_dict: dict[str, Any] | None = None,
            raw_link: bool | None = None,
            advanced: bool | None = None,
        ) -> None:
            super().__init__(
                id,
                display_name,
                optional,
                tooltip,
                lazy,
                default,
                socketless,
                None,
                force_input,
                extra_dict,
                raw_link,
                advanced,
            )
            self.multiline = multiline
            self.placeholder = placeholder
            self.dynamic_prompts = dynamic_prompts


# -- choices -----------------------------------------------------------------------------------------------------


@comfytype(io_type="COMBO")
class Combo(ComfyTypeIO):
    """One of several texts or numbers."""

    Type = str

    class Input(WidgetInput):
        """A dropdown.

        Args:
            options: what can be chosen; an Enum: the values of its members.
            upload, image_folder: an upload button, and the folder the options are files of.
            remote: the editor fetches the options.
        """

        Type = str
        _options: ClassVar[dict[str, str]] = {
            "multiselect": "multiselect",
            "options": "options",
            "control_after_generate": "control_after_generate",
            "image_folder": "image_folder",
        }

        def __init__(
            self,
            id: str,
            options: Sequence[str] | Sequence[int] | type[Enum] | None = None,
            display_name: str | None = None,
            optional: bool = False,
            tooltip: str | None = None,
            lazy: bool | None = None,
            default: Any = None,
            control_after_generate: bool | ControlAfterGenerate | None = None,
            upload: UploadType | None = None,
            image_folder: FolderType | None = None,
            remote: RemoteOptions | None = None,
            socketless: bool | None = None,
            extra_dict: dict[str, Any] | None = None,
            raw_link: bool | None = None,
            advanced: bool | None = None,
        ) -> None:
            default = default.value if isinstance(default, Enum) else default
            super().__init__(
                id,
                display_name,
                optional,
                tooltip,
                lazy,
                default,
                socketless,
                None,
                None,
                extra_dict,
                raw_link,
                advanced,
            )
            self.multiselect = False
            self.options: Any = options
            if isinstance(options, type) and issubclass(options, Enum):
                self.options = [member.value for member in options]
            self.control_after_generate = control_after_generate
            self.upload = upload
            self.image_folder = image_folder
            self.remote = remote

        def as_dict(self) -> dict[str, Any]:
            """The options as /object_info has them."""
            upload = {self.upload.value: True} if self.upload is not None else {}
            remote = {"remote": self.remote.as_dict()} if self.remote is not None else {}
            return {**super().as_dict(), **upload, **remote}

    class Output(OutputBase):
        """One of ``options``."""

        def __init__(
            self,
            id: str | None = None,
            display_name: str | None = None,
            options: list[str] | None = None,
            tooltip: str | None = None,
            is_output_list: bool = False,
        ) -> None:
            super().__init__(id, display_name, tooltip, is_output_list)
            self.options = options if options is not None else []

        @property
        def io_type(self) -> Any:
            """The options themselves: so it can be linked to an input of V1's with the same ones."""
            return self.options


@comfytype(io_type="COMBO")
class MultiCombo(ComfyTypeI):
    """Any number of several texts."""

    Type = list[str]

    class Input(Combo.Input):
        """A list to tick in; ``placeholder`` is shown while nothing is, ``chip`` shows what is as chips."""

        def __init__(
            self,
            id: str,
            options: list[str],
            display_name: str | None = None,
            optional: bool = False,
            tooltip: str | None = None,
            lazy: bool | None = None,
            default: list[str] | None = None,
            placeholder: str | None = None,
            chip: bool | None = None,
            control_after_generate: bool | ControlAfterGenerate | None = None,
            socketless: bool | None = None,
            extra_dict: dict[str, Any] | None = None,
            raw_link: bool | None = None,
            advanced: bool | None = None,
        ) -> None:
            super().__init__(
                id,
                options,
                display_name,
                optional,
                tooltip,
                lazy,
                default,
                control_after_generate,
                socketless=socketless,
                extra_dict=extra_dict,
                raw_link=raw_link,
                advanced=advanced,
            )
            self.multiselect = True
            self.placeholder = placeholder
            self.chip = chip

        def as_dict(self) -> dict[str, Any]:
            """The options as /object_info has them: an object under ``multi_select``, as editors since 1.30 want."""
            shown = prune_dict({"placeholder": self.placeholder, "chip": self.chip})
            return {**super().as_dict(), "multi_select": shown}


# -- pictures and shapes in the editor ---------------------------------------------------------------------------


@comfytype(io_type="WEBCAM")
class Webcam(ComfyTypeIO):
    """A picture from the user's camera, as the name of the file it was uploaded to."""

    Type = str

    class Input(WidgetInput):
        """A camera view."""

        Type = str

        def __init__(
            self,
            id: str,
            display_name: str | None = None,
            optional: bool = False,
            tooltip: str | None = None,
            lazy: bool | None = None,
            default: str | None = None,
            socketless: bool | None = None,
            extra_dict: dict[str, Any] | None = None,
            raw_link: bool | None = None,
            advanced: bool | None = None,
        ) -> None:
            super().__init__(
                id,
                display_name,
                optional,
                tooltip,
                lazy,
                default,
                socketless,
                None,
                None,
                extra_dict,
                raw_link,
                advanced,
            )


class _SocketlessInput(WidgetInput):
    """A widget without a socket, unless the node says otherwise."""

    def __init__(
        self,
        id: str,
        display_name: str | None = None,
        optional: bool = False,
        tooltip: str | None = None,
        socketless: bool | None = True,
        default: Any = None,
        advanced: bool | None = None,
    ) -> None:
        super().__init__(id, display_name, optional, tooltip, default=default, socketless=socketless, advanced=advanced)


@comfytype(io_type="IMAGECOMPARE")
class ImageCompare(ComfyTypeI):
    """Two pictures beside each other."""

    Type = dict

    class Input(_SocketlessInput):
        """The two pictures."""

        def __init__(
            self,
            id: str,
            display_name: str | None = None,
            optional: bool = False,
            tooltip: str | None = None,
            socketless: bool | None = True,
            advanced: bool | None = None,
        ) -> None:
            super().__init__(id, display_name, optional, tooltip, socketless, advanced=advanced)


@comfytype(io_type="COLOR")
class Color(ComfyTypeIO):
    """A colour, ``"#rrggbb"``."""

    Type = str

    class Input(_SocketlessInput):
        """A colour picker."""

        def __init__(
            self,
            id: str,
            display_name: str | None = None,
            optional: bool = False,
            tooltip: str | None = None,
            socketless: bool | None = True,
            advanced: bool | None = None,
            default: str = "#ffffff",
        ) -> None:
            super().__init__(id, display_name, optional, tooltip, socketless, default, advanced)


@comfytype(io_type="COLORS")
class Colors(ComfyTypeIO):
    """Colours, each ``"#rrggbb"``."""

    Type = list[str]

    class Input(_SocketlessInput):
        """A row of colour pickers, none at first."""

        def __init__(
            self,
            id: str,
            display_name: str | None = None,
            optional: bool = False,
            tooltip: str | None = None,
            socketless: bool | None = True,
            default: list[str] | None = None,
            advanced: bool | None = None,
        ) -> None:
            super().__init__(id, display_name, optional, tooltip, socketless, default or [], advanced)


@comfytype(io_type="BOUNDING_BOX")
class BoundingBox(ComfyTypeIO):
    """A box in a picture."""

    class BoundingBoxDict(TypedDict):
        """Its upper left corner and its size, in pixels."""

        x: int
        y: int
        width: int
        height: int

    Type = BoundingBoxDict

    class Input(_SocketlessInput):
        """Four numbers, or a picture to drag a box in (``component``)."""

        _options: ClassVar[dict[str, str]] = {"component": "component"}

        def __init__(
            self,
            id: str,
            display_name: str | None = None,
            optional: bool = False,
            tooltip: str | None = None,
            socketless: bool | None = True,
            default: dict[str, int] | None = None,
            component: str | None = None,
            force_input: bool | None = None,
        ) -> None:
            if default is None:
                default = {"x": 0, "y": 0, "width": 512, "height": 512}
            super().__init__(id, display_name, optional, tooltip, socketless, default)
            self.component = component or None
            self.force_input = force_input


@comfytype(io_type="BOUNDING_BOXES")
class BoundingBoxes(ComfyTypeIO):
    """Boxes in a picture."""

    class BoundingBoxWithMetadata(BoundingBox.BoundingBoxDict):
        """A box, and what is known of it."""

        metadata: dict[str, Any]

    Type = list[BoundingBoxWithMetadata]

    class Input(_SocketlessInput):
        """Boxes to drag, none at first."""

        def __init__(
            self,
            id: str,
            display_name: str | None = None,
            optional: bool = False,
            tooltip: str | None = None,
            socketless: bool | None = True,
            default: list[dict[str, Any]] | None = None,
            advanced: bool | None = None,
        ) -> None:
            super().__init__(id, display_name, optional, tooltip, socketless, default or [], advanced)


@comfytype(io_type="COMPOSITOR")
class Compositor(ComfyTypeIO):
    """How layers are arranged in the editor (ComfyUI 0.31)."""

    class LayerState(TypedDict, total=False):
        """What is kept of an arrangement: ``canvas`` and ``layers`` are always there."""

        version: int
        canvas: dict[str, Any]
        background: dict[str, Any]
        inputs: list[str]
        order: list[int]
        layers: list[dict[str, Any]]

    Type = LayerState

    class Input(_SocketlessInput):
        """The arrangement, empty at first."""

        def __init__(
            self,
            id: str,
            display_name: str | None = None,
            optional: bool = False,
            tooltip: str | None = None,
            socketless: bool = True,
            default: dict[str, Any] | None = None,
            advanced: bool | None = None,
        ) -> None:
            super().__init__(
                id, display_name, optional, tooltip, socketless, {} if default is None else default, advanced
            )


@comfytype(io_type="CURVE")
class Curve(ComfyTypeIO):
    """A function of 0..1 to 0..1, drawn by the user."""

    CurvePoint = tuple[float, float]
    Type = LazyClass(f"{__package__}.curves", "CurveInput")

    class Input(_SocketlessInput):
        """A curve through the points of ``default``."""

        def __init__(
            self,
            id: str,
            display_name: str | None = None,
            optional: bool = False,
            tooltip: str | None = None,
            socketless: bool | None = True,
            default: list[tuple[float, float]] | None = None,
            advanced: bool | None = None,
        ) -> None:
            points = [(0.0, 0.0), (1.0, 1.0)] if default is None else default
            super().__init__(id, display_name, optional, tooltip, socketless, points, advanced)

        def as_dict(self) -> dict[str, Any]:
            """The options as /object_info has them."""
            options = super().as_dict()
            if self.default is not None:
                points = [list(point) for point in self.default]
                options["default"] = {"points": points, "interpolation": "monotone_cubic"}
            return options


@comfytype(io_type="RANGE")
class Range(ComfyTypeIO):
    """A range of values, perhaps with a middle."""

    Type = LazyClass(f"{__package__}.ranges", "RangeInput")

    class Input(_SocketlessInput):
        """Two or three handles on a line from ``value_min`` to ``value_max``."""

        _options: ClassVar[dict[str, str]] = {
            "display": "display",
            "gradient_stops": "gradient_stops",
            "show_midpoint": "show_midpoint",
            "midpoint_scale": "midpoint_scale",
            "value_min": "value_min",
            "value_max": "value_max",
        }

        def __init__(
            self,
            id: str,
            display_name: str | None = None,
            optional: bool = False,
            tooltip: str | None = None,
            socketless: bool | None = True,
            default: dict[str, float] | None = None,
            display: str | None = None,
            gradient_stops: list[Any] | None = None,
            show_midpoint: bool | None = None,
            midpoint_scale: str | None = None,
            value_min: float | None = None,
            value_max: float | None = None,
            advanced: bool | None = None,
        ) -> None:
            default = {"min": 0.0, "max": 1.0} if default is None else default
            super().__init__(id, display_name, optional, tooltip, socketless, default, advanced)
            self.display = display
            self.gradient_stops = gradient_stops
            self.show_midpoint = show_midpoint
            self.midpoint_scale = midpoint_scale
            self.value_min = value_min
            self.value_max = value_max
