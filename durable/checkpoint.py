"""A run that writes as it goes, and goes on where a killed one ended.

The orchestrator walks its plan from the beginning in any case. While the journal has what it meets (a condition's
result, a per-iteration input, a finished step, the end of an iteration) it takes that instead of doing it: nothing is
queued, no function of the caller is called, and values are only followed by their digests. Where the journal ends, the
values that are present then are put into the context, and the run goes on. So it continues in the middle of an
iteration, inside nested loops and branches, with the same seeds, whatever the plan looks like.

:class:`NoCheckpoint` is what a run without a folder has in its place.
"""

from __future__ import annotations

import collections
import logging
import os
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from . import thumbnails
from .compare import data_differences, listed
from .kept_run import Json, KeptRun, Path, secret_text
from .plan_text import plan_differences
from .run_folder import (
    RunChangedError,
    RunFolder,
    RunFolderError,
    RunRecordFolder,
    is_plain,
    move_aside,
    restore_value,
)
from .secrets import is_secret_name, without_secrets

if TYPE_CHECKING:
    from ..run_record import StepRecord
    from ..workflow_context import WorkflowContext

log = logging.getLogger("discomfort.durable")

#: which values stay on disk: those that going on needs, or all that ever were
KEEP = ("needed", "all")
#: what to do with a run that the folder holds already
RESUME = (True, "force", False)

# Kinds of entries that tell what the run did; the others tell of the circumstances.
_WALKED = frozenset({"condition", "input", "step", "iteration"})


class RecordedFailureError(Exception):
    """The journal says that this iteration was given up here; ``entry`` is its end."""

    def __init__(self, entry: Json):
        self.entry = entry
        super().__init__(f"iteration {entry.get('iteration')} was {entry.get('state')}")


class JournalCutError(Exception):
    """The journal was made shorter (``resume="force"``): the plan has to be walked again from its beginning, which
    costs nothing, as nothing was done yet.
    """


