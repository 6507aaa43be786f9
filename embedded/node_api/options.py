"""Small enumerations and helpers of the schema's options."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, Literal


def prune_dict(d: Mapping[str, Any]) -> dict[str, Any]:
    """A dict without the items that are None: what a schema does not say is not in its JSON."""
    return {key: value for key, value in d.items() if value is not None}


class FolderType(str, Enum):
    """The server's folders of files."""

    input = "input"
    output = "output"
    temp = "temp"


class UploadType(str, Enum):
    """What the upload button of a combo accepts; the value is the name of the option."""

    image = "image_upload"
    audio = "audio_upload"
    video = "video_upload"
    model = "file_upload"


class NumberDisplay(str, Enum):
    """How the editor shows a number."""

    number = "number"
    slider = "slider"
    gradient_slider = "gradientslider"


class ControlAfterGenerate(str, Enum):
    """What the editor does with a value after each run."""

    fixed = "fixed"
    increment = "increment"
    decrement = "decrement"
    randomize = "randomize"


class RemoteOptions:
    """A combo whose options the editor fetches from the server.

    Args:
        route: where from.
        refresh_button: whether there is a button to fetch them anew.
        control_after_refresh: which option is then chosen.
        timeout: of one request, in milliseconds.
        max_retries: requests before giving up.
        refresh: after how many milliseconds they are fetched anew; None: never.
    """

    def __init__(
        self,
        route: str,
        refresh_button: bool,
        control_after_refresh: Literal["first", "last"] = "first",
        timeout: int | None = None,
        max_retries: int | None = None,
        refresh: int | None = None,
    ) -> None:
        self.route = route
        self.refresh_button = refresh_button
        self.control_after_refresh = control_after_refresh
        self.timeout = timeout
        self.max_retries = max_retries
        self.refresh = refresh

    def as_dict(self) -> dict[str, Any]:
        """The options as /object_info has them."""
        return prune_dict(vars(self))
