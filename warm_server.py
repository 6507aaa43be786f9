"""A warm server: a nested server that outlives scripts, kept by a process of its own.

``python -m discomfort server start`` starts a *keeper*, a process in the background that holds one nested server as
any script would, and publishes it. ``create()`` of a script with the same settings then takes that server instead of
starting one: no start-up, and models and results of earlier scripts are still in its cache. The script never stops it;
the keeper does, when it is told to, or when nobody has used it for WARM_IDLE_TIMEOUT seconds.

What keeper and scripts share is files in the keeper's folder, see :class:`~.comfy_serverless.WarmServer`: what is
published, a lease for every user, and the wish that it stop. Files, and no socket, because they work the same on every
system, need no protocol, and die with their owners: a lease is a lock, which the system releases however its holder
ends.

A keeper that is killed takes its server with it (its guard process sees to that), and the next start sweeps its folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import logging.handlers
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import filelock
import psutil

from .comfy_serverless import (
    HERE,
    IS_WINDOWS,
    WARM_PROTOCOL,
    ComfyConnector,
    ConfigError,
    ConnectorConfig,
    ConnectorError,
    ServerProcess,
    WarmServer,
    choose_server,
    code_state,
    make_locked_folder,
    remove_locked_folder,
    servers_root,
    sweep,
    warm_folder,
    warm_settings,
)

log = logging.getLogger("discomfort.warm_server")

#: seconds between two looks of the keeper at its folder and its server
_POLL = 0.2
#: a lease younger than this many seconds counts as held without trying its lock: its holder may just be taking it
_YOUNG = 2.0
#: how many times in a row a server that ended is started again before the keeper gives up
_RESTARTS = 3


class WarmServerError(ConnectorError):
    """A warm server cannot be started, renewed or stopped; the message says why and what to do."""


class WarmServerInUseError(WarmServerError):
    """It cannot be stopped or renewed, because somebody uses it and *force* was not given."""


# --------------------------------------------------------------------------------------------------------------------
# Looking at warm servers, from any process
# --------------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class WarmStatus:
    """A warm server as it is now, for people and for ``--json``."""

    #: what its keeper has published
    server: WarmServer
    #: the keeper's folder
    folder: Path
    #: whether it answers HTTP
    is_healthy: bool
    #: pids of the processes that use it
    users: list[int]
    #: prompts that run or wait, None where it does not answer
    queue: int | None
    #: resident memory of the server process in bytes
    memory: int
    #: seconds since it was last used, 0 while it is
    idle: float
    #: seconds since the server process began
    age: float

    def as_json(self) -> dict[str, Any]:
        """Plain data: everything a program may want to know."""
        server = self.server
        return {
            "address": server.address,
            "kind": server.choice.kind,
            "path": str(server.choice.path),
            "pid": server.pid,
            "keeper_pid": server.keeper_pid,
            "log": str(server.log_path),
            "folder": str(self.folder),
            "healthy": self.is_healthy,
            "users": self.users,
            "queue": self.queue,
            "memory_bytes": self.memory,
            "age_seconds": round(self.age, 1),
            "idle_seconds": round(self.idle, 1),
            "idle_timeout_seconds": server.idle_timeout,
        }


def leases(folder: Path) -> list[int]:
    """Pids of the processes that use the warm server of *folder*. Leases of processes that have ended are removed."""
    return [pid for pid, _ in _held_leases(folder)]


def _held_leases(folder: Path) -> list[tuple[int, str]]:
    """(pid, client id) of whoever uses the warm server, see lease_warm_server()."""
    held = []
    for file in sorted((folder / "leases").glob("*.lock")):
        with contextlib.suppress(OSError, ValueError):
            is_held = time.time() - file.stat().st_mtime < _YOUNG
            if not is_held:
                try:
                    with filelock.FileLock(file, timeout=0):
                        file.unlink()
                except filelock.Timeout:
                    is_held = True
            if is_held:
                pid, _, client_id = file.stem.partition("-")
                held.append((int(pid), client_id))
    return held


def _is_kept(folder: Path) -> bool:
    """Whether a keeper holds the folder's lock. (Trying it for a moment disturbs nobody: a keeper takes the lock of a
    folder that has not its name yet.)
    """
    file = folder / "owner.lock"
    if not file.exists():
        return False
    try:
        with filelock.FileLock(file, timeout=0):
            return False
    except filelock.Timeout:
        return True
    except OSError:
        return False


# urllib would send requests even to this machine through the proxy that the environment names.
_http = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _ask_queue(address: str) -> int | None:
    """How many prompts run or wait, None where the server does not answer within two seconds."""
    try:
        queue = _request(f"{address}/queue")
        return len(queue["queue_running"]) + len(queue["queue_pending"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _request(url: str, body: Any = None) -> Any:
    """GET, or POST of a body, with an answer in JSON, if any, within two seconds. Raises OSError and ValueError."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    with _http.open(urllib.request.Request(url, data, headers), timeout=2) as response:  # noqa: S310 - one of ours
        text = response.read()
    return json.loads(text) if text else None


