"""The Python session of a page of docs/: executes one code block after the other, as a notebook does.

tools/run_page.py starts it, with the interpreter that the page is to be tried with, so only the standard library is
imported here. Blocks come as JSON lines on standard input ({"source", "name", "line"}), each is answered by a JSON line
on the file descriptor that is named as argument ({"output", "error"}). Names stay from block to block, ``await`` may
stand at the top level, and a last expression that is not None is shown.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import io
import json
import os
import shutil
import sys
import traceback
import types
from pathlib import Path
from typing import Any

import __main__


class Page:
    """What hidden set-up code of a page may use, as ``page``: it works in the page's folder."""

    def __init__(self, root: Path):
        self._root = root

    def copy(self, *names: str) -> None:
        """Copy workflows of examples/workflows or tests/doc_workflows here."""
        for name in names:
            folders = (self._root / "examples" / "workflows", self._root / "tests" / "doc_workflows")
            source = next((folder / name for folder in folders if (folder / name).exists()), None)
            if source is None:
                raise FileNotFoundError(f"{name} is neither in examples/workflows nor in tests/doc_workflows")
            shutil.copy(source, Path.cwd() / name)

    def pictures(self, folder: str, count: int) -> None:
        """Make a folder of small pictures: 00.png, 01.png, ..."""
        from PIL import Image

        Path(folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            shade = (40 + 50 * number) % 256
            Image.linear_gradient("L").resize((64, 64)).point(lambda v, s=shade: (v + s) % 256).convert("RGB").save(
                Path(folder) / f"{number:02}.png"
            )


async def execute(source: str, name: str, line: int, names: dict[str, Any]) -> None:
    """Run a block; its last expression is shown."""
    tree = ast.parse("\n" * line + source, name)
    last = tree.body[-1] if tree.body else None
    shown = last if isinstance(last, ast.Expr) else None
    if shown is not None:
        tree.body.pop()
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    # The code is the documentation's own; this is what a notebook does with a cell.
    await _evaluate(compile(tree, name, "exec", flags), names)
    if shown is not None:
        value = await _evaluate(compile(ast.Expression(shown.value), name, "eval", flags), names)
        if value is not None:
            print(repr(value))


async def _evaluate(code: Any, names: dict[str, Any]) -> Any:
    value = types.FunctionType(code, names)()
    return await value if inspect.iscoroutine(value) and code.co_flags & inspect.CO_COROUTINE else value


async def serve(answers: io.TextIOBase) -> None:
    """Execute what comes on standard input until it ends."""
    names = vars(__main__)
    if "DISCOMFORT_CLONE" in os.environ:
        names["page"] = Page(Path(os.environ["DISCOMFORT_CLONE"]))
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        block = json.loads(line)
        output, error = io.StringIO(), None
        with contextlib.redirect_stdout(output):
            try:
                await execute(block["source"], block["name"], block["line"], names)
            except (Exception, SystemExit, KeyboardInterrupt, asyncio.CancelledError):
                error = traceback.format_exc()
        answers.write(json.dumps({"output": output.getvalue(), "error": error}) + "\n")
        answers.flush()


if __name__ == "__main__":
    sys.path[0] = ""  # as in an interactive session: what the page writes into its folder can be imported
    with open(int(sys.argv[1]), "w", encoding="utf-8") as pipe:
        asyncio.run(serve(pipe))
