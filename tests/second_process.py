"""Another process with the same contexts: it runs functions that a test sends, and answers with what they return.

As a program (``python second_process.py``) it is that process; ``SecondProcess`` starts it and talks to it. Functions
and values travel by cloudpickle through its standard input and output.
"""

from __future__ import annotations

import io
import os
import pickle
import select
import struct
import subprocess
import sys
from collections.abc import Callable
from typing import Any, BinaryIO

import cloudpickle

_LENGTH = struct.Struct("<Q")


def _rebuild(data: bytes, dtype: str, offset: int, shape: tuple[int, ...], stride: tuple[int, ...]) -> Any:
    import torch

    storage = torch.frombuffer(bytearray(data), dtype=torch.uint8).untyped_storage() if data else torch.UntypedStorage()
    return torch.empty(0, dtype=getattr(torch, dtype)).set_(storage, offset, shape, stride)


class _Pickler(cloudpickle.Pickler):
    """PyTorch's own pickles do not know all dtypes, and store no tensor's strides exactly."""

    def reducer_override(self, obj: Any) -> Any:
        torch = sys.modules.get("torch")
        if torch is None or type(obj) is not torch.Tensor:
            return super().reducer_override(obj)
        data = torch.empty(0, dtype=torch.uint8).set_(obj.untyped_storage()).numpy().tobytes()
        return _rebuild, (data, str(obj.dtype)[6:], obj.storage_offset(), tuple(obj.shape), obj.stride())


def _dumps(message: Any) -> bytes:
    buffer = io.BytesIO()
    _Pickler(buffer, protocol=5).dump(message)
    return buffer.getvalue()


def _send(file: BinaryIO, data: bytes) -> None:
    file.write(_LENGTH.pack(len(data)) + data)
    file.flush()


def _receive(file: BinaryIO) -> Any:
    head = file.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    return pickle.loads(file.read(_LENGTH.unpack(head)[0]))


class SecondProcess:
    """A process that is told what to do; one that was killed is replaced at the next order.

    ``kept``, a dict, is the same in all functions that it runs: what they put there stays alive.
    """

    def __init__(self, environ: dict[str, str] | None = None) -> None:
        self._environ = environ or {}
        self._process: subprocess.Popen[bytes] | None = None
        # Whether it owes an answer.
        self._is_busy = False

    @property
    def pid(self) -> int:
        return self._running().pid

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            pipe = subprocess.PIPE
            environ = {**os.environ, **self._environ}
            command = [sys.executable, __file__]
            self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, cwd="/", env=environ)
        return self._process

    def begin(self, function: Callable[..., Any], *args: Any) -> None:
        """Let it run ``function(kept, *args)``, and do not wait. Exactly one ``end`` has to follow."""
        if self._is_busy:
            # A test that failed has not waited for its answer.
            self.kill()
        process = self._running()
        assert process.stdin is not None
        # Where runs are is read from the environment, which each test sets for itself.
        environ = {name: text for name, text in os.environ.items() if name.startswith("DISCOMFORT_")}
        message = _dumps((environ, function, args))
        self._is_busy = True
        _send(process.stdin, message)

    @property
    def has_answered(self) -> bool:
        """Whether ``end`` has something to return already (or the process has ended)."""
        process = self._running()
        assert process.stdout is not None
        return bool(select.select([process.stdout], [], [], 0)[0])

    def end(self) -> Any:
        """Return what the function returned, or raise what it raised."""
        process = self._running()
        assert process.stdout is not None
        is_error, result = _receive(process.stdout)
        self._is_busy = False
        if is_error:
            raise result
        return result

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        self.begin(function, *args)
        return self.end()

    def kill(self) -> None:
        """End it as ``kill -9`` does."""
        process, self._process, self._is_busy = self._process, None, False
        if process is not None:
            process.kill()
            process.communicate()

    def stop(self) -> None:
        """Let it end by itself, as a process does whose work is done."""
        if self._is_busy:
            self.kill()
        process, self._process = self._process, None
        if process is not None:
            process.communicate(timeout=60)
            assert process.returncode == 0


def main() -> None:
    # What anybody prints must not get among the answers.
    source, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    kept: dict[str, Any] = {}
    while True:
        try:
            environ, function, args = _receive(source)
        except EOFError:
            return
        for name in [name for name in os.environ if name.startswith("DISCOMFORT_")]:
            del os.environ[name]
        os.environ.update(environ)
        try:
            answer = _dumps((False, function(kept, *args)))
        except BaseException as exc:
            answer = _dumps((True, exc))
        # Before the other side knows: what the function had loaded is no longer used here.
        del function, args
        _send(answers, answer)


if __name__ == "__main__":
    main()