def _take_back(address: str, client_ids: set[str]) -> int:
    """Take the prompts of clients that have gone out of the queue, interrupt what runs of theirs, delete their history.

    Returns:
        How many of their prompts there were in the queue: to be called again until there are none. Also 0 where the
        server does not answer. Never raises.
    """

    def theirs(items: Any) -> list[str]:
        return [item[1] for item in items if item[3].get("client_id") in client_ids]

    try:
        queue = _request(f"{address}/queue")
        left = theirs([*queue["queue_pending"], *queue["queue_running"]])
        if left:
            _request(f"{address}/queue", {"delete": left})
            # Asked again: servers that know no interrupt by id would stop whatever runs.
            for prompt_id in theirs(_request(f"{address}/queue")["queue_running"]):
                _request(f"{address}/interrupt", {"prompt_id": prompt_id})
            return len(left)
        # What they read they delete after a moment, which a killed process does not have. Of an editor there may be
        # many, with their workflows: the last ones are enough.
        history = _request(f"{address}/history?max_items=50")
        read = theirs(entry["prompt"] for entry in history.values())
        if read:
            _request(f"{address}/history", {"delete": read})
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as e:
        log.warning("What a process that has ended left on the server could not be taken back: %s", e)
    return 0


def _status_of(folder: Path) -> WarmStatus | None:
    """The warm server of a keeper's folder, None where there is none (any more, or yet)."""
    server = WarmServer.read(folder) if _is_kept(folder) else None
    if server is None or not server.is_alive:
        return None
    users = leases(folder)
    queue = _ask_queue(server.address)
    memory, idle = 0, 0.0
    with contextlib.suppress(psutil.Error):
        memory = int(psutil.Process(server.pid).memory_info().rss)
    with contextlib.suppress(OSError):
        idle = 0.0 if users or queue else max(0.0, time.time() - (folder / "used").stat().st_mtime)
    return WarmStatus(server, folder, queue is not None, users, queue, memory, idle, time.time() - server.began)


def status() -> list[WarmStatus]:
    """All warm servers of this user that are ready. Blocks: up to two seconds for one that does not answer."""
    with contextlib.suppress(FileNotFoundError):
        found = [_status_of(folder) for folder in sorted(servers_root().glob("warm-*"))]
        return [one for one in found if one is not None]
    return []


# --------------------------------------------------------------------------------------------------------------------
# Starting and stopping them, from any process
# --------------------------------------------------------------------------------------------------------------------


