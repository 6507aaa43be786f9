"""The folder of a batch: items by their names, and the files that they became.

A batch is kept item by item: what an item delivered is written into files that people can use (pictures as PNG, texts),
numbers into the journal, and everything else as an object; then the item's line says that it is done. An item whose
source has changed since, or whose files have gone, is not done.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..image_files import open_image_as_tensor, save_comfy_image_to_disk
from . import thumbnails
from .kept_run import KeptRun
from .run_folder import RunFolder, RunFolderError, RunRecordFolder, is_plain, note_of, object_name, sha256
from .secrets import is_secret_name

if TYPE_CHECKING:
    from ..run_record import StepRecord
    from ..workflow_context import WorkflowContext

log = logging.getLogger("discomfort.durable")

Json = dict[str, Any]

_PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".exr", ".avif", ".heic")


def source_note(value: Any) -> Json:
    """What an item's source looks like, so that one that has changed is not taken for the same: size and time of files,
    a digest of plain data. {} where that cannot be told.
    """
    if isinstance(value, os.PathLike):
        try:
            status = os.stat(value)
        except OSError:
            return {}
        return {"size": status.st_size, "modified": round(status.st_mtime, 3)}
    if isinstance(value, Mapping):
        notes = {str(name): source_note(one) for name, one in value.items() if not is_secret_name(name)}
        return {"parts": notes} if any(notes.values()) else {}
    return {"sha256": sha256(value)} if is_plain(value) else {}


class BatchFolder(KeptRun):
    """What a batch writes. Made of an opened folder; all of its items' runs share it.

    Steps are noted without their values: an item is the unit that is done or not.
    """

    def __init__(self, folder: RunFolder, context: WorkflowContext, describe: Callable[[], Awaitable[Json]]):
        super().__init__(folder, context, describe)
        # {key: the last line about the item}
        self.items: dict[str, Json] = {}
        # What was collected of items is never dropped.
        for entry in folder.entries:
            if entry.get("kind") == "iteration" and "item" in entry:
                self.items[entry["item"]] = entry
        #: the number that the next new item gets
        self.next_number = 1 + max((entry["iteration"] for entry in self.items.values()), default=-1)
        folder.entries = []
        #: how many items there are; None where that is not known
        self.total: int | None = None
        # {file stem: key}: two keys may look the same as a file's name
        self._stems: dict[str, str] = {entry["stem"]: key for key, entry in self.items.items() if "stem" in entry}

    # ---- what is done ----

    def number_of(self, key: str) -> int:
        """The item's number: that of the record, or the next one."""
        if key in self.items:
            return int(self.items[key]["iteration"])
        number, self.next_number = self.next_number, self.next_number + 1
        return number

    def done(self, key: str, source: Json) -> Json | None:
        """The line of an item that is done and whose files are there; None where it has to be run."""
        entry = self.items.get(key)
        if entry is None or entry.get("state") != "done" or entry.get("source", {}) != source:
            return None
        files = [name for names in entry.get("files", {}).values() for name in names]
        missing = [name for name in files if not (self.folder.path / name).is_file()]
        missing += [n for n, note in entry["collected"].items() if "object" in note and not self.folder.has_value(note)]
        if missing:
            log.warning("The item %r was done, but %s is gone: it is run again", key, ", ".join(missing))
            return None
        return entry

    def failed(self, key: str, source: Json) -> Json | None:
        """The line of an item that failed, if its source is the same."""
        entry = self.items.get(key)
        is_failed = entry is not None and entry.get("state") == "skipped" and entry.get("source", {}) == source
        return entry if is_failed else None

    # ---- writing ----

    async def live(self) -> None:
        await self._begin_session(steps=0, total=self.total)

    async def note_input(self, path: tuple[int, ...], name: str, sequence: bool, file: Json | None = None) -> None:
        """As for any run; *file*: what the value was read from (source_files.file_note)."""
        note: Json = {"secret": True} if self._learn_secret(name) else {"digest": self._context.digest(name)}
        value = self._context.load(name) if "digest" in note else None
        if "digest" in note and is_plain(value) and len(repr(value)) <= 4096:
            note["value"] = value
        elif "digest" in note and file is not None:
            note["file"] = file
        await self._in_thread(
            self.folder.append, {"kind": "input", "path": list(path), "name": name, "value": note}, False
        )

    async def note_edit(self, path: tuple[int, ...], name: str) -> None:
        await self.note_input(path, name, sequence=False)

    async def note_step(
        self, step: StepRecord, prompt: Mapping[str, Any], base: str, writes: Iterable[str], reads: Mapping[str, str]
    ) -> None:
        notes = {name: self._note_only(name) for name in writes}
        await self._in_thread(self.folder.append, self._step_entry(step, prompt, base, notes, reads), False)

    def _note_only(self, name: str) -> Json:
        """A note that promises no object."""
        if is_secret_name(name):
            return {"secret": True}
        note, _ = note_of(self._context, name)
        return {key: value for key, value in note.items() if key != "object"}

    async def finish(self, state: str, **fields: Any) -> None:
        if self._has_session:
            await self._in_thread(self.folder.append, {"kind": "end", "state": state, **fields})
        if not self.folder.report_is_current():
            await self._later(self._write_report)

    async def save_item(
        self, key: str, number: int, held: Mapping[str, Any], values: Mapping[str, Any], **fields: Any
    ) -> Json:
        """Write what an item delivered, and the line that says so; returns the line.

        Args:
            held: {name: object} of what it delivered.
            values: {name: value} of the same.
        """
        entry = dict(await self._in_thread(self._save_item, key, number, held, values, fields))
        pictures = {
            entry["collected"][n]["digest"]: found for n, v in values.items() if (found := _picture(n, v)) is not None
        }
        await self._show_pictures(pictures, number)
        if self._is_report_due():
            await self._later(self._write_report)
        return entry

    def _save_item(
        self, key: str, number: int, held: Mapping[str, Any], values: Mapping[str, Any], fields: Mapping[str, Any]
    ) -> Json:
        stem = self._stem_of(key)
        notes: dict[str, Json] = {}
        files: dict[str, list[str]] = {}
        for name, value in values.items():
            note: Json = {"digest": held[name].content_id}
            if is_secret_name(name):
                notes[name] = {"secret": True}
                continue
            if is_plain(value) and not held[name].header.flags and held[name].header.data_length <= 4096:
                note["value"] = value
            picture = _as_picture(value)
            if picture is not None:
                place = self.folder.path / "outputs" / thumbnails.safe_name(name) / f"{stem}.png"
                written = save_comfy_image_to_disk(picture, place)
                note.update(dtype=str(value.dtype).removeprefix("torch."), shape=[int(n) for n in value.shape])
            elif isinstance(value, str):
                place = self.folder.path / "outputs" / thumbnails.safe_name(name) / f"{stem}.txt"
                place.parent.mkdir(mode=0o700, exist_ok=True)
                place.write_text(value, encoding="utf-8", errors="surrogatepass", newline="")
                written = [place]
            else:
                written = []
                if "value" not in note:
                    note["object"] = self.folder.keep_object(note["digest"], held[name])
            if written:
                self.folder.make_durable(written)
                files[name] = [str(file.relative_to(self.folder.path)) for file in written]
            notes[name] = note
        entry = {
            "kind": "iteration", "iteration": number, "item": key, "state": "done", "stem": stem,
            "collected": notes, "files": files, **fields,
        }  # fmt: skip
        self.folder.append(entry)
        self.items[key] = entry
        return entry

    async def skip_item(self, key: str, number: int, **fields: Any) -> None:
        """Note an item that failed."""
        entry = {"kind": "iteration", "iteration": number, "item": key, "state": "skipped", "collected": {}, **fields}
        await self._in_thread(self.folder.append, entry)
        self.items[key] = entry

    def _stem_of(self, key: str) -> str:
        """A file's name for an item, without suffix; another one for each key, the same one each time."""
        if key in self.items and "stem" in self.items[key]:
            return str(self.items[key]["stem"])
        base = key[: -len(Path(key).suffix)] if key.lower().endswith(_PICTURE_SUFFIXES) else key
        wanted = thumbnails.safe_name(base)
        stem, number = wanted, 1
        while self._stems.get(stem.lower(), key) != key:
            number += 1
            stem = f"{wanted}-{number}"
        self._stems[stem.lower()] = key
        return stem


