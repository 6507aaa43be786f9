"""``comfy_api.feature_flags``: what clients said they can do, for packages that ask."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def get_connection_feature(
    sockets_metadata: Mapping[str, Mapping[str, Any]], sid: str, feature_name: str, default: Any = False
) -> Any:
    """What a client said of a feature.

    Args:
        sockets_metadata: ``PromptServer.instance.sockets_metadata``.
        sid: the client's id.
        default: what it is if the client is not there or has not said.
    """
    return sockets_metadata.get(sid, {}).get("feature_flags", {}).get(feature_name, default)


def supports_feature(sockets_metadata: Mapping[str, Mapping[str, Any]], sid: str, feature_name: str) -> bool:
    """Whether a client said True."""
    return get_connection_feature(sockets_metadata, sid, feature_name) is True


def get_server_features() -> dict[str, Any]:
    """What the server says it can do; a dict of the caller's own."""
    from ..websocket import server_features

    return server_features()


def __getattr__(name: str) -> Any:
    """``SERVER_FEATURE_FLAGS``: the same."""
    if name == "SERVER_FEATURE_FLAGS":
        return get_server_features()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