def start(
    config_path: str | os.PathLike[str] | None = None,
    idle_timeout: float | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> WarmStatus:
    """Have a warm server for these settings, starting one where there is none; returns when it is ready.

    One that runs already is left as it is. If it does not answer, or its code was changed since its start, it is
    renewed, unless somebody uses it.

    Args:
        config_path: the configuration that the scripts pass to ``create()``; None for the default one.
        idle_timeout: seconds without use after which it ends, 0 for never; None: WARM_IDLE_TIMEOUT.
        tell: called with sentences about what is going on.

    Raises:
        ConnectorError: what a start raises (configuration, no ComfyUI, server), WarmServerError for a server in use.

    Blocks for as long as a server takes to start. An interrupt (Ctrl-C) ends the start.
    """
    config = ConnectorConfig.load(config_path)
    if config.attached_url:
        raise ConfigError(
            f"API_URL names a server that runs already ({config.attached_url}): there is nothing to be kept warm."
        )
    began = time.monotonic()
    for is_last in (False, False, False, True):
        folder = _free_folder(config, tell)
        if isinstance(folder, WarmStatus):
            if idle_timeout not in (None, folder.server.idle_timeout):
                tell("Its idle time-out stays as it is; stop it first to have another one.")
            return folder
        is_ours = _run_keeper(config_path, idle_timeout)
        # Published before the keeper said so; by another one, where two were started at once.
        deadline = time.monotonic() + config.START_TIMEOUT
        while _is_kept(folder) and time.monotonic() < deadline:
            found = _status_of(folder)
            if found is not None:
                tell(f"Ready after {time.monotonic() - began:.1f} s.")
                return found
            time.sleep(_POLL)
        if is_ours:
            break
        if is_last or _is_kept(folder):
            raise WarmServerError(
                f"Another process holds {folder} to start or to stop this warm server, and did not come to an end."
            )
        # What there was already was just being stopped.
    raise WarmServerError("The warm server was stopped, or ended, as soon as it was ready. Start it again.")


def _free_folder(config: ConnectorConfig, tell: Callable[[str], None]) -> WarmStatus | Path:
    """The warm server that can be used as it is, or the folder in which there is none now."""
    choice = choose_server(config)
    folder = warm_folder(config, choice)
    running = _status_of(folder)
    if running is None:
        return folder
    if not running.is_healthy:
        problem = "does not answer"
    elif running.server.code_state != code_state(choice):
        problem = "was started before its code, or that of a custom node, was changed"
    else:
        tell("It runs already.")
        return running
    if running.users:
        raise WarmServerInUseError(
            f"The warm server at {running.server.address} {problem}, but it is in use by "
            f"{name_processes(running.users)}."
        )
    tell(f"The one that runs {problem}: it is renewed.")
    stop(running)
    return folder


def _run_keeper(config_path: str | os.PathLike[str] | None, idle_timeout: float | None) -> bool:
    """Start a keeper in the background and wait until it has announced its server, or why there is none.

    Returns:
        False where another keeper holds the folder.
    """
    command = [sys.executable, str(HERE), "server", "keep"]
    if config_path is not None:
        command += ["--config", str(Path(config_path).resolve())]
    if idle_timeout is not None:
        command += ["--idle-timeout", str(idle_timeout)]
    keeper = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=not IS_WINDOWS,  # neither Ctrl-C nor the terminal's end reaches it
        creationflags=getattr(subprocess, "DETACHED_PROCESS", 0) | getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
    )
    assert keeper.stdout is not None
    announced, said = None, []
    try:
        with keeper.stdout:
            for line in keeper.stdout:
                if line.startswith(_ANNOUNCEMENT):
                    announced = json.loads(line.removeprefix(_ANNOUNCEMENT))
                    break
                said.append(line)
    except BaseException:
        keeper.terminate()
        keeper.wait()
        raise
    if announced == {}:
        return True
    keeper.wait()
    if announced is None:
        how = f"with exit status {keeper.returncode}" if keeper.returncode >= 0 else f"by signal {-keeper.returncode}"
        last = "".join(said[-20:])
        raise WarmServerError(
            f"The process that was to keep the warm server ended {how} before the server was ready"
            + (f":\n{last.rstrip()}" if last.strip() else ".")
        )
    if not announced["is_kept_already"]:
        raise WarmServerError(announced["error"])
    return False


def stop(running: WarmStatus, force: bool = False, timeout: float = 30.0) -> None:
    """Stop a warm server; returns when its process has ended.

    Raises:
        WarmServerError: it is in use and *force* is not given; its keeper does not react within *timeout* seconds.
    """
    users = leases(running.folder)
    if users and not force:
        raise WarmServerInUseError(f"The warm server at {running.server.address} is in use by {name_processes(users)}.")
    keeper = None
    with contextlib.suppress(psutil.Error):
        keeper = psutil.Process(running.server.keeper_pid)
    _wish_to_stop(running.folder)
    deadline = time.monotonic() + timeout
    # Not the folder: another start may have made it anew by now.
    while running.server.is_alive or _is_running(keeper):
        if time.monotonic() > deadline:
            raise WarmServerError(
                f"The keeper of the warm server at {running.server.address} (process {running.server.keeper_pid}) has "
                f"not stopped it within {timeout:g} s. Ending that process ends the server too."
            )
        time.sleep(0.05)


