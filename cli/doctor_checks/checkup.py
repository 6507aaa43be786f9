"""What a check is, what it may find, and how all of them are done: in order, each with a deadline, none ending another.

A check is a function that looks at one thing and returns a :class:`Result`. It may import whatever it needs, but only
inside: the doctor itself runs with the standard library and click alone, because what is missing may be the trouble.
"""

from __future__ import annotations

import enum
import shlex
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from ...comfy_serverless import ConnectorConfig, ServerChoice
    from .programs import Part

#: the folder of the package
PACKAGE = Path(__file__).resolve().parent.parent.parent


class State(str, enum.Enum):
    """How a thing was found."""

    OK = "ok"
    #: it works, but not as well as it could, or something else will not
    WARNING = "warning"
    BROKEN = "broken"
    #: nobody looked; the finding says why
    SKIPPED = "skipped"


class Command(str):
    """A line of an advice that can be copied into a shell; all other lines are sentences."""


def command(*words: str | Path) -> Command:
    """A command of these words, quoted as the shell of this system wants it."""
    texts = [str(word) for word in words]
    return Command(subprocess.list2cmdline(texts) if sys.platform == "win32" else shlex.join(texts))


def setting(name: str, value: str) -> Command:
    """The command that sets an environment variable in the shell of this system."""
    return Command(f"set {name}={value}" if sys.platform == "win32" else f"export {name}={value}")


def unsetting(name: str) -> Command:
    """The command that takes an environment variable away."""
    return Command(f"set {name}=" if sys.platform == "win32" else f"unset {name}")


class Result(NamedTuple):
    """What a check returns."""

    state: State
    #: what was found: versions, paths, numbers; may have several lines
    found: str
    #: what to do, where it is not ok: sentences, and commands
    advice: tuple[str, ...] = ()


def ok(found: str) -> Result:
    return Result(State.OK, found)


def warning(found: str, *advice: str) -> Result:
    return Result(State.WARNING, found, advice)


def broken(found: str, *advice: str) -> Result:
    return Result(State.BROKEN, found, advice)


def worst(results: Sequence[Result]) -> Result:
    """Several results as one: all that was found, the worst state, the advice of those that are not ok."""
    order = [State.OK, State.SKIPPED, State.WARNING, State.BROKEN]
    state = max((result.state for result in results), key=order.index)
    advice = dict.fromkeys(line for result in results for line in result.advice)
    return Result(state, "; ".join(result.found for result in results), tuple(advice))


class SkipCheck(Exception):
    """Raised by a check that has nothing to look at on this machine; the text says why."""


class Finding(NamedTuple):
    """A check that was done, or skipped."""

    check: Check
    result: Result
    #: names of the broken checks because of which this one was skipped; what rests on this one is skipped, too
    causes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, str]:
        result = self.result
        return {
            "id": self.check.key,
            "name": self.check.name,
            "state": result.state.value,
            "found": result.found,
            "advice": "\n".join(result.advice),
        }


class Machine:
    """What the checks learn about this machine and tell each other."""

    def __init__(self, config_path: Path | None, program: str) -> None:
        self.config_path = config_path
        #: how this program was called, for advice that can be copied
        self.program = program
        #: versions for bug reports, None for what is not installed
        self.versions: dict[str, str | None] = {}
        # Set by the check of the configuration.
        self._config: ConnectorConfig | None = None
        #: the server that would be started; None where API_URL names one that runs
        self.choice: ServerChoice | None = None
        #: how the server's Python is called, empty where that is not known
        self.server_python: list[str] = []
        #: versions of distributions in the server's Python, None for what is not there
        self.server_versions: dict[str, str | None] = {}
        #: the browser that started, "" for none
        self.browser = ""
        #: the process that does the real start
        self.start: Part | None = None

    def own_command(self, words: str) -> Command:
        """A command of this program: ``python -m discomfort context sweep``."""
        return Command(f"{self.program} {words}")

    @property
    def config(self) -> ConnectorConfig:
        assert self._config is not None, "a check that needs the configuration has to say so"
        return self._config

    @config.setter
    def config(self, config: ConnectorConfig) -> None:
        self._config = config

    def need_choice(self) -> ServerChoice:
        """The server that would be started. SkipCheck where none would be."""
        if self.choice is None:
            raise SkipCheck("API_URL names a server that runs already; its Python cannot be looked at from here")
        return self.choice

    def need_server_python(self) -> list[str]:
        """How the server's Python is called. SkipCheck where that is not known."""
        self.need_choice()
        if not self.server_python:
            raise SkipCheck("API_COMMAND_LINE starts a program whose Python cannot be asked")
        return self.server_python


