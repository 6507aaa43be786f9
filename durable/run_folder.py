"""The folder of a run: its manifest, its journal and its objects. The only place that writes them.

::

    manifest.json     what the run is: plan, inputs, seeds; written once
    run.jsonl         the journal: what happened, a line each, never changed
    run.lock          held by the process that writes
    objects/          values, by their content: sealed objects with checksums (object_store/object_files.py)
    prompts/          the prompts of the workflows, by their SHA-256; the journal has what each step changed in them
    workflows/        the workflows that they come from, as the editor saved them
    outputs/          collected pictures and texts, for people
    thumbnails/       small pictures for the report
    report.html

The rules that make it survive any death:

* A line of the journal begins with the CRC-32 of the rest of it. What a crash cut off at its end is not there.
* A line is written after the objects that it names are on the disk, names included; and it is on the disk itself before
  anybody hears of the step. So what the journal says is so, and a step whose line is missing has not happened.
* An object that no line needs any more is removed after the line that says so is on the disk. What a crash left between
  the two is removed when the folder is opened next.
* manifest.json and what has a name of its own are written beside and moved into place.

All methods block; a checkpoint calls them in threads, one at a time.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..object_store import (
    Folder,
    HeldObject,
    StoreCorrupt,
    StoreInsecure,
    UntrustedError,
    load_object,
    load_plain_object,
    read_object,
    write_object,
)
from ..object_store.files import CREATE, IS_WINDOWS, NOFOLLOW, Lock
from .secrets import blotted

if TYPE_CHECKING:
    from ..workflow_context import WorkflowContext

log = logging.getLogger("discomfort.durable")

Json = dict[str, Any]

#: the version of the format that this program writes; it reads this one and older ones
SCHEMA_VERSION = 1
SCHEMA = "discomfort.run"

MANIFEST = "manifest.json"
JOURNAL = "run.jsonl"
LOCK = "run.lock"
# Values up to so many bytes that JSON can hold exactly stand in the journal itself.
_INLINE_LIMIT = 4096
_FOLDERS = ("objects", "prompts", "workflows", "outputs", "thumbnails")


class RunFolderError(RuntimeError):
    """A run's folder cannot be used: what is in it, who uses it, or the disk."""


class RunChangedError(RunFolderError, ValueError):
    """The folder holds another run than the one that was asked for; ``differences`` names what differs."""

    def __init__(self, message: str, differences: Sequence[str] = ()):
        self.differences = list(differences)
        super().__init__(message)


def object_name(digest: str) -> str:
    """The file in objects/ of the content that a digest names."""
    return digest.replace(":", "-").replace("/", "-") + ".obj"


def canonical(value: Any) -> bytes:
    """JSON data as bytes that are the same wherever it is the same."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")


def sha256(value: Any) -> str:
    """The SHA-256 of JSON data, in hex."""
    return hashlib.sha256(canonical(value)).hexdigest()


def is_plain(value: Any) -> bool:
    """Whether JSON holds a value exactly: texts, finite numbers, None, lists of them, dicts of them by texts."""
    kind = type(value)
    if value is None or kind in (bool, str, int):
        return True
    if kind is float:
        return math.isfinite(value)
    if kind is list:
        return all(map(is_plain, value))
    return kind is dict and all(type(key) is str and is_plain(one) for key, one in value.items())


def finite(value: Any) -> Any:
    """JSON data in which numbers that JSON does not have are texts."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): finite(one) for key, one in value.items()}
    return [finite(one) for one in value] if isinstance(value, (list, tuple)) else value


# ----------------------------------------------------------------------------------------------------------- reading


def to_line(entry: Mapping[str, Any], secrets: Iterable[str] = ()) -> bytes:
    """A journal entry as its line, which begins with the checksum of the rest."""
    body = blotted(json.dumps(finite(entry), separators=(",", ":")), secrets)
    return f'{{"crc":"{zlib.crc32(body.encode()):08x}",{body[1:]}\n'.encode()


def from_line(line: bytes) -> Json | None:
    """The entry of a line; None where it is not what was written."""
    if not (line.startswith(b'{"crc":"') and line[16:18] == b'",' and line.endswith(b"}\n")):
        return None
    body = b"{" + line[18:-1]
    try:
        if int(line[8:16], 16) != zlib.crc32(body):
            return None
        entry = json.loads(body)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