class Checkpoint(KeptRun):
    """The journal of a run, replayed and then written. Made by :meth:`begin`."""

    def __init__(
        self,
        folder: RunFolder,
        context: WorkflowContext,
        force: bool,
        keep: str,
        provide: Callable[[str, int], Awaitable[Any]],
        describe: Callable[[], Awaitable[Json]],
    ):
        super().__init__(folder, context, describe)
        self._force = force
        self._keeps_all = keep == "all"
        # Gives the value of a per-iteration input that is a sequence.
        self._provide = provide
        self._pending = collections.deque(
            (n, entry) for n, entry in enumerate(folder.entries) if entry.get("kind") in _WALKED
        )
        self._last_end = next((e for e in reversed(folder.entries) if e.get("kind") in ("end", "session")), None)
        # Needed to go back; of a run that only goes on, none of it is.
        self._entries = folder.entries if force else []
        folder.entries = []
        # {name: note} of the values now, when the iteration began, and of the names collected.
        self._state: dict[str, Json] = {k: v for k, v in folder.manifest["inputs"].items() if "secret" not in v}
        self._before: dict[str, Json] = dict(self._state)
        self._can_undo = False
        self._collected: dict[str, list[Json]] = {}
        folder.pin(folder.manifest["inputs"].values())
        self._is_restored = False
        # (iteration, name, note) of collected values without the file that they should have.
        self._missing_outputs: list[tuple[int, str, Json]] = []
        self.recalled_steps = 0

    # ---- beginning ----

    @classmethod
    def begin(
        cls,
        path: str | os.PathLike[str],
        resume: bool | str,
        keep: str,
        context: WorkflowContext,
        manifest: Json,
        inputs: Iterable[str],
        prompts: Mapping[str, Mapping[str, Any]],
        workflows: Iterable[Json],
        provide: Callable[[str, int], Awaitable[Any]],
        describe: Callable[[], Awaitable[Json]],
    ) -> Checkpoint:
        """Open a run's folder, see `open_run`, and read how far the run came; for *keep*, *provide* and *describe* see
        ``__init__``. Blocks; touches no server.
        """
        folder = open_run(path, resume, context, manifest, inputs, prompts, workflows)
        try:
            return cls(folder, context, resume == "force", keep, provide, describe)
        except BaseException:
            folder.close()
            raise

    # ---- recalling ----

    def recall(self, kind: str, path: Path, **same: Any) -> Json | None:
        self._take_edits()
        if not self._pending:
            return None
        number, entry = self._pending[0]
        is_given_up = entry["kind"] == "iteration" and entry.get("state") in ("skipped", "retried")
        if is_given_up and kind != "iteration" and entry["iteration"] == path[0]:
            self._pending.popleft()
            raise RecordedFailureError(entry)
        place = (entry["iteration"],) if entry["kind"] == "iteration" else tuple(entry["path"])
        if entry["kind"] != kind or place != path or any(entry.get(key) != value for key, value in same.items()):
            if not self._force:
                raise RunChangedError(
                    f"The record in {self.path} has {_entry_words(entry)} where the plan has "
                    f"{_words(kind, path, same)}. resume='force' continues from there, resume=False begins anew."
                )
            log.warning(
                "The record has %s where the plan has %s: it goes on from there",
                _entry_words(entry), _words(kind, path, same),
            )  # fmt: skip
            self._cut(number)
        self._pending.popleft()
        if kind == "input":
            self._set(entry["name"], entry["value"])
        elif kind == "step":
            self.recalled_steps += 1
            for name, note in entry["writes"].items():
                self._set(name, note)
        elif kind == "iteration":
            self._take_collected(entry)
            self._note_missing_outputs(entry)
        return entry

    def _take_edits(self) -> None:
        """What somebody changed by hand is no part of the plan: it is followed wherever the journal has it."""
        while self._pending and self._pending[0][1].get("edited"):
            _, entry = self._pending.popleft()
            self._set_by_hand(entry["name"], entry["value"])

    def _set_by_hand(self, name: str, note: Json) -> None:
        self._set(name, note)
        if name not in self._held:
            self._before[name] = note

    def _note_missing_outputs(self, entry: Json) -> None:
        """A process that was killed may have recorded an iteration and not yet written its files for people."""
        for name, files in (entry.get("files") or {}).items():
            if name in entry["collected"] and not all((self.folder.path / file).exists() for file in files):
                self._missing_outputs.append((entry["iteration"], name, entry["collected"][name]))

    def _write_missing_outputs(self) -> None:
        missing, self._missing_outputs = self._missing_outputs, []
        for iteration, name, note in missing:
            value = self.folder.value(note, trust=True)
            pictures, texts = ({}, {name: value}) if isinstance(value, str) else ({name: value}, {})
            self._write_outputs(pictures, texts, iteration)

    def _set(self, name: str, note: Json) -> None:
        if "secret" in note:
            self._state.pop(name, None)  # known to the context alone
        else:
            self._state[name] = note

    def _take_collected(self, entry: Json) -> None:
        collected = entry.get("collected") or {}
        self.folder.pin(collected.values())
        for name, note in collected.items():
            self._collected.setdefault(name, []).append(note)

    async def restore(self) -> None:
        if self._is_restored:
            return
        self._is_restored = True
        self._take_edits()
        if self._pending:  # the plan is at its end and the journal is not
            entry = self._pending[0][1]
            if not self._force:
                raise RunChangedError(
                    f"The record in {self.path} goes on with {_entry_words(entry)}, where the plan is at its end. "
                    "resume='force' leaves that out, resume=False begins anew."
                )
            self._cut(self._pending[0][0])
        lost = [note for notes in self._collected.values() for note in notes if not self.folder.has_value(note)]
        if lost and self._force:
            self._cut(len(self._entries))
        if lost:
            raise RunFolderError(
                f"{len(lost)} of the collected values have gone from {self.path} (the first: {lost[0]['digest']}), so "
                "the run could not end as it should. resume='force' goes back to before the first of them; "
                "resume=False begins anew."
            )
        for name, note in self._state.items():
            if name in self._context and self._context.digest(name) == note["digest"]:
                continue
            await self._restore_one(name, note)
        if not self._keeps_all:
            await self._in_thread(self.folder.drop_unused, self._state, self._before if self._can_undo else {})
        if self._missing_outputs:
            await self._later(self._write_missing_outputs)

    async def _restore_one(self, name: str, note: Json) -> None:
        if "sequence" in note:
            self._context.save(name, await self._provide(name, note["sequence"]), use_ram=self.use_ram)
            if self._context.digest(name) != note["digest"]:
                raise RunChangedError(
                    f"The per-iteration input {name!r} has another value for iteration {note['sequence']} than the "
                    f"record in {self.path}. resume=False begins anew."
                )
            return
        try:
            await self._in_thread(restore_value, self.folder, self._context, name, note, self.use_ram)
        except FileNotFoundError as e:
            if self._force:
                self._cut(len(self._entries))
            raise RunFolderError(
                f"The value of {name!r} is missing, so the run cannot go on: {e}. resume='force' goes back to where "
                "all values are there; resume=False begins anew."
            ) from e

    def _cut(self, number: int) -> NoReturn:
        """Give up what the journal has from entry *number* on, and before it as far back as values are missing that the
        run would need.

        Raises:
            JournalCutError: always.
        """
        place = last_loadable(self.folder, self._entries[:number])
        log.warning("The run in %s goes on behind entry %d of %d of its record", self.path, place, len(self._entries))
        self.folder.cut(place)
        raise JournalCutError

    async def live(self) -> None:
        await self.restore()
        if not self._has_session and self.recalled_steps:
            log.info("%d finished steps are taken from %s", self.recalled_steps, self.path)
        await self._begin_session(steps=self.recalled_steps)

    # ---- undoing ----

    def begin_iteration(self, iteration: int, names: Iterable[str], can_undo: bool) -> None:
        self._before, self._can_undo = dict(self._state), can_undo
        self._held = dict.fromkeys(names) if can_undo else {}

    async def undo_iteration(self) -> None:
        changed, self._state = self._state, dict(self._before)
        if not self._is_restored:
            return
        for name in {*changed, *self._held}:
            note = self._state.get(name)
            if note is None:
                self._context.delete(name)
            elif name not in self._context or self._context.digest(name) != note["digest"]:
                await self._restore_one(name, note)

    # ---- noting ----

    async def note_input(self, path: Path, name: str, sequence: bool) -> None:
        note: Json
        if self._learn_secret(name):
            note = {"secret": True}
        elif sequence and not self._keeps_all:
            note = _note_without_object(self._context, name)
            if "value" not in note:
                note["sequence"] = path[0]
        else:
            note = (await self._in_thread(self.folder.keep_values, self._context, [name]))[name]
        if self._keeps_all:
            self.folder.pin([note])
        self._set(name, note)
        entry = {"kind": "input", "path": list(path), "name": name, "value": note}
        await self._in_thread(self.folder.append, entry, False)

    async def note_edit(self, path: Path, name: str) -> None:
        note = (await self._in_thread(self.folder.keep_values, self._context, [name]))[name]
        if self._keeps_all:
            self.folder.pin([note])
        self._set_by_hand(name, note)
        entry = {"kind": "input", "path": list(path), "name": name, "value": note, "edited": True}
        await self._in_thread(self.folder.append, entry)

    async def note_step(
        self, step: StepRecord, prompt: Mapping[str, Any], base: str, writes: Iterable[str], reads: Mapping[str, str]
    ) -> None:
        notes = await self._in_thread(self._commit_step, step, prompt, base, list(writes), reads)
        for name, note in notes.items():
            self._set(name, note)
        if not self._keeps_all:
            # Beside the next step: giving a hundred megabytes back takes a disk a while.
            before = dict(self._before) if self._can_undo else {}
            self._start(self.folder.drop_unused, dict(self._state), before)
        await self._show(notes, step.iteration[0])

    def _commit_step(
        self, step: StepRecord, prompt: Mapping[str, Any], base: str, writes: list[str], reads: Mapping[str, str]
    ) -> dict[str, Json]:
        """Values first, then the line that says so; runs in a thread."""
        notes = self.folder.keep_values(self._context, [name for name in writes if not is_secret_name(name)])
        notes.update({name: {"secret": True} for name in writes if name not in notes})
        if self._keeps_all:
            self.folder.pin(notes.values())
        self.folder.append(self._step_entry(step, prompt, base, notes, reads))
        return notes

    async def end_iteration(self, iteration: int, state: str, collect: Iterable[str] = (), **fields: Any) -> None:
        notes = {name: self._state[name] for name in collect if name in self._state}
        files = {name: found for name, note in notes.items() if (found := output_files(name, note, iteration))}
        entry = {
            "kind": "iteration", "iteration": iteration, "state": state, "collected": notes, "files": files, **fields,
        }  # fmt: skip
        self._take_collected(entry)
        # What is done is written with the next step; what was given up is nowhere else.
        await self._in_thread(self.folder.append, entry, state != "done")
        await self._show_collected(notes, iteration)
        if self._is_report_due():
            await self._later(self._write_report)

    def collected(self, name: str) -> list[Any]:
        try:
            return [self.folder.value(note, trust=True) for note in self._collected.get(name, [])]
        except FileNotFoundError as e:
            raise RunFolderError(f"A collected value of {name!r} is missing: {e}. resume=False begins anew.") from e

    async def finish(self, state: str, **fields: Any) -> None:
        if state == "finished" and not self._keeps_all:
            # What the last iteration began with is not needed any more.
            await self._in_thread(self.folder.drop_unused, self._state)
        if not self._has_session and state == "finished" and (self._last_end or {}).get("state") == state:
            # Nothing happened: it was finished already, but perhaps killed before it had written its report.
            if not self.folder.report_is_current():
                await self._later(self._write_report)
            return
        if not self._has_session and state != "finished":
            return  # it ended before it did anything
        await self._in_thread(self.folder.append, {"kind": "end", "state": state, **fields})
        await self._later(self._write_report)

    # ---- for people ----

    async def _show_collected(self, notes: Mapping[str, Json], iteration: int) -> None:
        pictures = {n: self._context.load(n) for n, note in notes.items() if thumbnails.is_picture(note)}
        texts = {n: note["value"] for n, note in notes.items() if isinstance(note.get("value"), str)}
        if pictures or texts:
            await self._later(self._write_outputs, pictures, texts, iteration)

    def _write_outputs(self, pictures: Mapping[str, Any], texts: Mapping[str, str], iteration: int) -> None:
        from ..image_files import save_comfy_image_to_disk

        for name, picture in pictures.items():
            place = self.folder.path / "outputs" / thumbnails.safe_name(name)
            save_comfy_image_to_disk(picture, place / f"iteration-{iteration:05d}.png")
        for name, text in texts.items():
            place = self.folder.path / "outputs" / thumbnails.safe_name(name)
            place.mkdir(mode=0o700, exist_ok=True)
            file = place / f"iteration-{iteration:05d}.txt"
            file.write_text(text, encoding="utf-8", errors="surrogatepass", newline="")


