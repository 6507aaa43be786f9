"""What ``run`` and ``batch`` share: the plan that WORKFLOW... is, common options, and how errors are told."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import re
import shlex
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from .input_values import ANY, HELP, example_of, nearest, standard_input
from .output import CONFIG, JSON, Failure, NotFound, Status, printable, say
from .wording import command

Json = dict[str, Any]
_Function = TypeVar("_Function", bound=Callable[..., Any])

_STDIN = "-"
#: as in seeds.py, which is loaded later
SEED_POLICIES = ("as_saved", "fixed", "increment", "randomize")


# --------------------------------------------------------------------------------------------------------------- plan


@dataclasses.dataclass
class Plan:
    """The steps of a run, and the names that it knows."""

    steps: list[Any]
    #: {name: type} of what may be given: INPUT ports, and what only conditions read
    kinds: dict[str, str] = dataclasses.field(default_factory=dict)
    #: {name: type} of the OUTPUT ports
    outputs: dict[str, str] = dataclasses.field(default_factory=dict)
    #: INPUT ports that no step before them delivers, in order
    wanted: list[str] = dataclasses.field(default_factory=list)
    #: the prompts among the workflows: in API format, where only a server tells types
    prompts: list[Json] = dataclasses.field(default_factory=list)

    async def kinds_on(self, d: Any) -> dict[str, str]:
        """The types of what may be given, those that only the server knows included."""
        from ..prompt_graph import PromptTemplate
        from ..run_plan import port_types

        kinds = dict(self.kinds)
        definitions = await d.Worker.node_definitions()
        for prompt in self.prompts:
            for name, kind in port_types(PromptTemplate(prompt), definitions)[0].items():
                if kinds.get(name, ANY) == ANY:
                    kinds[name] = kind
        return kinds

    def has_unknown(self, names: Sequence[str]) -> bool:
        """Whether a server could tell more of the types of these names."""
        return bool(self.prompts) and any(self.kinds.get(name, ANY) == ANY for name in names)


def read_plan(workflows: Sequence[str], conditions: Sequence[str] = ()) -> Plan:
    """The plan that files are, see `steps_of`.

    Args:
        conditions: expressions of the command line, which may read names of their own.

    Raises:
        NotFound: there is no such file.
        ValueError, OSError: it is neither workflow nor steps; or a workflow that a file of steps names is not there.
    """
    import networkx as nx

    from ..control_flow import Condition
    from ..prompt_graph import INPUT, OUTPUT, is_api_format
    from ..run_plan import sources
    from ..workflow_graph import discover_ports
    from ..workflow_json import load_workflow

    plan = Plan([step for workflow in workflows for step in steps_of(workflow)])
    for source in sources(plan.steps):
        content = load_workflow(source, allow_prompt=True)
        if is_api_format(content):
            plan.prompts.append(content)
        try:
            ports = discover_ports(content)
        except (ValueError, nx.NetworkXUnfeasible) as e:
            raise ValueError(f"{source if isinstance(source, (str, Path)) else 'The workflow'}: {e}") from e
        for port in ports:
            if port.mode == INPUT and plan.kinds.get(port.unique_id, ANY) == ANY:
                plan.kinds[port.unique_id] = port.type
        new = [p.unique_id for p in ports if p.mode == INPUT and p.unique_id not in plan.outputs]
        plan.wanted += [name for name in dict.fromkeys(new) if name not in plan.wanted]
        plan.outputs.update({p.unique_id: p.type for p in ports if p.mode == OUTPUT})
    for name in {*_read_by(plan.steps), *(name for text in conditions for name in Condition.parse(text).names)}:
        plan.kinds.setdefault(name, plan.outputs.get(name, ANY))
    return plan


def _read_by(steps: Sequence[Any]) -> Iterator[str]:
    """The names that conditions of these steps read."""
    from ..control_flow import Branch, Condition, Loop

    for step in steps:
        if isinstance(step, (Branch, Loop)):
            if step.condition is not None:
                yield from Condition.parse(step.condition).names
            yield from _read_by(step.body if isinstance(step, Loop) else [*step.then, *step.otherwise])


def steps_of(workflow: str) -> list[Any]:
    """The steps that an argument is: a workflow (of the editor, in API format, or a PNG that carries one), or a file of
    steps; told apart by what is in it.

    Raises:
        NotFound: there is no such file. ValueError, OSError: it cannot be read, or is no JSON.
    """
    from ..control_flow import load_steps, parse_steps
    from ..workflow_json import load_workflow, read_workflow_file

    if workflow == _STDIN:
        try:
            content = json.loads(standard_input("WORKFLOW"))
        except json.JSONDecodeError as e:
            raise ValueError(f"Standard input is not JSON: {e}. Pass it a workflow that the editor saved.") from e
        return list(parse_steps(content if _is_steps(content) else [load_workflow(content, allow_prompt=True)]))
    file = Path(workflow).expanduser()
    try:
        content = read_workflow_file(file)
    except FileNotFoundError as e:
        raise NotFound(str(e)) from e
    return list(load_steps(file)) if _is_steps(content) else [str(file)]


def _is_steps(content: Any) -> bool:
    """Whether JSON is the steps of a run: a list, or a loop or branch alone."""
    if not isinstance(content, Mapping):
        return isinstance(content, list)
    kind = next(iter(content), None)
    return len(content) == 1 and kind in ("loop", "branch") and "class_type" not in (content[kind] or ())


# --------------------------------------------------------------------------------------------------------------- loop


def loop_condition(plan: Plan, until: str | None, while_: str | None, given: Iterable[str] = ()) -> str | None:
    """The condition that is asked before each iteration.

    "Until" is asked when an iteration is done: the first one runs in any case.

    Args:
        given: names that have a value from -i.

    Raises:
        click.BadParameter: the expression reads what nothing delivers.
    """
    from ..control_flow import Condition

    option, text = ("--until", until) if until is not None else ("--while", while_)
    if text is None:
        return None
    name, known = text.strip(), {*plan.outputs, *given}
    condition = Condition.parse(text)
    is_port = condition.kind == "port" or name in known
    for read in {name} - known if is_port else condition.names - known:
        raise click.BadParameter(
            f"it reads {read!r}, which no OUTPUT port delivers and no -i gives. {nearest(read, known)}",
            param_hint=repr(option),
        )
    if until is None:
        return while_
    if is_port:
        # What a port's value counts as: of a tensor, whether any element is not 0.
        value = f"value({name!r})"
        text = f"{value} if len(shape({value})) < 2 else any({value})"
    return f"iteration == 0 or not ({text})"


def refuse_missing(plan: Plan, given: Collection[str]) -> None:
    """
    Raises:
        click.UsageError: INPUT ports that nothing gives a value.
    """
    missing = [name for name in plan.wanted if name not in given]
    if missing:
        ports = ", ".join(f"{name!r} ({plan.kinds[name]})" for name in missing)
        options = " ".join(f"-i {shlex.quote(f'{name}={example_of(plan.kinds[name])}')}" for name in missing)
        many = len(missing) > 1
        raise click.UsageError(f"The INPUT port{'s' * many} {ports} {'have' if many else 'has'} no value: {options}")


def check_condition(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Callback of --until and --while: refuse what is no expression before anything else is looked at."""
    from ..control_flow import Condition, ConditionError

    if value is not None:
        try:
            Condition.parse(value)
        except ConditionError as e:
            raise click.BadParameter(str(e)) from e
    return value


