"""Follow a page of docs/ word for word, in a fresh folder: every code block, one after the other.

./dev run python tools/run_page.py docs/tutorial/first-port.md
./dev run python tools/run_page.py --python /some/venv/bin/python docs/tutorial/*.md   # with what is installed there

A page is one session. What becomes of a block is decided by its language:

- ``python``: with ``# name.py`` as its first line it is written to that file, in the shell's folder; else it runs in
  the page's Python session (page_session.py: ``await`` at the top level, names stay).
- ``sh``: run by ``bash -e``; the folder and exported variables stay. ``python`` and ``discomfort`` are those of the
  interpreter that is tried.
- ``text`` right behind one of these: what that printed to standard output. ``...`` stands for anything, and whitespace
  does not count (doctest's ELLIPSIS and NORMALIZE_WHITESPACE).
- ``json``: has to be JSON.
- ``<!-- file: name -->`` on the line before a block of any language: it is written to that file.
- ``<!-- not run: reason -->`` there: it is left alone.
- ``<!-- hidden python``, code, ``-->``: runs in the session and is not shown (set-up; ``page`` is page_session.Page).

Blocks of other languages have to be one of the last kinds. Exit status 0 where all is as the page says, else 1.
"""

from __future__ import annotations

import argparse
import contextlib
import doctest
import json
import os
import re
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import psutil
from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parent.parent

#: seconds that a block may take
BLOCK_TIMEOUT = 120.0


class Block(NamedTuple):
    """A code block of a page."""

    #: "python", "sh", "text", "json", ..., or "hidden"
    language: str
    source: str
    #: of its first line of code, from 1
    line: int
    #: the file that it is written to, "" for none
    file: str
    #: why it is not run, "" where it is
    not_run: str


class PageError(AssertionError):
    """A block that did not do what the page says."""


_COMMENT = re.compile(r"\A<!-- (file|not run): (.+?) -->\s*\Z")
_HIDDEN = re.compile(r"\A<!-- hidden python\n(.*?)-->\s*\Z", re.DOTALL)
_FILE_LINE = re.compile(r"\A# ([\w./-]+\.py)\n")


def blocks_of(page: Path) -> list[Block]:
    """The code blocks of a Markdown file, hidden ones included; directives of the documentation's builder are not."""
    found: list[Block] = []
    notes: dict[str, str] = {}
    for token in MarkdownIt("commonmark").parse(page.read_text(encoding="utf-8")):
        if token.type == "html_block":
            hidden = _HIDDEN.match(token.content.strip() + "\n")
            if hidden:
                found.append(Block("hidden", hidden[1], (token.map or [0])[0] + 2, "", ""))
            for part in token.content.strip().splitlines():
                note = _COMMENT.match(part)
                if note:
                    notes[note[1]] = note[2]
            continue
        if token.type in ("fence", "code_block"):
            language = (token.info.split() or [""])[0]
            if not language.startswith("{"):
                line = (token.map or [0])[0] + 2
                named = _FILE_LINE.match(token.content) if language == "python" else None
                file = notes.get("file", named[1] if named else "")
                found.append(Block(language, token.content, line, file, notes.get("not run", "")))
        notes = {}
    return found