class RunRecordFolder:
    """A run's folder, read. Holds the journal's entries; values are loaded when they are asked for.

    Attributes:
        path: the folder.
        manifest: see docs/reference/run-record.md.
        entries: the journal, a list of dicts.
        damage: where the journal is damaged in the middle: (number of the first bad line, from 1; bytes before it).
    """

    def __init__(self, path: Path, folder: Folder, is_new: bool = False):
        self.path = path
        self._folder = folder
        self.manifest = {} if is_new else self._read_manifest()
        self.entries: list[Json] = []
        self.damage: tuple[int, int] | None = None
        # Bytes of the journal that are whole.
        self.journal_length = 0
        self._read_journal()

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> RunRecordFolder:
        """Read the folder of a run.

        Raises:
            FileNotFoundError: there is no run in it. RunFolderError: what is in it cannot be read.
        """
        return cls(Path(path), open_folder(Path(path)))

    @staticmethod
    def holds_run(path: str | os.PathLike[str]) -> bool:
        """Whether there is a run in this folder."""
        return (Path(path) / MANIFEST).is_file()

    def _read_manifest(self) -> Json:
        file = self.path / MANIFEST
        try:
            manifest = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise FileNotFoundError(
                f"There is no run in {self.path} (no {MANIFEST}). A run's folder is what was given as checkpoint=."
            ) from None
        except (ValueError, OSError) as e:
            raise RunFolderError(f"{file} cannot be read: {e}") from e
        version = manifest.get("version") if isinstance(manifest, dict) else None
        if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA or not isinstance(version, int):
            raise RunFolderError(f"{file} is not the manifest of a run (its schema is not {SCHEMA!r}).")
        if version > SCHEMA_VERSION:
            raise RunFolderError(
                f"{file} was written by a newer version of Discomfort (schema version {version}; this one reads up to "
                f"{SCHEMA_VERSION}). Update this one: it has version {manifest.get('discomfort', '?')} in its manifest."
            )
        return manifest

    def _read_journal(self) -> None:
        try:
            content = (self.path / JOURNAL).read_bytes()
        except FileNotFoundError:
            return
        except OSError as e:
            raise RunFolderError(f"{self.path / JOURNAL} cannot be read: {e}") from e
        lines = content.splitlines(keepends=True)
        for number, line in enumerate(lines, start=1):
            entry = from_line(line)
            if entry is None:
                # At the end it is what a crash cut off: never believed, never missed.
                if number < len(lines):
                    self.damage = (number, self.journal_length)
                return
            self.entries.append(entry)
            self.journal_length += len(line)

    def check_whole(self) -> None:
        """Refuse a journal that is damaged in its middle.

        Raises:
            RunFolderError: with the number of the line.
        """
        if self.damage is not None:
            raise RunFolderError(
                f"{self.path / JOURNAL} is damaged in line {self.damage[0]}. What stands before it is whole: "
                "resume='force' goes on from there; resume=False begins anew and moves this record aside."
            )

    # -- prompts and values --

    def prompt(self, digest: str) -> Json:
        """The prompt of a workflow, by its SHA-256.

        Raises:
            RunFolderError: it is not there or not what was written.
        """
        file = self.path / "prompts" / f"{digest}.json"
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as e:
            raise RunFolderError(f"{file} cannot be read: {e}") from e
        if not isinstance(found, dict) or sha256(found) != digest:
            raise RunFolderError(f"{file} is not what was written: its content does not have the SHA-256 of its name.")
        return found

    def step_prompt(self, step: Mapping[str, Any]) -> Json:
        """The exact prompt that a step ran (but for secrets): its workflow's, with what the step changed."""
        prompt = dict(self.prompt(step["prompt"]))
        for node_id, node in step.get("changes", {}).items():
            if node is None:
                prompt.pop(node_id, None)
            else:
                prompt[node_id] = node
        return prompt

    def has_value(self, noted: Mapping[str, Any]) -> bool:
        """Whether a value that was noted can be loaded: it stands in the note, or its object is (still) there."""
        return "value" in noted or ("object" in noted and self._file_of(noted).is_file())

    def _file_of(self, noted: Mapping[str, Any]) -> Path:
        return self.path / "objects" / object_name(str(noted["digest"]))

    def held(self, noted: Mapping[str, Any]) -> HeldObject:
        """The object of a value that was noted.

        Raises:
            FileNotFoundError: it is not kept (any more). RunFolderError: it is damaged, or could be somebody else's.
        """
        name = object_name(str(noted["digest"]))
        try:
            found = read_object(open_folder(self.path / "objects"), name)
        except FileNotFoundError:
            raise FileNotFoundError(
                f"{self.path / 'objects' / name} is not there (values of earlier iterations are dropped unless they "
                "are collected, or the run was made with keep='all')"
            ) from None
        except StoreCorrupt as e:
            raise RunFolderError(
                f"{e}. Remove that file: resume='force' then goes back to where it is not needed."
            ) from e
        except StoreInsecure as e:
            raise RunFolderError(str(e)) from e
        if found.content_id != noted["digest"]:
            raise RunFolderError(f"{self.path / 'objects' / name} holds another value than its name says.")
        return found

    def value(self, noted: Mapping[str, Any], trust: bool = False) -> Any:
        """A value that was noted, loaded.

        Args:
            trust: unpickle whatever it is, because this user's own run wrote it; else plain data, tensors and arrays.

        Raises:
            FileNotFoundError, RunFolderError: as ``held``; it names what is not plain data.
        """
        if "value" in noted:
            return noted["value"]
        found = self.held(noted)
        try:
            return load_object(found) if trust else load_plain_object(found)
        except UntrustedError as e:
            raise RunFolderError(str(e)) from e