def load_item(folder: RunRecordFolder, entry: Mapping[str, Any]) -> dict[str, Any]:
    """What an item delivered, read from its files: pictures as they were saved, in 8 bits.

    Raises:
        RunFolderError, OSError, ValueError: a file is missing or damaged.
    """
    values: dict[str, Any] = {}
    for name, note in entry["collected"].items():
        files = entry.get("files", {}).get(name, [])
        if "value" in note:
            values[name] = note["value"]
        elif files and files[0].endswith(".txt"):
            content = (folder.path / files[0]).read_bytes()
            values[name] = content.decode("utf-8", "surrogatepass")
        elif files:
            values[name] = _load_pictures([folder.path / file for file in files], note.get("shape", ()))
        elif "object" in note:
            values[name] = folder.value(note, trust=True)
    return values


def _load_pictures(files: list[Path], shape: Any) -> Any:
    import torch

    pictures = torch.cat([open_image_as_tensor(file) for file in files])
    return pictures[..., 0] if len(shape) == 3 else pictures


def _picture(name: str, value: Any) -> Any:
    """What an output looks like as an IMAGE, for a thumbnail; None for secrets and for what is none."""
    return None if is_secret_name(name) else _as_picture(value)


def _as_picture(value: Any) -> Any:
    """An IMAGE [B,H,W,C], or a MASK [B,H,W] as one; None for anything else."""
    if not (hasattr(value, "detach") and hasattr(value, "is_floating_point") and value.is_floating_point()):
        return None
    if value.ndim == 4 and value.shape[-1] in (1, 3, 4) and 0 not in value.shape:
        return value
    if value.ndim == 3 and 0 not in value.shape:
        return value[..., None]
    return None


__all__ = ["BatchFolder", "RunFolderError", "load_item", "object_name", "source_note"]