def refuse_unknown(names: Iterable[str], known: Collection[str], what: str, option: str) -> None:
    """
    Raises:
        click.BadParameter: one of the names is no port.
    """
    for name in names:
        if name not in known:
            raise click.BadParameter(f"there is no {what} {name!r}. {nearest(name, known)}", param_hint=repr(option))


# ------------------------------------------------------------------------------------------------------------ options


def _complete(mode: str, ending: str) -> Callable[[click.Context, click.Parameter, str], list[Any]]:
    """A completion of the names of ports of the workflows that are typed already."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        from click.shell_completion import CompletionItem

        try:
            # An option whose value is just being typed keeps click from handing out the arguments before it.
            words = [*(ctx.params.get("workflows") or ()), *ctx.args]
            plan = read_plan([word for word in words if Path(word).is_file()])
            kinds = plan.kinds if mode == "INPUT" else plan.outputs
            return [
                CompletionItem(f"{name}{ending}", help=kind)
                for name, kind in sorted(kinds.items())
                if name.startswith(incomplete) and "\n" not in name
            ]
        except Exception:  # whatever is half typed: a shell wants suggestions or none
            return []

    return complete


_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.argument("workflows", metavar="WORKFLOW...", nargs=-1, required=True, type=click.Path()),
    click.option(
        "-i",
        "--input",
        "inputs",
        multiple=True,
        metavar="NAME=VALUE",
        help=HELP,
        shell_complete=_complete("INPUT", "="),
    ),
    click.option("-n", "--iterations", type=click.IntRange(min=1), metavar="N", help="Run them so often, at most."),
    click.option(
        "--until",
        metavar="EXPR",
        callback=check_condition,
        help="End the loop when this is true after an iteration, such as 'score > 0.9'; needs -n as a bound.",
    ),
    click.option(
        "--while",
        "while_",
        metavar="EXPR",
        callback=check_condition,
        help="Run an iteration only if this is true before it (or reads what is not there yet); needs -n as a bound.",
    ),
)
_LATER_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--resume",
        is_flag=True,
        help="Go on with what the folder holds, if it is the same. It is what happens in any case, said aloud.",
    ),
    click.option(
        "--resume-changed",
        is_flag=True,
        help="Go on with it although workflows, inputs or options have changed, as far as the record fits.",
    ),
    click.option("--fresh", is_flag=True, help="Move what the folder holds into earlier/ in it, and begin anew."),
    click.option(
        "--retry", type=click.IntRange(min=1), metavar="N", help="Try a step N times in all where a node fails."
    ),
    click.option("--seed-policy", type=click.Choice(SEED_POLICIES), default="as_saved", help="What becomes of seeds."),
    click.option("--seed", type=int, metavar="N", help="What random seeds are drawn from: the same N, the same seeds."),
    click.option(
        "--max-server-ram-gb",
        type=click.FloatRange(min=0, min_open=True),
        metavar="GB",
        help="Free or restart the server between steps when it has more memory than this.",
    ),
    click.option(
        "--max-vram-gb",
        type=click.FloatRange(min=0, min_open=True),
        metavar="GB",
        help="The same for memory of the GPU.",
    ),
    click.option("--on-disk", is_flag=True, help="Keep data on disk rather than in shared memory."),
    CONFIG,
    click.option("-q", "--quiet", is_flag=True, help="Print results and errors, nothing else."),
    click.option("-v", "--verbose", is_flag=True, help="Tell on standard error what is done, and why."),
    JSON,
)


def first_options(function: _Function) -> _Function:
    """The argument, and the options that say what is run."""
    return _decorated(function, _OPTIONS)


def last_options(function: _Function) -> _Function:
    """The options that say how."""
    return _decorated(function, _LATER_OPTIONS)


def _decorated(function: _Function, decorators: Sequence[Callable[[Any], Any]]) -> _Function:
    for decorate in reversed(decorators):
        function = decorate(function)
    return function


#: --collect completes names of OUTPUT ports
complete_outputs = _complete("OUTPUT", "")


@dataclasses.dataclass(frozen=True)
class Common:
    """The options that both commands have, as they were given."""

    workflows: Sequence[str]
    inputs: Sequence[str]
    iterations: int | None
    until: str | None
    while_: str | None
    resume: bool
    resume_changed: bool
    fresh: bool
    retry: int | None
    seed_policy: str
    seed: int | None
    max_server_ram_gb: float | None
    max_vram_gb: float | None
    on_disk: bool
    config_path: Path | None
    quiet: bool
    verbose: bool
    as_json: bool

    def check(self, has_folder: bool) -> None:
        """
        Raises:
            click.UsageError: options that do not go together.
        """
        if self.until is not None and self.while_ is not None:
            raise click.UsageError("--until and --while are two ways to say the same: give one of them.")
        if self.quiet and self.verbose:
            raise click.UsageError("--quiet and --verbose contradict each other.")
        named = {"--resume": self.resume, "--resume-changed": self.resume_changed, "--fresh": self.fresh}
        chosen = [name for name, is_given in named.items() if is_given]
        if len(chosen) > 1:
            raise click.UsageError(f"{' and '.join(chosen)} contradict each other: give one of them.")
        if chosen and not has_folder:
            raise click.UsageError(f"{chosen[0]} is about a run that was kept: it needs --checkpoint DIR.")

    def check_bound(self, count: int | None) -> None:
        """
        Raises:
            click.UsageError: a loop that may never end.
        """
        if count is None and (self.until is not None or self.while_ is not None):
            option = "--until" if self.until is not None else "--while"
            raise click.UsageError(
                f"{option} alone may never end the loop: say with -n N how many iterations there are at most."
            )

    def control(self) -> Json:
        """The arguments of Discomfort.run() and run_batch() that they are."""
        return {
            "use_ram": not self.on_disk,
            "resume": False if self.fresh else "force" if self.resume_changed else True,
            "retry": self.retry,
            "seed_policy": self.seed_policy,
            "master_seed": self.seed,
            "max_server_ram_gb": self.max_server_ram_gb,
            "max_vram_gb": self.max_vram_gb,
            "progress": False if self.quiet or self.as_json else None,
        }


# ------------------------------------------------------------------------------------------------------------- telling


class _Notes(logging.Handler):
    """Prints what the package says of its work, on standard error, beside a bar that may be there."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
            text = f"discomfort: {printable(message if self.level == logging.INFO else brief(message))}"
            if sys.stderr.isatty():
                from tqdm import tqdm

                tqdm.write(text, file=sys.stderr)
            else:
                click.echo(text, err=True)
        except Exception:
            self.handleError(record)