class Check(NamedTuple):
    """One thing to look at."""

    #: its name for ``--only``
    key: str
    #: its name for people
    name: str
    look: Callable[[Machine], Result]
    #: keys of the checks without which this one means nothing
    needs: tuple[str, ...] = ()
    #: seconds it may take; what takes longer counts as broken
    deadline: float = 30.0
    #: whether it belongs to the real start, which --quick leaves out
    is_slow: bool = False


def select(checks: Sequence[Check], keys: Collection[str], is_quick: bool) -> list[Check]:
    """The checks with these keys and those they rest on, in order; all of them where no key is given."""
    by_key = {check.key: check for check in checks}
    wanted, found = list(keys or by_key), set[str]()
    while wanted:
        key = wanted.pop()
        if key not in found:
            found.add(key)
            wanted += by_key[key].needs
    return [check for check in checks if check.key in found and not (is_quick and check.is_slow)]


def examine(machine: Machine, checks: Sequence[Check], tell: Callable[[Check], None]) -> Iterator[Finding]:
    """Do the checks, one after the other.

    Args:
        tell: called with each check before it is done.
    """
    done: dict[str, Finding] = {}
    for check in checks:
        tell(check)
        needed = [done[key] for key in check.needs if key in done]
        causes = tuple(dict.fromkeys(name for finding in needed for name in _causes(finding)))
        finding = _blocked(check, causes) if causes else _with_deadline(check, machine)
        done[check.key] = finding
        yield finding


def _causes(finding: Finding) -> tuple[str, ...]:
    """The broken checks that keep others from being done, as far as this finding knows."""
    return (finding.check.name,) if finding.result.state is State.BROKEN else finding.causes


def _blocked(check: Check, causes: tuple[str, ...]) -> Finding:
    verb = "is" if len(causes) == 1 else "are"
    return Finding(check, Result(State.SKIPPED, f"not looked at, because {', '.join(causes)} {verb} broken"), causes)


def _with_deadline(check: Check, machine: Machine) -> Finding:
    """Do one check in a thread: what never returns, such as a look at a disk that is gone, does not hold the others."""
    found: list[Finding] = []
    thread = threading.Thread(
        target=lambda: found.append(_guarded(check, machine)), name=f"doctor-{check.key}", daemon=True
    )
    thread.start()
    thread.join(check.deadline)
    if found:
        return found[0]
    return Finding(
        check,
        broken(
            f"no result within {check.deadline:g} s",
            "Something that this check looks at hangs: a disk of another machine, a driver, a program.",
        ),
    )


def _guarded(check: Check, machine: Machine) -> Finding:
    try:
        return Finding(check, check.look(machine))
    except SkipCheck as reason:
        return Finding(check, Result(State.SKIPPED, str(reason)))
    except ModuleNotFoundError as error:
        # The check of the packages has told it, with what to do.
        text = f"needs the package {error.name or error}, which is missing (see Packages)"
        return Finding(check, Result(State.SKIPPED, text), ("Packages",))
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}:{place.lineno}"
        text = f"the check itself failed: {type(error).__name__}: {error} ({where})"
        return Finding(check, broken(text, "Please report this with the output of doctor --json."))


def one_line(value: Any, limit: int = 300) -> str:
    """A text of others as one line, its end left out where it is long."""
    text = " ".join(str(value).split())
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
