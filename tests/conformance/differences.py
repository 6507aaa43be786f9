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
    "cycle": Difference(
        "a prompt whose nodes wait for each other",
        "refused because of Python's recursion limit, without a node to blame (0.29.0: as here)",
        "an error of each, with the nodes of the cycle",
        "the message says what is wrong",
    ),
    "cycle status": Difference(
        "a prompt that ends because a node has expanded into a cycle",
        'is in the history with an error and as a "success"',
        'is an "error"',
        "it has not run",
    ),
    "combo": Difference(
        "a value that is not among the options of a ``COMBO``",
        "0.3.64 runs it, later versions refuse it",
        "refused",
        "as for choices in the old form",
    ),
    "multiselect": Difference(
        "several choices for an input that says ``multiselect``",
        "0.3.64 refuses them, 0.29.0 takes them",
        "taken",
        "nodes of later versions need it",
    ),
    "expansion without a cache": Difference(
        "nodes that expand under ``--cache-none``",
        "0.3.64: the prompt fails; 0.8.0: works",
        "work",
        "a mistake of that version",
    ),
    "star": Difference(
        "an input of type ``*``, linked",
        "0.3.64 takes only a type of the same name, 0.8.0 any",
        "any",
        "nodes of later versions need it",
    ),
    "history without a cache": Difference(
        "the history under ``--cache-none``",
        "0.3.64: without what output nodes have shown that others use",
        "complete",
        "a mistake of that version",
    ),
    "secrets in the queue": Difference(
        "tokens in ``extra_data``",
        "0.3.64: in ``GET /queue``",
        "nowhere",
        "they are meant for nodes only",
    ),
    "order": Difference(
        "order of outputs, and of the errors of a node",
        "that of a set: any",
        "that of the prompt and of the node's inputs",
        "answers can be compared",
    ),
    "async ids": Difference(
        "ids of the nodes that async nodes expand into",
        "may start with the id of any node that runs at the same time",
        "start with the id of the expanding node",
        "ids that depend on the order of events are found in the cache by chance",
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