@contextlib.contextmanager
def _listening(quiet: bool, verbose: bool) -> Iterator[None]:
    logger = logging.getLogger("discomfort")
    handler = _Notes(logging.CRITICAL if quiet else logging.INFO if verbose else logging.WARNING)
    level = logger.level
    logger.addHandler(handler)
    if verbose:
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


@contextlib.contextmanager
def told(quiet: bool, verbose: bool) -> Iterator[None]:
    """Let what goes wrong end the command with a paragraph, in the words of the command line; and what the package
    warns of be seen.
    """
    with _listening(quiet, verbose):
        try:
            yield
        except click.UsageError as e:  # about values: how the command is written is no help
            raise Failure(e.format_message(), Status.USAGE) from e
        except (click.ClickException, BrokenPipeError):  # `| head`: main() ends the program in silence
            raise
        except KeyboardInterrupt as e:
            raise Failure(_interrupted(str(e)), Status.INTERRUPTED) from e
        except (OSError, ValueError, TypeError, MemoryError) as e:
            raise Failure(_words_for(e)) from e
        except RuntimeError as e:
            if not isinstance(e, _known_errors()):
                raise
            raise Failure(
                _words_for(e) if verbose else brief(_words_for(e), "\n-v shows the server's traceback.")
            ) from e


