"""Runs a script as `python SCRIPT ARGS...` would, but Ctrl-C ends it with status 130, no traceback.

`./dev demo` starts the demo through this file, so that the demo itself can stay short.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path


def main() -> None:
    """Runs the script that the first argument names, with the remaining arguments as its own."""
    del sys.argv[0]
    script = sys.argv[0]
    sys.path[0] = str(Path(script).resolve().parent)
    try:
        runpy.run_path(script, run_name="__main__")
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
