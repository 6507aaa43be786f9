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
    "model code": Difference(
        "A node of a package calls ComfyUI's model code, such as `comfy.sd.load_lora_for_models`",
        "it is run",
        "an error that names what was called and says that the embedded server runs no models",
        "There are no models here. Packages that only import such names load.",
    ),
    "a package that ends the server": Difference(
        "A node package calls `sys.exit` while it is loaded, or registers a route twice",
        "the server ends",
        "the package fails with its reason, the first of the two routes is used, and the server runs on",
        "A broken package is no reason for the others to be without a server.",
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
