"""Starting and stopping the server process.

The order is made for a short start. The port is taken first (so that a second server on it fails at once, and
early requests wait instead of being refused), torch, by far the slowest import, loads in a thread of its own
while the rest is imported, and packages load when both are there. Requests are answered from then on.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import itertools
import logging
import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from . import arguments, folder_paths, import_names, log_buffer, packs
from .arguments import args

if TYPE_CHECKING:
    import ssl

    from .server import PromptServer

logger = logging.getLogger("discomfort.embedded.launch")

# Connections that wait while the server starts or is busy.
_BACKLOG = 128
# Seconds a running node gets to stop at Ctrl-C.
_STOP_PATIENCE = 1.0


class CannotStart(Exception):
    """Why the server cannot start, as a sentence for the user."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the server until it is interrupted.

    Args:
        argv: the command line without the program's name; by default the process's.

    Returns:
        The exit status: 0 after SIGINT (Ctrl-C), 1 if it could not start (the reason is on stderr).

    Raises:
        SystemExit: 2 for a bad command line.
    """
    started_at = time.perf_counter()
    unknown = arguments.parse_arguments(sys.argv[1:] if argv is None else argv)
    log_buffer.set_up(args.verbose, args.log_stdout, args.log_files)
    if unknown:
        logger.warning("Unknown arguments are ignored: %s", " ".join(unknown))
    # A process started in the background by a shell script inherits an ignored SIGINT; this server obeys it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        _run(started_at)
    except KeyboardInterrupt:
        logger.info("\nStopped server")
    except CannotStart as exc:
        logger.error("Error: %s", exc)
        return 1
    return 0


def _run(started_at: float) -> None:
    """Start, and serve until KeyboardInterrupt."""
    sockets = listen(args.listen, args.port)
    try:
        tls = _read_certificate()
        _set_up_folders()
        _start_and_serve(started_at, sockets, tls)
    finally:
        for listening in sockets:
            listening.close()
        _remove_temp()


def _start_and_serve(started_at: float, sockets: list[socket.socket], tls: ssl.SSLContext | None) -> None:
    """Load everything, and serve until KeyboardInterrupt."""
    import_names.install_early()
    packs.run_prestartup_scripts()
    _set_up_devices()
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    server = loop.run_until_complete(_load(loop))
    logger.info("Loaded in %.2f seconds", time.perf_counter() - started_at)
    if not args.quick_test_for_ci:
        _serve(loop, server, sockets, tls)


def _serve(
    loop: asyncio.AbstractEventLoop, server: PromptServer, sockets: list[socket.socket], tls: ssl.SSLContext | None
) -> None:
    """Answer requests until KeyboardInterrupt, then end what is running."""
    from . import model_management
    from .worker import start_worker

    worker = start_worker(server)
    # What is loaded by now stays: collecting garbage need not look at it again, which is most of its cost.
    gc.freeze()
    try:
        loop.run_until_complete(server.start(sockets, tls))
        if args.auto_launch:
            _open_browser(server)
        loop.run_forever()
    finally:
        if server.prompt_queue.currently_running:
            model_management.interrupt_current_processing()
            deadline = time.monotonic() + _STOP_PATIENCE
            while server.prompt_queue.currently_running and time.monotonic() < deadline:
                worker.join(0.02)
        loop.run_until_complete(server.stop())
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


async def _load(loop: asyncio.AbstractEventLoop) -> PromptServer:
    """Import torch and the server, then all nodes. A coroutine, because packages may ask for the loop."""
    torch_import = _Import("torch")
    import_names.install_late()
    from . import comfy_utils, node_registry, progress
    from .server import PromptServer

    server = PromptServer(loop)

    def report(*values: object, **names: object) -> None:
        progress.report_progress(server, *values, **names)  # type: ignore[arg-type]

    comfy_utils.set_progress_bar_global_hook(report)
    torch_import.wait()
    logger.info("Imported torch in %.2f seconds", torch_import.duration)
    if args.deterministic:
        import torch

        torch.use_deterministic_algorithms(True, warn_only=True)
    from .core_nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

    node_registry.NODE_CLASS_MAPPINGS.update(NODE_CLASS_MAPPINGS)
    node_registry.NODE_DISPLAY_NAME_MAPPINGS.update(NODE_DISPLAY_NAME_MAPPINGS)
    await packs.load_packages()
    server.add_routes()
    return server


class _Import:
    """An import in a thread of its own."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._error: BaseException | None = None
        # Seconds it took.
        self.duration = 0.0
        self._thread = threading.Thread(target=self._run, name=f"import {name}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        start = time.perf_counter()
        try:
            __import__(self._name)
        except BaseException as exc:
            self._error = exc
        self.duration = time.perf_counter() - start

    def wait(self) -> None:
        """Wait until it is done.

        Raises:
            CannotStart: it failed.
        """
        self._thread.join()
        if self._error is not None:
            raise CannotStart(
                f"{self._name} cannot be imported ({self._error}). The embedded server needs it: "
                "pip install 'discomfort[embedded]'"
            ) from self._error


# -- the port ------------------------------------------------------------------------------------------------


def listen(addresses: str, port: int) -> list[socket.socket]:
    """Sockets that listen on a port of some addresses (separated by commas).

    Raises:
        CannotStart: the port is taken, or an address is not this machine's.
    """
    sockets: list[socket.socket] = []
    try:
        for address in addresses.split(","):
            sockets.append(_listen_on(address.strip(), port))
    except OSError as exc:
        for listening in sockets:
            listening.close()
        if exc.errno == errno.EADDRINUSE:
            raise CannotStart(
                f"port {port} on {addresses} is in use by another program. Stop that one, or choose a free "
                "port with --port."
            ) from exc
        raise CannotStart(f"cannot listen on {addresses} port {port}: {exc}") from exc
    return sockets


def _listen_on(address: str, port: int) -> socket.socket:
    """A listening socket."""
    info = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    listening = socket.socket(info[0], info[1])
    try:
        if os.name == "posix":
            # Take the port although connections of a former server are still closing.
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        elif hasattr(socket, "SO_EXCLUSIVEADDRUSE"):
            # On Windows that flag would let two servers share the port; this one forbids it.
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        if info[0] == socket.AF_INET6:
            # Only IPv6, so that 0.0.0.0 and :: can both be listened on.
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind(info[4])
        listening.listen(_BACKLOG)
        listening.setblocking(False)
    except OSError:
        listening.close()
        raise
    return listening


def _read_certificate() -> ssl.SSLContext | None:
    """The certificate of ``--tls-keyfile`` and ``--tls-certfile``, None without them.

    Raises:
        CannotStart: one of the two files cannot be read, or is none.
    """
    if not (args.tls_keyfile and args.tls_certfile):
        return None
    import ssl

    context = ssl.SSLContext(protocol=ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certfile=args.tls_certfile, keyfile=args.tls_keyfile)
    except OSError as exc:
        raise CannotStart(
            f"--tls-keyfile {args.tls_keyfile} and --tls-certfile {args.tls_certfile} are no certificate in PEM format "
            f"and its key: {exc}"
        ) from exc
    return context


# -- folders and devices -------------------------------------------------------------------------------------


def _set_up_folders() -> None:
    """Lay out the folders of the command line, and empty the temp folder.

    Raises:
        CannotStart: a folder cannot be made, or a file of further folders cannot be read.
    """
    global _own_temp
    base = args.base_directory
    temp = os.path.join(os.path.abspath(args.temp_directory), "temp") if args.temp_directory else None
    try:
        if base is None:
            # Prompts and pictures are nobody else's business.
            base = arguments.default_base_directory()
            os.makedirs(base, mode=0o700, exist_ok=True)
        folder_paths.configure(
            base,
            models_directory=args.models_directory,
            output_directory=args.output_directory,
            input_directory=args.input_directory,
            temp_directory=temp,
            user_directory=args.user_directory,
        )
        _own_temp = folder_paths.get_temp_directory()
        _remove_temp()
        os.makedirs(folder_paths.get_temp_directory(), exist_ok=True)
        for file in itertools.chain(*(args.extra_model_paths_config or ())):
            packs.load_extra_paths(file)
    except (OSError, RuntimeError, ValueError) as exc:
        raise CannotStart(str(exc)) from exc
    logger.info("Base directory: %s", folder_paths.base_path)


# The temp folder of this server, None until the command line's folders have been laid out: what
# folder_paths says before that is a folder of somebody else.
_own_temp: str | None = None


def _remove_temp() -> None:
    """Remove the temp folder, as ComfyUI does at its start and at its end."""
    if _own_temp is not None:
        shutil.rmtree(_own_temp, ignore_errors=True)


def _set_up_devices() -> None:
    """Choose GPUs by the environment, which torch reads when it is imported."""
    chosen: str | None = None
    if args.default_device is not None:
        others = [str(index) for index in range(32) if index != args.default_device]
        chosen = ",".join([str(args.default_device), *others])
    if args.cuda_device == "all":
        chosen = None
    elif args.cuda_device is not None:
        chosen = str(args.cuda_device)
    if chosen is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = os.environ["HIP_VISIBLE_DEVICES"] = chosen
    if args.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def _open_browser(server: PromptServer) -> None:
    """Open the editor."""
    import webbrowser

    scheme = "https" if args.tls_keyfile and args.tls_certfile else "http"
    # What listens everywhere is opened here.
    address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(str(server.address), str(server.address))  # noqa: S104
    shown = f"[{address}]" if ":" in address else address
    webbrowser.open(f"{scheme}://{shown}:{server.port}")
