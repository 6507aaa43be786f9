"""What the embedded server does otherwise than ComfyUI, on purpose; each case is shown by a test of this suite.

``docs/reference/embedded-server.md`` has the table (written by ``tools/write_reference.py``). A test says with
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
        "requests with a foreign `Host`, the origin `null`, or marked cross-site",
        "answered unless the origin differs; 0.19 refuses what is marked cross-site",
        "403",
        "another web page must not drive the server",
    ),
    "active files": Difference(
        "scripts and SVG drawings from `/view`, files from `/userdata`",
        "until 0.28 under their own type: a browser runs them as pages of the server",
        "plain data to be saved; but drawings for an `<img>`, and `user.css`, are what they are",
        "as 0.30",
    ),
    "secrets": Difference(
        "auth tokens in `extra_data`",
        "until 0.8 in `/queue`; in the inputs that an error shows",
        "nowhere",
        "other clients read both",
    ),
    "dead executor": Difference(
        "some prompts (a link to no node inside a wrapped value, say)",
        "end the thread that runs prompts",
        "are an error",
        "the server goes on",
    ),
    "a package that ends the server": Difference(
        "a package that calls `sys.exit` while it loads, or registers a route twice",
        "ends the server",
        "fails with its reason; of two routes the first is used",
        "the others need a server",
    ),
    "unwritable message": Difference(
        "a package's message that JSON does not have, or a preview that is no picture",
        "ends the server",
        "is logged and not sent",
        "one package's mistake",
    ),
    "lazy client": Difference(
        "a websocket that is open and does not read",
        "holds up the messages to everybody",
        "is closed when 64 MiB or 20,000 messages wait for it",
        "one sleeping tab must not stop the others, nor fill the memory",
    ),
    "second connection": Difference(
        "an old websocket that closes after a new one of the same client id opened",
        "evicts the new one",
        "does not",
        "messages would be lost",
    ),
    "bad requests": Difference(
        "an upload of an unknown type, a mask without `original_ref`, a damaged safetensors file",
        "500",
        "400 or 404",
        "the request is at fault",
    ),
    "bad users": Difference(
        "a user without a name (`--multi-user`)",
        "until 0.8: 500",
        "400 with a reason",
        "as 0.8",
    ),
    "cycle": Difference(
        "a prompt whose nodes wait for each other",
        "until 0.20 refused for Python's recursion limit, no node named",
        "an error of each node, with the cycle",
        "as 0.20",
    ),
    "cycle status": Difference(
        "a prompt in which a node expands into a cycle",
        'has an error, and is a "success"',
        'is an "error"',
        "it has not run",
    ),
    "star": Difference(
        "a link to a plain `*` input",
        "0.3.64: only from a type of the same name",
        "any",
        "as 0.8",
    ),
    "combo": Difference(
        "a value that is not among the options of a `COMBO` (newer form)",
        "0.3.64 runs it",
        "refused",
        "as later versions, and as the older form",
    ),
    "multiselect": Difference(
        "several choices for an input that says `multiselect`",
        "until 0.21 refused",
        "taken",
        "as 0.21",
    ),
    "order": Difference(
        "the order of outputs, of refused nodes, and of the errors of a node",
        "any: that of a set",
        "that of the prompt and of the node's inputs",
        "answers can be compared",
    ),
    "queue order": Difference(
        "waiting prompts in `/queue`",
        "in the order of a heap",
        "in the order in which they will run",
        "clients show them",
    ),
    "free": Difference(
        "`/free` before a queued prompt",
        "may act after it",
        "acts before it",
        "it was asked for first",
    ),
    "expansion without a cache": Difference(
        "nodes that expand under `--cache-none`",
        "0.3.64: fail",
        "work",
        "as 0.8",
    ),
    "history without a cache": Difference(
        "the history under `--cache-none`",
        "0.3.64: without what outputs showed that others use",
        "complete",
        "as 0.8",
    ),
    "async ids": Difference(
        "ids of the nodes that async nodes expand into",
        "may begin with the id of another node that runs just then",
        "begin with the id of the node that expands",
        "the cache finds nodes by their ids",
    ),
    "model code": Difference(
        "a package's node that calls ComfyUI's model code",
        "runs it",
        "fails, and says what it called",
        "there are no models",
    ),
    "transparency": Difference(
        "RGB onto RGBA in ImageCompositeMasked",
        "until 0.21: fails",
        "works",
        "as 0.21",
    ),
    "interpolation": Difference(
        "LatentInterpolate of batches",
        "mixes the items",
        "item by item",
        "what the node says it does",
    ),
    "regex group": Difference(
        "a group of RegexExtract that took no part",
        "None in place of a text, or a failure",
        "an empty text",
        "nodes behind it take texts",
    ),
    "inner attributes": Difference(
        "Format Text with an inner attribute of a value, `{a.__class__}`",
        "shown",
        "an error",
        "from it a workflow could read what the server knows, its environment too",
    ),
    "prefix without a name": Difference(
        "a filename prefix that ends with a slash",
        "counts from 1 each time, over the file before",
        "counts on",
        "pictures would be lost",
    ),
    "v3 multi combo": Difference(
        "`multi_select` of a V3 combo, in `/object_info`",
        "until 0.21: `true`, with its options beside it",
        "an object",
        "the form that editors understand",
    ),
    "v3 returned dict": Difference(
        "a V3 node that returns a dict with `result`",
        "0.3.64: fails",
        "works, as with V1 nodes",
        "as 0.8",
    ),
    "v3 progress": Difference(
        "`ComfyAPI().execution.set_progress`",
        "0.3.64: is not there, although documented",
        "works",
        "as 0.8",
    ),
    "v3 on_load": Difference(
        "`on_load` of a V3 package's extension",
        "until 0.14 not called, although documented",
        "called before its nodes are asked for",
        "as 0.14",
    ),
    "v3 empty result": Difference(
        "a V3 node that returns nothing, linked to another",
        "None; 0.29 fails with an IndexError",
        "None",
        "as 0.3.64",
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