def say_what_starts(options: Common) -> None:
    """Say which server is started, as that takes a while; nothing of one that is there already."""
    if options.quiet or options.as_json:
        return
    from .. import warm_server
    from ..comfy_serverless import ConnectorConfig, choose_server

    config = ConnectorConfig.load(options.config_path)
    if config.attached_url or warm_server.find(options.config_path) is not None:
        return
    choice = choose_server(config)
    what = "Discomfort's embedded server" if choice.kind == "embedded" else f"ComfyUI in {choice.path}"
    say(f"Starting {what} ({choice.reason}) ...", err=True)


def brief(message: str, hint: str = "") -> str:
    """A message without the server's traceback; with a hint, where it had one."""
    text, is_there, _ = message.partition("\n  Traceback on the server:")
    return f"{text}{hint if is_there else ''}"


def _known_errors() -> tuple[type[RuntimeError], ...]:
    """Errors that are sentences for people."""
    from ..comfy_serverless import ConnectorError
    from ..durable.run_folder import RunFolderError
    from ..observing.run_control import RunStoppedError
    from ..run_plan import ProtocolError
    from ..workflow_tools import WorkflowExecutionError

    return ConnectorError, RunFolderError, RunStoppedError, ProtocolError, WorkflowExecutionError


def _interrupted(text: str) -> str:
    """What Ctrl-C has ended. One that is kept says so itself (RunInterrupted)."""
    if not text:
        return (
            "Stopped by Ctrl-C. With --checkpoint DIR each finished step is kept, and the same command goes on from "
            "there."
        )
    kept = text.partition(": call run() again")[0]
    return f"{kept}. To go on: {again()}"


def again() -> str:
    """The command line of this process, as it can be copied to go on where it ended."""
    words = [_without_secret(word) for word in sys.argv[2:] if word not in ("--fresh", "--resume-changed")]
    return command(" ".join([click.get_current_context().command.name or "", *map(shlex.quote, words)]))


def _without_secret(word: str) -> str:
    """A word of the command line as it may stand in a log."""
    from ..durable.secrets import is_secret_name

    name, is_there, text = word.partition("=")
    return f"{name}=..." if is_there and is_secret_name(name) and not text.startswith("@") else word


def _words_for(error: BaseException) -> str:
    """An error's message in the words of the command line."""
    from ..durable.compare import listed
    from ..durable.run_folder import RunChangedError

    differences = getattr(error, "differences", ()) if isinstance(error, RunChangedError) else ()
    if differences:
        folder = str(error).partition(" is another one than this call asks for")[0]
        return (
            f"{folder} is another one than this command asks for:\n{listed(differences)}\nThe command as it was goes "
            "on behind the last finished step. --resume-changed goes on with the changes; --fresh moves that record "
            "aside and begins anew."
        )
    text = re.sub(r"inputs=\{'(.+?)': \.\.\.\}", r"-i '\1=VALUE'", str(error)) or type(error).__name__
    for python, words in _IN_OTHER_WORDS:
        text = text.replace(python, words)
    return text


# What messages advise in Python, and here.
_IN_OTHER_WORDS = (
    ("resume='force'", "--resume-changed"),
    ("resume=False", "--fresh"),
    ("checkpoint=", "--checkpoint"),
    ("call run() again", "give the same command again"),
    ("than this call asks for", "than this command asks for"),
)