def open_folder(path: Path) -> Folder:
    """Open a folder that only this user can write to. Others may read it: that is the user's decision.

    Raises:
        FileNotFoundError, RunFolderError.
    """
    if IS_WINDOWS:
        return Folder.open_private(str(path))
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except NotADirectoryError:
        raise RunFolderError(f"{path} is a file; a run's folder is a folder.") from None
    folder = Folder(str(path), fd)
    status = os.fstat(fd)
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise RunFolderError(
            f"{path} could have been written by another user (it belongs to user {status.st_uid}, mode "
            f"{status.st_mode & 0o7777:04o}); nothing in it is loaded. If it is yours: chmod 700 {path}"
        )
    return folder


# ----------------------------------------------------------------------------------------------------------- writing


class RunFolder(RunRecordFolder):
    """A run's folder, written by this process alone. ``entries`` are those that were there when it was opened.

    Which objects are kept: those that the run's *state* needs (the present value of each name, and, while an iteration
    may still be undone, the values it began with), and those that are *pinned* (inputs, collected ones).
    """

    def __init__(self, path: Path, folder: Folder, lock: Lock, is_new: bool = False):
        super().__init__(path, folder, is_new)
        self._lock = lock
        #: texts that no line may hold
        self.secrets: set[str] = set()
        self._objects = folder_in(folder, "objects")
        self._journal: int | None = None
        # Names of objects that are never dropped, and those on disk.
        self._pinned: set[str] = set()
        self._on_disk: set[str] = {name for name in self._objects.names() if name.endswith(".obj")}
        #: bytes written to objects/ and the journal, and seconds that it took, by this process
        self.bytes_written, self.seconds = 0, 0.0

    @classmethod
    def create(cls, path: str | os.PathLike[str]) -> RunFolder:
        """Make the folder of a new run, or take an empty one. There is a run in it from :meth:`write_manifest` on.

        Raises:
            RunFolderError: another process uses it, it holds something else, or the disk refuses.
        """
        target = Path(path)
        folder, lock = cls._take(target)
        try:
            foreign = sorted(
                n for n in os.listdir(target) if n not in (LOCK, "earlier", *_FOLDERS) and n[-4:] != ".tmp"
            )
            if foreign:
                raise RunFolderError(
                    f"{target} holds {', '.join(foreign[:3])}{' and more' if len(foreign) > 3 else ''}, and no run. "
                    "Name a folder of its own for the run; it is made where it does not exist."
                )
            for name in _FOLDERS:
                folder_in(folder, name)
            return cls(target, folder, lock, is_new=True)
        except OSError as e:
            lock.release()
            raise RunFolderError(f"The run's folder {target} cannot be used: {e}") from e
        except BaseException:
            lock.release()
            raise

    @classmethod
    def open_for_writing(cls, path: str | os.PathLike[str]) -> RunFolder:
        """Open the folder of a run that is to go on.

        Raises:
            FileNotFoundError: there is no run in it. RunFolderError: another process uses it, or it cannot be read.
        """
        target = Path(path)
        if not cls.holds_run(target):
            raise FileNotFoundError(f"There is no run in {target} (no {MANIFEST}).")
        folder, lock = cls._take(target)
        try:
            return cls(target, folder, lock)
        except BaseException:
            lock.release()
            raise

    @staticmethod
    def _take(target: Path) -> tuple[Folder, Lock]:
        """Make the folder where there is none, and lock it."""
        try:
            target.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder = open_folder(target)
            fd = folder.open(LOCK, os.O_RDWR | os.O_CREAT | NOFOLLOW)
        except FileExistsError:
            raise RunFolderError(f"{target} is a file; checkpoint= names a folder.") from None
        except OSError as e:
            raise RunFolderError(f"The run's folder {target} cannot be used: {e}") from e
        lock = Lock(fd)
        if not lock.acquire(wait=False):
            owner = os.pread(fd, 100, 0).decode(errors="replace").strip() if not IS_WINDOWS else ""
            raise RunFolderError(
                f"The run in {target} is being written by another process{f' ({owner})' if owner else ''}. Wait for "
                "it, stop it, or give this run a folder of its own."
            )
        os.ftruncate(fd, 0)
        os.write(fd, f"pid {os.getpid()}".encode())
        return folder, lock

    def close(self) -> None:
        """Let go of the folder. Idempotent."""
        fd, self._journal = self._journal, None
        if fd is not None:
            os.close(fd)
        self._lock.release()

    # -- the journal --

    def append(self, entry: Mapping[str, Any], durable: bool = True) -> None:
        """Add a line to the journal.

        Args:
            durable: whether it is on the disk when this returns; else with the next one that is.

        Raises:
            RunFolderError: the disk refuses.
        """
        started = time.perf_counter()
        content = to_line({"t": round(time.time(), 3), **entry}, self.secrets)
        try:
            if self._journal is None:
                self._journal = self._open_journal()
            # One call, so that another thread's line never stands in the middle of it.
            view = memoryview(content)
            while view:
                view = view[os.write(self._journal, view) :]
            if durable:
                os.fsync(self._journal)
        except OSError as e:
            raise self._refused(e) from e
        self.journal_length += len(content)
        self.bytes_written += len(content)
        self.seconds += time.perf_counter() - started

    def _open_journal(self) -> int:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | NOFOLLOW | getattr(os, "O_BINARY", 0)
        fd = self._folder.open(JOURNAL, flags)
        try:
            if os.fstat(fd).st_size != self.journal_length:
                os.ftruncate(fd, self.journal_length)  # what a crash cut off
            self._folder.sync()
        except BaseException:
            os.close(fd)
            raise
        return fd

    def cut(self, count: int) -> None:
        """Keep the first *count* entries of the journal; a copy of the whole is put aside (run.jsonl.<time>)."""
        lines = (self.path / JOURNAL).read_bytes().splitlines(keepends=True)
        if count >= len(lines):
            return
        kept = b"".join(lines[:count])
        aside = f"{JOURNAL}.{time.strftime('%Y%m%d-%H%M%S')}"
        write_file(self._folder, aside, (self.path / JOURNAL).read_bytes())
        write_file(self._folder, JOURNAL, kept)
        fd, self._journal = self._journal, None
        if fd is not None:
            os.close(fd)
        self.entries = self.entries[:count]
        self.journal_length, self.damage = len(kept), None

    # -- what has a name --

    def keep_json(self, kind: str, content: Any) -> str:
        """Store JSON data in prompts/ or workflows/ under its SHA-256, which is returned."""
        name = sha256(content)
        self.keep_file(kind, f"{name}.json", canonical(content))
        return name

    def keep_file(self, kind: str, name: str, content: bytes, replace: bool = False) -> Path:
        """Write a file into one of the folders, safely; one that is there stays unless it is to be replaced."""
        target = self.path / kind / name
        if replace or not target.exists():
            try:
                write_file(folder_in(self._folder, kind), name, content)
            except OSError as e:
                raise self._refused(e) from e
        return target

    def thumbnails(self) -> list[str]:
        """The names in thumbnails/, oldest first."""
        files = [file for file in (self.path / "thumbnails").iterdir() if file.suffix == ".jpg"]
        return [file.name for file in sorted(files, key=lambda file: file.stat().st_mtime_ns)]

    def write_results(self, text: str) -> None:
        """Write results.csv, the table of a batch, without secrets that an error's text may hold."""
        write_file(self._folder, "results.csv", blotted(text, self.secrets).encode("utf-8", "replace"))

    def write_report(self, html: str) -> Path:
        """Write report.html."""
        write_file(self._folder, "report.html", html.encode("utf-8", "xmlcharrefreplace"))
        return self.path / "report.html"

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Write the manifest, after all that it names; an older one, of a run that now has changed, is put aside."""
        try:
            if self.manifest:
                aside = f"{MANIFEST}.{time.strftime('%Y%m%d-%H%M%S')}"
                write_file(self._folder, aside, (self.path / MANIFEST).read_bytes())
            self.manifest = {"schema": SCHEMA, "version": SCHEMA_VERSION, **manifest}
            text = blotted(json.dumps(finite(self.manifest), indent=1), self.secrets)
            write_file(self._folder, MANIFEST, text.encode())
        except OSError as e:
            raise self._refused(e) from e

    # -- values --

    def keep_values(self, context: WorkflowContext, names: Iterable[str]) -> dict[str, Json]:
        """Store values of a context, so that they are on the disk when this returns.

        Returns:
            {name: note}: ``digest`` always; ``value``, where JSON holds it exactly and it is small; else ``object``
            (bytes of its file), and ``dtype`` and ``shape`` of a tensor. For journal and manifest.

        Raises:
            RunFolderError: the disk refuses. KeyError: a name has no value.
        """
        started = time.perf_counter()
        notes, is_new = {}, False
        for name in names:
            note, held = note_of(context, name)
            if held is not None:
                is_new |= self._write_object(object_name(note["digest"]), held)
            notes[name] = note
        if is_new:
            self._sync_objects()
        self.seconds += time.perf_counter() - started
        return notes

    def keep_object(self, digest: str, held: HeldObject) -> int:
        """Store one object and never drop it; returns the bytes of the object. Raises as `keep_values`."""
        file = object_name(digest)
        self._pinned.add(file)
        if self._write_object(file, held):
            self._sync_objects()
        return held.header.total

    def _write_object(self, file: str, held: HeldObject) -> bool:
        """Write an object that is not there yet; returns whether it was written."""
        if file in self._on_disk:
            return False
        try:
            self.bytes_written += write_object(self._objects, file, held)
        except OSError as e:
            raise self._refused(e) from e
        self._on_disk.add(file)
        return True

    def _sync_objects(self) -> None:
        try:
            self._objects.sync()
        except OSError as e:
            # What was just written may not be found after a power cut: it is written again by whoever needs it next.
            self._on_disk.clear()
            raise self._refused(e) from e

    def make_durable(self, files: Sequence[Path]) -> None:
        """See that files, which somebody has written, and their names are on the disk."""
        try:
            for file in files:
                fd = os.open(file, os.O_RDONLY)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)
            for parent in {file.parent for file in files}:
                open_folder(parent).sync()
        except OSError as e:
            raise self._refused(e) from e

    def pin(self, notes: Iterable[Mapping[str, Any]]) -> None:
        """Never drop the objects of these notes."""
        self._pinned.update(object_name(str(note["digest"])) for note in notes if "object" in note)

    def drop_unused(self, *states: Mapping[str, Mapping[str, Any]]) -> None:
        """Remove the objects that neither these states nor pins need."""
        needed = {object_name(str(note["digest"])) for state in states for note in state.values() if "object" in note}
        for name in self._on_disk - needed - self._pinned:
            self._on_disk.discard(name)
            try:
                self._objects.discard(name)
            except OSError as e:
                log.warning("%s could not be removed from %s: %s", name, self._objects.path, e)

    def remove_leftovers(self) -> None:
        """Remove what a killed writer left half written, anywhere in the folder."""
        for name in self._objects.names():
            if not name.endswith(".obj"):
                self._objects.discard(name)
        places = [self.path, *(self.path / name for name in _FOLDERS)]
        # Pictures are written under hidden names first (image_files).
        left = [file for place in places for file in place.glob("*.tmp")] + [*self.path.glob("outputs/*/.*")]
        for file in left:
            file.unlink(missing_ok=True)

    def report_is_current(self) -> bool:
        """Whether report.html was written after the journal's last line."""
        try:
            report, journal = (self.path / "report.html").stat(), (self.path / JOURNAL).stat()
        except FileNotFoundError:
            return False
        return report.st_mtime_ns >= journal.st_mtime_ns

    def _refused(self, error: OSError) -> RunFolderError:
        return RunFolderError(
            f"The run cannot be kept in {self.path}: {error}. Everything up to the last recorded step is safe there; "
            "make room (or let checkpoint= name a larger disk) and call run() again."
        )


