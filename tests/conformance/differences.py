"""What the embedded server does otherwise than ComfyUI, on purpose; each case is shown by a test of this suite.

``docs/embedded-server.md`` has the table (written by ``tools/write_reference.py``). A test says with
:func:`expected` what each of the two does, so an entry here cannot outlive its reason: when ComfyUI changes, or we
do, that test fails.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from conformance.driver import Server


class Difference(NamedTuple):
    """One row of the table."""

    # what it is about
    what: str
    # in a few words each, for the reader of the documentation
    comfyui: str
    here: str
    why: str


# Name -> difference, in the order of the table.
DIFFERENCES: dict[str, Difference] = {
    "foreign pages": Difference(
        "requests with a foreign `Host` or marked cross-site",
        "answered, unless the origin differs (0.29 refuses what is marked cross-site, too)",
        "403",
        "another web page must not drive the server",
    ),
    "second connection": Difference(
        "an old websocket that closes after a new one of the same client id opened",
        "evicts the new one",
        "does not",
        "messages would be lost",
    ),
    "lazy client": Difference(
        "a websocket that is open and does not read",
        "holds up all messages to everybody",
        "is disconnected when 64 MiB or 20,000 messages wait for it",
        "one sleeping browser tab must not stop the others, nor fill the memory",
    ),
    "unwritable message": Difference(
        "a message of a package that cannot be written as JSON, or a preview as an image",
        "ends the server",
        "is logged and not sent",
        "one package's mistake",
    ),
    "dead executor": Difference(
        "some prompts (a link to no node inside a wrapped value, say)",
        "end the thread that runs prompts for good",
        "are an error",
        "the server goes on",
    ),
    "free": Difference(
        "`/free` before a queued prompt", "may act after it", "acts before it", "it was asked for first"
    ),
    "order": Difference(
        "the order of outputs and of refused nodes", "that of a set", "that of the prompt", "answers can be compared"
    ),
    "queue order": Difference(
        "waiting prompts in GET /queue",
        "those of a heap: only the first is in its place",
        "in the order in which they will run",
        "clients show them",
    ),
    "transparency": Difference(
        "RGB onto RGBA in ImageCompositeMasked", "fails (until 0.29)", "works", "as ComfyUI since 0.29"
    ),
    "interpolation": Difference(
        "LatentInterpolate of batches", "mixes the items", "item by item", "what the node says it does"
    ),
    "regex group": Difference(
        "a group that took no part in RegexExtract",
        "None in place of a text, or a failure",
        "an empty text",
        "nodes behind it take texts",
    ),
    "bad requests": Difference(
        "a request that makes the handler raise: an upload of an unknown type, a mask without original_ref, a "
        "damaged safetensors file",
        "500",
        "400 or 404",
        "the request is at fault, not the server",
    ),
    "bad users": Difference(
        "a user without a name (--multi-user)", "500 (until 0.8)", "400 with a reason", "as ComfyUI since 0.8"
    ),
    "secrets": Difference("auth tokens in extra_data", "in /queue (until 0.8)", "nowhere", "as ComfyUI since 0.8"),
    "active files": Difference(
        "scripts and SVG drawings in GET /view, any file in GET /userdata",
        "under their own type, so a browser runs them as pages of the server (until 0.29)",
        "plain data to be saved",
        "as ComfyUI since 0.29",
    ),
}


def expected(server: Server, name: str, *, comfyui: Any, embedded: Any) -> Any:
    """What a server is expected to do in a case in which the two differ.

    Args:
        name: of the entry in :data:`DIFFERENCES`.
        comfyui, embedded: what each does.

    Raises:
        KeyError: no such entry: it would not be in the documentation.
    """
    DIFFERENCES[name]
    return embedded if server.is_embedded else comfyui