# ---------------------------------------------------------------------------------------------- opening a run's folder


def last_loadable(folder: RunRecordFolder, entries: Sequence[Json]) -> int:
    """How many of these entries of a journal there may be at most, so that all values that the run has behind them can
    be loaded. At least none: what it began with is always there.
    """
    state: dict[str, Json] = dict(folder.manifest["inputs"])
    before, iteration, found = dict(state), -1, 0
    missing = {name for name, note in state.items() if not _can_load(folder, note)}
    for number, entry in enumerate(entries, start=1):
        if entry.get("kind") not in _WALKED:
            continue
        if not all(_can_load(folder, note) for note in (entry.get("collected") or {}).values()):
            break
        here = entry["iteration"] if entry["kind"] == "iteration" else entry["path"][0]
        if here != iteration:
            before, iteration = dict(state), here
        changed: dict[str, Json] = {}
        if entry["kind"] == "input":
            changed = {entry["name"]: entry["value"]}
        elif entry["kind"] == "step":
            changed = entry["writes"]
        elif entry.get("state") in ("skipped", "retried"):
            state, changed = dict(before), before
            missing.clear()
        state.update(changed)
        missing -= changed.keys()
        missing |= {name for name, note in changed.items() if not _can_load(folder, note)}
        if not missing:
            found = number
    return found