def unready(config_path: str | os.PathLike[str] | None = None, everywhere: bool = False) -> list[Path]:
    """Folders of keepers that have no server to offer: it is being started, or started again after its end.

    Args:
        everywhere: those of all configurations, not only of *config_path*.

    Raises:
        ConnectorError: as :func:`find`, unless *everywhere*.
    """
    if everywhere:
        folders = sorted(servers_root().glob("warm-*"))
    else:
        config = ConnectorConfig.load(config_path)
        folders = [] if config.attached_url else [warm_folder(config, choose_server(config))]
    return [folder for folder in folders if WarmServer.read(folder) is None and _is_kept(folder)]


def stop_unready(folder: Path, timeout: float = 30.0) -> None:
    """Stop a keeper that :func:`unready` found; returns when it has gone.

    Raises:
        WarmServerError: it does not react within *timeout* seconds.
    """
    keeper = None
    with contextlib.suppress(OSError, ValueError, psutil.Error):
        keeper = psutil.Process(int((folder / "keeper.pid").read_text(encoding="ascii")))
    _wish_to_stop(folder)
    deadline = time.monotonic() + timeout
    while _is_kept(folder) or _is_running(keeper):
        if time.monotonic() > deadline:
            raise WarmServerError(f"The keeper of {folder}, which starts a warm server, did not end in {timeout:g} s.")
        time.sleep(0.05)


def _wish_to_stop(folder: Path) -> None:
    with contextlib.suppress(FileNotFoundError):  # it is going already
        (folder / "stop").touch(mode=0o600)


def _is_running(process: psutil.Process | None) -> bool:
    """Whether a process has not ended yet; one that only waits to be reaped has."""
    try:
        return process is not None and process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def find(config_path: str | os.PathLike[str] | None = None) -> WarmStatus | None:
    """The warm server that ``create(config_path)`` would look at, None where there is none. Blocks for a moment.

    Raises:
        ConnectorError: bad configuration, or the ComfyUI that it names is not there.
    """
    config = ConnectorConfig.load(config_path)
    return None if config.attached_url else _status_of(warm_folder(config, choose_server(config)))


def name_processes(pids: list[int]) -> str:
    """``process 12 (python refine.py)`` for people."""
    names = []
    for pid in pids:
        command = ""
        with contextlib.suppress(psutil.Error, ValueError):
            program, *words = psutil.Process(pid).cmdline()
            command = " ".join(" ".join([os.path.basename(program), *words]).split())[:100]
        names.append(f"process {pid}" + (f" ({command})" if command else ""))
    return ", ".join(names)


# --------------------------------------------------------------------------------------------------------------------
# The keeper
# --------------------------------------------------------------------------------------------------------------------

# What the keeper's one line for whoever started it begins with; everything else that is printed is somebody's noise.
_ANNOUNCEMENT = "discomfort-keeper: "


def keep(
    config_path: str | os.PathLike[str] | None = None, idle_timeout: float | None = None, foreground: bool = False
) -> int:
    """Be a keeper: the body of the process in the background, or of a service in the foreground. Returns at its end.

    In the background its standard output gets one line, the announcement: ``{}`` when the server is ready, else an
    error; after that nobody reads it any more. In the foreground the log goes to standard error as well.

    Returns:
        0 after a stop that was wished for (by a file, a signal, or idleness), 1, in the background, after an error.

    Raises:
        ConnectorError: in the foreground, where there was nothing to keep.
    """
    try:
        config = ConnectorConfig.load(config_path)
        if idle_timeout is not None:
            config = dataclasses.replace(config, WARM_IDLE_TIMEOUT=max(0.0, idle_timeout))
        asyncio.run(_Keeper(config, foreground).run())
    except (ConnectorError, OSError) as e:  # OSError: a full disk
        error = e if isinstance(e, ConnectorError) else WarmServerError(f"The keeper of the warm server failed: {e}.")
        if foreground:
            raise error from e.__cause__
        _announce({"error": str(error), "is_kept_already": isinstance(e, _KeptAlreadyError)})
        return 1
    return 0


