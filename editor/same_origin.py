"""Which requests are refused because a foreign web page may have made the user's browser send them. Pure.

The rules are ComfyUI's own (server.py, 0.3.64 and later), but for every Host and not for loopback ones alone: what the
routes of this package hand out are the user's pictures and workflows.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

_DEFAULT_PORTS = {"http": 80, "https": 443}


def why_foreign(headers: Mapping[str, str]) -> str | None:
    """Why a request looks like a foreign page's, as a sentence; None where it does not.

    Args:
        headers: of the request; names in any case, if the mapping takes them so.
    """
    fetched_from = headers.get("Sec-Fetch-Site")
    if fetched_from is not None and fetched_from not in ("same-origin", "none"):
        return f"The request comes from a page of another site (Sec-Fetch-Site is {fetched_from!r})."
    origin, host = headers.get("Origin"), headers.get("Host")
    if origin is None:
        # No browser: a script, or a browser's GET of the page itself, whose answer no other page can read.
        return None
    if _place_of_origin(origin) is None or _place_of_origin(origin) != _place_of_host(host, origin):
        return f"The request comes from a page of {origin!r}, which is not this server ({host!r})."
    return None


def _place_of_origin(origin: str) -> tuple[str, int] | None:
    """(name, port) of an Origin; None for "null" and what is none."""
    try:
        parts = urlsplit(origin.strip().lower())
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return None
    return (parts.hostname, port) if parts.hostname and port else None


def _place_of_host(host: str | None, origin: str) -> tuple[str, int] | None:
    """(name, port) of a Host, which names no scheme: that of the Origin tells the port where the Host has none."""
    scheme = origin.strip().lower().partition("://")[0]
    return _place_of_origin(f"{scheme}://{host}") if host else None