def folder_in(parent: Folder, name: str) -> Folder:
    """Open a folder in a run's folder; it is made where it does not exist."""
    if not parent.exists(name):
        os.mkdir(os.path.join(parent.path, name), 0o700)
        parent.sync()
    return open_folder(Path(parent.path) / name)


def write_file(folder: Folder, name: str, content: bytes) -> None:
    """Write a file that is whole or not there, and on the disk when this returns."""
    temp = f"{name}.{os.getpid()}.tmp"  # report.html may be written by two processes
    folder.discard(temp)
    fd = folder.open(temp, CREATE)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        folder.replace(temp, folder, name)
    except BaseException:
        folder.discard(temp)
        raise
    folder.sync()


def move_aside(path: str | os.PathLike[str]) -> Path | None:
    """Move the run in a folder into earlier/<time> in it, to make place for a new one; returns where it went.

    Raises:
        RunFolderError: another process writes it.
    """
    target = Path(path)
    if not RunRecordFolder.holds_run(target):
        return None
    folder, lock = RunFolder._take(target)
    try:
        earlier = folder_in(folder, "earlier")
        stamp = time.strftime("%Y%m%d-%H%M%S")
        number = next(n for n in range(1, 10_000) if not earlier.exists(f"{stamp}-{n}"))
        place = folder_in(earlier, f"{stamp}-{number}")
        # The manifest last: until it has gone, the folder still holds the run.
        names = sorted((n for n in os.listdir(target) if n not in (LOCK, "earlier")), key=lambda n: n == MANIFEST)
        for name in names:
            os.rename(target / name, Path(place.path) / name)
        folder.sync()
        return Path(place.path)
    finally:
        lock.release()


