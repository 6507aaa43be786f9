"""``python -m discomfort`` and ``python /path/to/the/package``: the command line.

In the second form Python knows nothing of the package this file is in, whose folder may have any name (that of a
custom-node pack is chosen by whoever installs it). It is then loaded by its path, as ``discomfort``.
"""

from __future__ import annotations

import sys


def _load_package() -> None:
    """Import the package this file is in under the name ``discomfort``."""
    import importlib.util
    from pathlib import Path

    folder = Path(__file__).resolve().parent
    spec = importlib.util.spec_from_file_location(
        "discomfort", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"{folder} is not the discomfort package")
    package = importlib.util.module_from_spec(spec)
    sys.modules["discomfort"] = package
    spec.loader.exec_module(package)


def _main() -> int:
    """Run the command line; returns the exit status."""
    if not __package__:
        # Python has put this folder in front of the search path: discomfort.py and nodes.py would be found under
        # names that they do not have.
        del sys.path[0]
        _load_package()
        from discomfort.cli import main
    else:
        from .cli import main
    return main()


if __name__ == "__main__":
    sys.exit(_main())