def _can_load(folder: RunRecordFolder, note: Json) -> bool:
    return "sequence" in note or "secret" in note or folder.has_value(note)


def open_run(
    path: str | os.PathLike[str],
    resume: bool | str,
    context: WorkflowContext,
    manifest: Json,
    inputs: Iterable[str],
    prompts: Mapping[str, Mapping[str, Any]],
    workflows: Iterable[Json],
) -> RunFolder:
    """Open the folder of a run: a new one, or one that holds this run already. Blocks.

    Args:
        resume: True to go on with what the folder holds, if it is the same run; "force" to go on as far as it is;
            False to move it aside and begin anew.
        context: has the inputs' values already.
        manifest: ``kind``, ``plan`` and ``options`` (docs/reference/run-record.md).
        inputs: names of the values that the run begins with.
        prompts: {SHA-256 of it without its secrets: prompt} of the workflows.
        workflows: the editor's workflows, without secrets.

    Raises:
        RunChangedError: the folder holds another run; names what differs.
        RunFolderError: the folder cannot be used.
    """
    inputs = list(inputs)
    secrets = {text for prompt in prompts.values() for text in without_secrets(prompt)[1]}
    secrets |= {value for value in (secret_text(context, name) for name in inputs) if value}
    clean = {digest: without_secrets(prompt)[0] for digest, prompt in prompts.items()}
    if resume is False:
        earlier = move_aside(path)
        if earlier is not None:
            log.info("The run that was in %s is in %s now", path, earlier)
    is_new = not RunRecordFolder.holds_run(path)
    folder = RunFolder.create(path) if is_new else RunFolder.open_for_writing(path)
    try:
        folder.secrets |= secrets
        if is_new:
            _write_new(folder, context, manifest, inputs, clean, workflows)
        else:
            _check_same(folder, resume, context, manifest, inputs, clean)
        folder.remove_leftovers()
    except BaseException:
        folder.close()
        raise
    return folder


