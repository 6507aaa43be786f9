"""What every request passes: protection against foreign web pages, cache headers, compression."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from .arguments import args, is_loopback

logger = logging.getLogger("discomfort.embedded.middleware")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
# Seconds a browser may keep images, and the news that there is none.
_IMAGE_MAX_AGE = 86400
_MISSING_IMAGE_MAX_AGE = 3600
_SUCCESSFUL = frozenset({200, 201, 202, 203, 204, 205, 206, 301, 308})
_TEMPORARY_REDIRECTS = frozenset({302, 303, 307})


def choose() -> list[Any]:
    """The middlewares the command line asks for, outermost first."""
    chosen: list[Any] = [cache_control]
    if args.enable_compress_response_body:
        chosen.append(compress_body)
    chosen.append(allow_origin if args.enable_cors_header else refuse_foreign_origins)
    return chosen


@web.middleware
async def cache_control(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Scripts and styles are always asked for again (they change with every update), images are kept."""
    response = await handler(request)
    name = request.path.rsplit("/", 1)[-1]
    if request.path.endswith((".js", ".css")) or (name.startswith("index") and name.endswith(".json")):
        response.headers.setdefault("Cache-Control", "no-cache")
    elif request.path.lower().endswith(_IMAGE_ENDINGS):
        if response.status == 404:
            response.headers.setdefault("Cache-Control", f"public, max-age={_MISSING_IMAGE_MAX_AGE}")
        elif response.status in _SUCCESSFUL:
            response.headers.setdefault("Cache-Control", f"public, max-age={_IMAGE_MAX_AGE}")
        elif response.status in _TEMPORARY_REDIRECTS:
            response.headers.setdefault("Cache-Control", "no-cache")
    return response


@web.middleware
async def compress_body(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answers of JSON and text gzipped, for clients that take that."""
    response = await handler(request)
    is_text = response.content_type in ("application/json", "text/plain")
    takes_gzip = "gzip" in request.headers.get("Accept-Encoding", "")
    if isinstance(response, web.Response) and response.body and is_text and takes_gzip:
        response.enable_compression()
    return response


@web.middleware
async def allow_origin(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let web pages of the given origin use the server (``--enable-cors-header``)."""
    response = web.Response() if request.method == "OPTIONS" else await handler(request)
    response.headers["Access-Control-Allow-Origin"] = args.enable_cors_header
    response.headers["Access-Control-Allow-Methods"] = "POST, GET, DELETE, PUT, OPTIONS, PATCH"
    response.headers["Access-Control-Allow-Headers"] = "Content-Type, Authorization"
    response.headers["Access-Control-Allow-Credentials"] = "true"
    return response


@web.middleware
async def refuse_foreign_origins(request: web.Request, handler: Handler) -> web.StreamResponse:
    """403 for requests that a web page of another site makes the user's browser send here."""
    # The editor's page itself may be opened by a link on any page; it does nothing by being opened.
    is_editor = request.method == "GET" and request.path == "/"
    reason = why_foreign(
        request.headers.get("Host"),
        request.headers.get("Origin"),
        None if is_editor else request.headers.get("Sec-Fetch-Site"),
        args.allow_remote,
    )
    if reason:
        logger.warning("Request to %s refused (403): %s", request.path, reason)
        return web.Response(status=403)
    return web.Response() if request.method == "OPTIONS" else await handler(request)


def why_foreign(host: str | None, origin: str | None, fetch_site: str | None, allow_any_host: bool) -> str | None:
    """Why a request looks as if another site's page had made it, None if it does not.

    Args:
        host, origin, fetch_site: its headers Host, Origin and Sec-Fetch-Site.
        allow_any_host: names other than localhost may lead here (``--allow-remote``). Otherwise such a name
            is how a page reaches into this machine by DNS rebinding.

    Host against Origin is ComfyUI 0.3.64's rule, Sec-Fetch-Site that of later versions, the host's name ours.
    """
    host_name, host_port = _split(f"//{host}" if host else "")
    local = is_loopback(host_name)
    if host and not local and not allow_any_host:
        return f"the Host {host!r} is not this machine's loopback address (--allow-remote accepts any name)"
    if local and fetch_site == "cross-site":
        return "it comes from a page of another site"
    if local and origin == "null":
        # A frame without an origin of its own, which any page can make; not every browser says of its websocket
        # where it comes from.
        return "it comes from a page without an origin"
    if local and origin:
        origin_name, origin_port = _split(origin)
        same_port = None in (host_port, origin_port) or host_port == origin_port
        if origin_name and (host_name != origin_name or not same_port):
            return f"the Origin {origin!r} does not match the Host {host!r}"
    return None


def _split(url: str) -> tuple[str | None, int | None]:
    """A URL's host name and port, None for what it does not say or says wrongly."""
    try:
        parts = urlsplit(url.lower())
        return parts.hostname, parts.port
    except ValueError:
        return None, None
