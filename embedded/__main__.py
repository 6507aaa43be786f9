"""``python -m discomfort.embedded`` and ``python /path/to/the/package/embedded``: the server from the command line.

In the second form Python knows nothing of the package this folder is in, whose folder may have any name. It is
then loaded by its path, as ``discomfort``.
"""

from __future__ import annotations

import sys


def _load_parent_package() -> None:
    """Import the package this folder is in under the name ``discomfort``."""
    import importlib.util
    from pathlib import Path

    folder = Path(__file__).resolve().parent.parent
    spec = importlib.util.spec_from_file_location(
        "discomfort", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"{folder} is not the discomfort package")
    package = importlib.util.module_from_spec(spec)
    sys.modules["discomfort"] = package
    spec.loader.exec_module(package)


def _main() -> int:
    """Run the server; returns the exit status."""
    if not __package__:
        # Python has put this folder in front of the search path: its server.py, messages.py and so on would
        # be found under names they do not have.
        del sys.path[0]
        _load_parent_package()
        from discomfort.embedded.launch import main
    else:
        from .launch import main
    return main()


if __name__ == "__main__":
    sys.exit(_main())