def _write_new(
    folder: RunFolder,
    context: WorkflowContext,
    manifest: Json,
    inputs: Iterable[str],
    prompts: Mapping[str, Mapping[str, Any]],
    workflows: Iterable[Json],
) -> None:
    """Write what the run begins with; the manifest, which makes it a run, last."""
    for prompt in prompts.values():
        folder.keep_json("prompts", prompt)
    for workflow in workflows:
        folder.keep_json("workflows", workflow)
    created: Json = {
        "run_id": uuid.uuid4().hex,
        "created": round(time.time(), 3),
        "python": sys.version.split()[0],
    }
    folder.write_manifest({**manifest, **created, "inputs": _keep_inputs(folder, context, inputs)})


def _keep_inputs(folder: RunFolder, context: WorkflowContext, inputs: Iterable[str]) -> dict[str, Json]:
    notes: dict[str, Json] = {name: {"secret": True} for name in inputs if is_secret_name(name)}
    return {**notes, **folder.keep_values(context, [name for name in inputs if name not in notes])}


def _check_same(
    folder: RunFolder,
    resume: bool | str,
    context: WorkflowContext,
    manifest: Json,
    inputs: Sequence[str],
    prompts: Mapping[str, Mapping[str, Any]],
) -> None:
    """Compare the recorded run with the one that was asked for.

    Raises:
        RunChangedError: they differ, and that was not allowed. RunFolderError: the journal is damaged.
    """
    if resume != "force":
        folder.check_whole()
    elif folder.damage is not None:
        place = last_loadable(folder, folder.entries)
        log.warning("The record in %s is damaged: it goes on behind its line %d", folder.path, place)
        folder.cut(place)
    old = folder.manifest
    if old.get("kind") != manifest["kind"]:
        raise RunChangedError(
            f"{folder.path} holds a {old.get('kind')} and this is a {manifest['kind']}: give it a folder of its own, "
            "or resume=False to move that record aside."
        )
    plan = dict(manifest["plan"])
    if plan.get("master_seed") is None:
        plan["master_seed"] = old["plan"].get("master_seed")
    found = plan_differences(old["plan"], plan, folder.prompt, lambda digest: dict(prompts[digest]))
    found += _input_differences(old["inputs"], context, inputs)
    if not found:
        return
    if resume != "force":
        raise RunChangedError(
            f"The run in {folder.path} is another one than this call asks for:\n{listed(found)}\nCall it as it was to "
            "continue behind its last finished step. resume='force' continues with the changes; resume=False moves "
            "that record aside and begins anew.",
            found,
        )
    log.warning("The run in %s goes on with changes:\n%s", folder.path, listed(found))
    for prompt in prompts.values():
        folder.keep_json("prompts", prompt)
    same: Json = {key: old[key] for key in ("run_id", "created", "python") if key in old}
    notes = _keep_inputs(folder, context, inputs)
    folder.write_manifest({**manifest, **same, "plan": plan, "inputs": notes, "changes": found})


