"""What a node is told beside its inputs: ``cls.hidden.unique_id`` and the like."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, TypedDict


class Hidden(str, Enum):
    """What a schema can ask for."""

    # The node's id.
    unique_id = "UNIQUE_ID"
    # The client's whole prompt.
    prompt = "PROMPT"
    # What goes into saved files beside the prompt; the editor sends its workflow in it.
    extra_pnginfo = "EXTRA_PNGINFO"
    # The prompt with the nodes added while it runs.
    dynprompt = "DYNPROMPT"
    # Credentials for nodes that call services.
    auth_token_comfy_org = "AUTH_TOKEN_COMFY_ORG"  # noqa: S105 - a name
    api_key_comfy_org = "API_KEY_COMFY_ORG"
    # Which client the prompt comes from.
    comfy_usage_source = "COMFY_USAGE_SOURCE"


class V3Data(TypedDict, total=False):
    """What a call of a V3 node needs beside its input values."""

    # Hidden -> value, of those the schema asks for.
    hidden_inputs: Mapping[Any, Any]
    # Input of the prompt -> where it goes, dots leading into nested dicts.
    dynamic_paths: dict[str, str]
    # Input -> what it is where the prompt has none; see dynamic_inputs.EMPTY_DICT.
    dynamic_paths_default_value: dict[str, str]
    # Nested values become (value, input of the prompt): check_lazy_status has to name the latter.
    create_dynamic_tuple: bool


class HiddenHolder:
    """The hidden values as attributes; what the schema did not ask for is None."""

    def __init__(
        self,
        unique_id: str | None,
        prompt: Any,
        extra_pnginfo: Any,
        dynprompt: Any,
        auth_token_comfy_org: str | None,
        api_key_comfy_org: str | None,
        comfy_usage_source: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.unique_id = unique_id
        self.prompt = prompt
        self.extra_pnginfo = extra_pnginfo
        self.dynprompt = dynprompt
        self.auth_token_comfy_org = auth_token_comfy_org
        self.api_key_comfy_org = api_key_comfy_org
        self.comfy_usage_source = comfy_usage_source

    def __getattr__(self, key: str) -> None:
        """Names ComfyUI does not have (yet) are None."""
        return None

    @classmethod
    def from_dict(cls, d: Mapping[Any, Any] | None) -> HiddenHolder:
        """From the values by :class:`Hidden`."""
        return cls(**{kind.name: (d or {}).get(kind) for kind in Hidden})

    @classmethod
    def from_v3_data(cls, v3_data: V3Data | None) -> HiddenHolder:
        """From the data of a call."""
        return cls.from_dict(v3_data.get("hidden_inputs") if v3_data else None)