def _announce(message: dict[str, Any]) -> None:
    """Tell whoever started us, once; then let go of the pipe, which ends with them."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.write(f"{_ANNOUNCEMENT}{json.dumps(message)}\n")
        sys.stdout.flush()
    with contextlib.suppress(OSError, ValueError):
        if not sys.stdout.isatty():
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.dup2(nowhere, sys.stderr.fileno())
            os.close(nowhere)


class _KeptAlreadyError(WarmServerError):
    """Another keeper holds the folder of these settings."""


class _Keeper:
    """The life of a keeper: claim the folder, start the server, publish it, watch, withdraw it, stop it, tidy up."""

    def __init__(self, config: ConnectorConfig, foreground: bool):
        self.foreground = foreground
        # A keeper must not find the server of another one, nor, after a restart, what is left of its own.
        self.config = dataclasses.replace(config, USE_WARM_SERVER=False)
        self.choice = choose_server(config)
        self.folder = warm_folder(config, self.choice)
        # set by SIGTERM, SIGINT and SIGHUP
        self.signalled = asyncio.Event()
        # when somebody last used the server (time.monotonic()), and when that was last noted in the file
        self.last_use = time.monotonic()
        self.noted_use = 0.0

    async def run(self) -> None:
        """Everything, in order. Whatever ends it, server and folder go.

        Raises:
            ConnectorError: the server could not be started, or not be restarted.
        """
        await asyncio.to_thread(sweep)
        try:
            lock = await asyncio.to_thread(make_locked_folder, self.folder)
        except OSError as e:
            if self.folder.exists():
                raise _KeptAlreadyError(
                    "A warm server with these settings is kept, or being started or stopped, by another process."
                ) from e
            raise WarmServerError(f"The keeper's folder {self.folder} cannot be made: {e}.") from e
        try:
            (self.folder / "leases").mkdir(mode=0o700)
            (self.folder / "keeper.pid").write_text(str(os.getpid()), encoding="ascii")
            with self._logging():
                if not IS_WINDOWS:  # where nothing but the wish in the folder can be heard
                    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup leaves SIGHUP
                            asyncio.get_running_loop().add_signal_handler(number, self.signalled.set)
                await self._keep()
        finally:
            await asyncio.to_thread(remove_locked_folder, self.folder, lock)

    @contextlib.contextmanager
    def _logging(self) -> Iterator[None]:
        """A program of its own, which nobody sees: its log is a file. (A library configures no handlers.)"""
        handlers: list[logging.Handler] = [
            logging.handlers.RotatingFileHandler(
                self.folder / "keeper.log", maxBytes=1_000_000, backupCount=1, encoding="utf-8"
            )
        ]
        if self.foreground:
            handlers.append(logging.StreamHandler())
        root = logging.getLogger("discomfort")
        before = root.level
        for handler in handlers:
            handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
            root.addHandler(handler)
        root.setLevel(logging.INFO)
        try:
            yield
        finally:
            root.setLevel(before)
            for handler in handlers:
                root.removeHandler(handler)
                handler.close()

    async def _keep(self) -> None:
        # Before the start: what changes while the server loads its code is newer than what it loaded.
        state = await asyncio.to_thread(code_state, self.choice)
        starting = asyncio.create_task(ComfyConnector.create(self.config))
        if await self._wish_during(starting):
            raise WarmServerError("The keeper was stopped while its server was starting.")
        connector = starting.result()
        try:
            self._note_use()
            self._publish(connector, state)
            if not self.foreground:
                _announce({})
            log.info("The server is stopped: %s", await self._watch(connector, state))
        finally:
            with contextlib.suppress(OSError):
                (self.folder / "server.json").unlink()
            await connector.kill_api()

    def _publish(self, connector: ComfyConnector, state: str) -> None:
        server, runtime = connector._server, connector._folder
        assert isinstance(server, ServerProcess)
        assert server.pid is not None
        assert runtime is not None
        published = WarmServer(
            protocol=WARM_PROTOCOL,
            address=server.address,
            pid=server.pid,
            began=psutil.Process(server.pid).create_time(),
            keeper_pid=os.getpid(),
            runtime_folder=runtime.path,
            log_path=server.log_path,
            idle_timeout=self.config.WARM_IDLE_TIMEOUT,
            code_state=state,
            choice=self.choice,
            settings=warm_settings(self.config, self.choice),
            failed_packs=dict(server.failed_packs),
        )
        try:
            published.publish(self.folder)
        except OSError as e:
            raise WarmServerError(f"The warm server cannot be published in {self.folder}: {e}.") from e

    def _note_use(self) -> None:
        """Note that it is used now; the file tells ``status`` in other processes."""
        self.last_use = time.monotonic()
        if self.last_use - self.noted_use > 1:
            with contextlib.suppress(OSError):  # a full disk
                (self.folder / "used").touch(mode=0o600)
            self.noted_use = self.last_use

    def _wish(self) -> str:
        """Why the server is to be stopped, "" where nobody wishes so."""
        if self.signalled.is_set():
            return "a signal ended it"
        return "somebody stopped it" if (self.folder / "stop").exists() else ""

    async def _wish_during(self, task: asyncio.Task[Any]) -> str:
        """Wait for the end of *task*, and raise what it raised. Or, where the server is to be stopped meanwhile, cancel
        it and return the reason.
        """
        while not task.done() and not self._wish():
            await asyncio.wait([task], timeout=_POLL)
        if task.done():
            task.result()
            return ""
        task.cancel()
        await asyncio.wait([task])
        return self._wish()

    async def _watch(self, connector: ComfyConnector, state: str) -> str:
        """Until the server is to be stopped; returns the reason. One that ends is started again.

        Raises:
            ConnectorError: it cannot be started any more.
        """
        clients: set[str] = set()  # whoever uses it
        gone: set[str] = set()  # and has ended, with prompts that are still there
        while True:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.signalled.wait(), _POLL)
            wish = self._wish()
            if not wish and (connector._server is None or not connector._server.is_alive):
                (self.folder / "server.json").unlink(missing_ok=True)
                wish = await self._wish_during(asyncio.create_task(self._restart(connector)))
                if not wish:
                    self._publish(connector, state)
            if wish:
                return wish
            held = await asyncio.to_thread(_held_leases, self.folder)
            now = {client_id for _, client_id in held}
            gone = (gone | clients) - now  # one that only looked for the server again has its old name
            clients = now
            if gone and not await asyncio.to_thread(_take_back, connector.server_address, gone):
                gone = set()
            if held:
                self._note_use()
            elif self._is_idle() and await self._may_stop(connector):
                return f"nobody has used it for {self.config.WARM_IDLE_TIMEOUT:g} s"

    def _is_idle(self) -> bool:
        limit = self.config.WARM_IDLE_TIMEOUT
        return bool(limit) and time.monotonic() - self.last_use > limit

    async def _may_stop(self, connector: ComfyConnector) -> bool:
        """Whether really nobody uses it. Prompts may come from elsewhere, such as an editor that is open in a browser.
        One that does not say whether it has any gets as much time again.

        It is withdrawn before the last look at the leases, see lease_warm_server(): whoever came first is seen, and
        whoever comes later sees nothing.
        """
        queue = await asyncio.to_thread(_ask_queue, connector.server_address)
        if queue:
            self._note_use()
            return False
        if queue is None and time.monotonic() - self.last_use < 2 * self.config.WARM_IDLE_TIMEOUT:
            return False  # a prompt may keep the interpreter so busy that it does not answer, or it hangs
        published = self.folder / "server.json"
        withdrawn = published.with_name("withdrawn.json")
        os.replace(published, withdrawn)
        if await asyncio.to_thread(leases, self.folder):
            os.replace(withdrawn, published)
            self._note_use()
            return False
        return True

    async def _restart(self, connector: ComfyConnector) -> None:
        for attempt in range(1, _RESTARTS + 1):
            log.warning("The server ended; it is started again (attempt %d of %d)", attempt, _RESTARTS)
            try:
                await connector._ensure_initialized()
                return
            except ConnectorError as e:
                log.error("%s", e)
                if attempt == _RESTARTS:
                    raise
            await asyncio.sleep(attempt)