# ---------------------------------------------------------------------------------------------------------- helpers


def check_checkpoint(checkpoint: Any, resume: Any, keep: Any) -> str | None:
    """The arguments ``checkpoint``, ``resume`` and ``keep`` of a run; returns the absolute path, None for none.

    Raises:
        TypeError, ValueError: naming argument, value and what is allowed.
    """
    if checkpoint is not None and not isinstance(checkpoint, (str, os.PathLike)):
        raise TypeError(f"checkpoint is {checkpoint!r}; it must be the path of a folder, or None.")
    if not any(resume is one or (isinstance(resume, str) and resume == one) for one in RESUME):
        raise ValueError(f"resume is {resume!r}; it must be True, False or 'force'.")
    if keep not in KEEP:
        raise ValueError(f"keep is {keep!r}; it must be 'needed' or 'all'.")
    if checkpoint is None:
        return None
    if not os.fspath(checkpoint):
        raise ValueError("checkpoint is empty; it must be the path of a folder, or None.")
    # The caller may change the current directory while the run goes on.
    return os.path.abspath(os.path.expanduser(os.fspath(checkpoint)))


def _note_without_object(context: WorkflowContext, name: str) -> Json:
    """A note of a value that need not be stored."""
    info = context.get_storage_info(name) or {}
    note: Json = {"digest": info["digest"]}
    if info["data_size"] <= 4096 and not info.get("is_list") and info["pass_by"] == "val":  # noqa: S105 (no password)
        value = context.load(name)
        if is_plain(value):
            note["value"] = value
    return note


def _input_differences(old: Mapping[str, Json], context: WorkflowContext, names: Iterable[str]) -> list[str]:
    """How the values that a run begins with differ from the recorded ones."""
    new: dict[str, Any] = {}
    for name in names:
        new[name] = {"secret": True} if is_secret_name(name) else {"digest": context.digest(name)}
        if "value" in old.get(name, {}) and "secret" not in new[name]:
            value = context.load(name)
            new[name] = {"value": value} if is_plain(value) else new[name]
            if new[name].get("value") == old[name]["value"] and context.digest(name) != old[name]["digest"]:
                new[name] = {"digest": context.digest(name)}  # 1 and 1.0, say
    found = []
    for name in sorted({*old, *new}):
        before, after = old.get(name), new.get(name)
        if before is None or after is None:
            found.append(f"inputs[{name!r}]: {'was not given' if before is None else 'is not given any more'}")
        elif "secret" not in before and "secret" not in after:
            key = "value" if "value" in before and "value" in after else "digest"
            found += data_differences(
                before[key], after.get(key), f"inputs[{name!r}]" + (" (digest)" * (key == "digest"))
            )
    return found


def output_files(name: str, note: Json, iteration: int) -> list[str]:
    """The files, in a run's folder, that a collected value is written into for people."""
    stem = f"outputs/{thumbnails.safe_name(name)}/iteration-{iteration:05d}"
    if isinstance(note.get("value"), str):
        return [f"{stem}.txt"]
    if not thumbnails.is_picture(note):
        return []
    count = note["shape"][0]
    return [f"{stem}.png"] if count == 1 else [f"{stem}_{number:05d}.png" for number in range(1, count + 1)]


def _words(kind: str, path: Sequence[int], same: Mapping[str, Any]) -> str:
    what = {
        "step": "the step",
        "input": "the input",
        "condition": "the condition of a",
        "iteration": "the end of iteration",
    }
    details = " ".join(repr(v) for v in same.values())
    return f"{what.get(kind, kind)} {details} (iteration {'.'.join(map(str, path))})".replace("  ", " ")


def _entry_words(entry: Mapping[str, Any]) -> str:
    key = {"step": "workflow", "input": "name", "condition": "what"}.get(str(entry["kind"]))
    path = entry.get("path") or [entry.get("iteration", 0)]
    return _words(str(entry["kind"]), path, {key: entry.get(key)} if key else {})