def note_of(context: WorkflowContext, name: str) -> tuple[Json, HeldObject | None]:
    """(what a journal says of a value, its object); no object where the note holds the value itself.

    Raises:
        KeyError: there is no such value.
    """
    held = context.hold(name)
    note: Json = {"digest": held.content_id}
    is_special = bool(held.header.flags)
    if not is_special and held.header.data_length <= _INLINE_LIMIT:
        value = _load_quietly(held)
        if value is not _UNLOADABLE and is_plain(value):
            return {**note, "value": value}, None
    note["object"] = held.header.total
    note.update(_shape_of(held))
    return note, held


_UNLOADABLE = object()


def _load_quietly(held: HeldObject) -> Any:
    try:
        return load_object(held)
    except Exception:  # whatever this process lacks; the object is stored all the same
        return _UNLOADABLE


def _shape_of(held: HeldObject) -> Json:
    """``dtype`` and ``shape`` where the value is a tensor or holds one under "samples"."""
    value = _load_quietly(held)
    if isinstance(value, dict) and hasattr(value.get("samples"), "shape"):
        value = value["samples"]
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return {"dtype": str(value.dtype).removeprefix("torch."), "shape": [int(n) for n in value.shape]}
    return {}


def restore_value(
    folder: RunRecordFolder, context: WorkflowContext, name: str, note: Mapping[str, Any], use_ram: bool = True
) -> None:
    """Put a value that was noted into a context, exactly as it was.

    Raises:
        FileNotFoundError, RunFolderError: it is not there, or damaged.
    """
    if "value" not in note:
        context.adopt(name, folder.held(note), use_ram)
        return
    context.save(name, note["value"], use_ram=use_ram)
    held = context.hold(name)
    if held.content_id == note["digest"]:
        return
    # A server without xxhash digests otherwise. What was recorded names the content all the same: recipes and the
    # server's cache know it by that.
    again = held.with_digest(str(note["digest"]))
    if again is None:
        raise RunFolderError(
            f"The value of {name!r} in {folder.path} is not what was recorded: its digest is {held.content_id}, not "
            f"{note['digest']}."
        )
    context.adopt(name, again, use_ram)


def iter_steps(entries: Iterable[Json]) -> Iterator[Json]:
    """The finished steps of a journal, in order."""
    return (entry for entry in entries if entry.get("kind") == "step")