class PageRun:
    """The session of one page. ``with PageRun(page) as run: run.all_blocks()``."""

    def __init__(self, page: Path, folder: Path, python: Path, environment: Mapping[str, str]):
        """Args:

        page: the Markdown file.
        folder: where it is followed; empty.
        python: the interpreter that has the package.
        environment: of everything that is started.
        """
        self.page, self._folder, self._python = page, folder, python
        # What is beside the interpreter comes first. Not resolved: the interpreter of a venv is a link.
        path = os.pathsep.join([str(python.parent), environment.get("PATH", os.defpath)])
        self._environment = {**environment, "PATH": path, "DISCOMFORT_CLONE": str(ROOT)}
        self._session: subprocess.Popen[str] | None = None
        self._answers: IO[str] | None = None
        self._output = ""
        # process group of each shell block -> its line
        self._groups: dict[int, int] = {}
        self._state = Path(tempfile.mkdtemp(prefix="page-state-"))

    def __enter__(self) -> PageRun:
        return self

    def __exit__(self, *_: object) -> None:
        for group in self._left_running():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        shutil.rmtree(self._state, ignore_errors=True)
        if self._session is None:
            return
        assert self._session.stdin is not None
        with contextlib.suppress(OSError):
            self._session.stdin.close()
        try:
            self._session.wait(30)
        except subprocess.TimeoutExpired:
            _kill(self._session)
        if self._answers is not None:
            self._answers.close()

    def all_blocks(self) -> Iterator[tuple[Block, float]]:
        """Run block after block; yields each with the seconds that it took.

        Raises:
            PageError: it did not do what the page says, or left something running; the message has page and line.
        """
        for block in blocks_of(self.page):
            started = time.monotonic()
            try:
                self._run(block)
            except PageError as error:
                raise PageError(f"{self.page}:{block.line}: {error}") from None
            yield block, time.monotonic() - started
        left = self._left_running()
        if left:
            raise PageError(f"{self.page}:{self._groups[left[0]]}: this block leaves processes running: {left}")

    def _run(self, block: Block) -> None:
        if block.not_run:
            return
        if block.language == "json":
            try:
                json.loads(block.source)
            except ValueError as error:
                raise PageError(f"this is not JSON: {error}") from None
        if block.file:
            target = self._here() / block.file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(block.source, encoding="utf-8")
        elif block.language in ("python", "hidden"):
            self._output = self._run_python(block)
        elif block.language == "sh":
            self._output = self._run_shell(block)
        elif block.language == "text":
            self._compare(block)
        elif block.language != "json":
            raise PageError(f"a block of the language {block.language!r} cannot be run: name its file, or say why not")

    def _compare(self, block: Block) -> None:
        flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        if not doctest.OutputChecker().check_output(block.source, self._output, flags):
            raise PageError(f"the page says\n{block.source}\nand the block before printed\n{self._output}")

    def _here(self) -> Path:
        """The folder that the shell is in."""
        noted = self._state / "folder"
        return Path(noted.read_text(encoding="utf-8").rstrip("\n")) if noted.exists() else self._folder

    def _run_shell(self, block: Block) -> str:
        folder, exports = self._state / "folder", self._state / "exports"
        begin = f'[ ! -e "{exports}" ] || . "{exports}"\n[ ! -e "{folder}" ] || cd -- "$(cat "{folder}")"\n'
        end = f'\npwd > "{folder}"\nexport -p > "{exports}"\n'
        # Into files, not pipes: what a block leaves running in the background would hold those open.
        out, err = self._state / "out", self._state / "err"
        with out.open("w") as out_file, err.open("w") as err_file:
            process = subprocess.Popen(
                ["bash", "-e", "-c", begin + block.source + end],
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=out_file,
                stderr=err_file,
                start_new_session=True,
            )
            self._groups[process.pid] = block.line
            try:
                process.wait(BLOCK_TIMEOUT)
            except subprocess.TimeoutExpired:
                _kill(process)
                raise PageError(f"it did not end within {BLOCK_TIMEOUT:.0f} s:\n{block.source}") from None
        printed = out.read_text(encoding="utf-8", errors="replace")
        if process.returncode != 0:
            told = err.read_text(encoding="utf-8", errors="replace")
            raise PageError(f"exit status {process.returncode} of\n{block.source}\n{printed}\n{told}")
        return printed

    def _left_running(self) -> list[int]:
        """The process groups of shell blocks that still have processes."""
        living = set()
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                if process.status() != psutil.STATUS_ZOMBIE:
                    living.add(os.getpgid(process.pid))
        return [group for group in self._groups if group in living]

    def _run_python(self, block: Block) -> str:
        if self._session is None:
            self._start_session()
        assert self._session is not None
        assert self._session.stdin is not None
        request = {"source": block.source, "name": str(self.page), "line": block.line - 1}
        self._session.stdin.write(json.dumps(request) + "\n")
        self._session.stdin.flush()
        answer = json.loads(self._next_answer(block))
        if answer["error"]:
            raise PageError(f"{answer['error']}\n{answer['output']}")
        return str(answer["output"])

    def _start_session(self) -> None:
        reader, writer = os.pipe()
        words = [str(self._python), str(ROOT / "tools" / "page_session.py"), str(writer)]
        self._session = subprocess.Popen(
            words,
            cwd=self._here(),
            env=self._environment,
            stdin=subprocess.PIPE,
            pass_fds=[writer],
            text=True,
            start_new_session=True,
        )
        os.close(writer)
        self._answers = os.fdopen(reader, encoding="utf-8")

    def _next_answer(self, block: Block) -> str:
        assert self._answers is not None
        assert self._session is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._answers, selectors.EVENT_READ)
            if not selector.select(BLOCK_TIMEOUT):
                _kill(self._session)
                raise PageError(f"it did not end within {BLOCK_TIMEOUT:.0f} s:\n{block.source}")
        answer = self._answers.readline()
        if not answer:
            raise PageError(f"the session ended with status {self._session.wait(10)} in\n{block.source}")
        return answer


def _kill(process: subprocess.Popen[Any]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description="Follow pages of docs/ word for word, each in a fresh folder.")
    parser.add_argument("pages", nargs="+", type=Path, metavar="PAGE")
    parser.add_argument(
        "--python", type=Path, default=Path(sys.executable), help="the interpreter that has the package"
    )
    options = parser.parse_args()
    failures = 0
    for page in options.pages:
        with tempfile.TemporaryDirectory(prefix="page-") as folder:
            try:
                with PageRun(page.resolve(), Path(folder), options.python.absolute(), os.environ) as run:
                    for block, seconds in run.all_blocks():
                        what = f"not run: {block.not_run}" if block.not_run else f"{seconds:.1f} s"
                        print(f"{page}:{block.line}  {block.language:<7} {block.file or what}", flush=True)
            except PageError as error:
                print(f"FAILED {error}", file=sys.stderr)
                failures += 1
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
