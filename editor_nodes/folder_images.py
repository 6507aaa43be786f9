"""The images of a folder, as one batch or one by one. Knows no ComfyUI.

A batch is allocated once, and threads write into it, so that the memory in use is the batch and one decoded image per
thread. Pillow lets other threads run while it decodes and scales.
"""

from __future__ import annotations

import concurrent.futures
import itertools
import math
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..object_store.memory import free_ram_bytes
from .fitted_images import (
    CROP,
    PAD,
    REFUSE,
    STRETCH,
    Fitting,
    Picture,
    Unreadable,
    check_words,
    decode,
    parse_colour,
    scale_for,
    size_in_header,
    write,
    write_fitted,
)
from .folder_files import counted, printable

if TYPE_CHECKING:
    import torch

    from .fitted_images import Pixels

OUTPUTS = ("batch", "list")

# Bytes of a pixel in an image and its mask.
_PIXEL = 4 * (3 + 1)
# The part of free memory that may be filled: what comes after this node needs some, too.
_USABLE = 0.95
_THREADS = 8
# Seconds between two looks at the Cancel button, and between two reports of progress.
_PULSE = 0.05


class Outside(NamedTuple):
    """What the caller does for a loader, all in the calling thread."""

    # Told (done, of how many) about twenty times a second, and at the end.
    progress: Callable[[int, int], None] = lambda done, total: None
    # Raises to cancel. Called between images.
    check_interrupted: Callable[[], None] = lambda: None
    # Bytes of memory that are free.
    free_memory: Callable[[], int] = free_ram_bytes


class FolderImages(NamedTuple):
    """What was loaded. Images and masks have the same number of items: one for a batch, else one per file."""

    # Each float32 [B,H,W,3] in 0..1.
    images: list[torch.Tensor]
    # Each float32 [B,H,W], 1 minus alpha; 1 also where an image was padded.
    masks: list[torch.Tensor]
    # One per image, also in a batch. Relative to the folder, with "/" between their parts.
    file_names: list[str]
    # "name: reason", one per file or subfolder that could not be read.
    skipped: list[str]


def load_batch(folder: Path, names: Sequence[str], fitting: Fitting, outside: Outside | None = None) -> FolderImages:
    """Reads files into one batch: images [B,H,W,3], masks [B,H,W].

    Cancelling (*outside* raises) is safe at any time; the threads have ended when this returns or raises.

    Raises:
        ValueError: none of the files can be read; sizes differ and may not; a bad colour or policy.
        MemoryError: the batch does not fit into memory; says what would.
    """
    import numpy as np
    import torch

    outside = outside or Outside()
    colour = parse_colour(fitting.pad_colour)
    check_words(fitting)
    problems: dict[int, str] = {}
    ready: dict[int, Picture] = {}
    target = (fitting.width, fitting.height)
    if not all(target):
        index, picture = _first_readable(folder, names, problems, outside)
        target = _target(fitting, picture.size)
        if target == picture.size:  # else it may be decoded at a fraction of its size, as its likes will be
            ready[index] = picture
        del picture
    width, height = target
    _refuse_what_does_not_fit([width * height * _PIXEL] * len(names), f" of {width} x {height}", outside)
    pixels = np.empty((len(names), height, width, 3), np.float32)
    # The system hands out zeros without taking memory for them: masks take some where there is alpha only.
    masks = np.zeros((len(names), height, width), np.float32)
    others: dict[int, tuple[int, int]] = {}

    def scale_of(size: tuple[int, int]) -> float:
        # The nearest pixel is one of the file, no mean of several.
        return 1.0 if fitting.resampling == "nearest" else scale_for(size, target, fitting.policy)

    def read(index: int) -> bool:
        if index in problems:
            return True
        try:
            picture = ready.pop(index, None) or decode(folder / names[index], scale_of)
        except Unreadable as error:
            problems[index] = str(error)
            return True
        if fitting.policy == REFUSE and picture.size != target:
            others[index] = picture.size
            return False
        write_fitted(picture, fitting, colour, pixels[index], masks[index])
        return True

    _side_by_side(len(names), read, outside, outside.progress)
    if others:
        raise ValueError(_sizes_differ(names, others, target, bool(fitting.width and fitting.height)))
    good = _good(folder, names, problems)
    if problems:
        _move_up(pixels, good)
        _move_up(masks, good)
    return FolderImages(
        [torch.from_numpy(pixels)], [torch.from_numpy(masks)], _names_of(names, good), _lines(names, problems)
    )


def load_list(folder: Path, names: Sequence[str], outside: Outside | None = None) -> FolderImages:
    """Reads files one by one, each with its own size: images [1,H,W,3], masks [1,H,W].

    Cancelling, and what is raised: as :func:`load_batch`.
    """
    import numpy as np
    import torch

    outside = outside or Outside()
    needed = [0] * len(names)

    def measure(index: int) -> bool:
        needed[index] = math.prod(size_in_header(folder / names[index])) * _PIXEL
        return True

    _side_by_side(len(names), measure, outside)
    _refuse_what_does_not_fit(needed, "", outside)
    problems: dict[int, str] = {}
    found: dict[int, tuple[Pixels, Pixels]] = {}

    def read(index: int) -> bool:
        try:
            picture = decode(folder / names[index])
        except Unreadable as error:
            problems[index] = str(error)
            return True
        width, height = picture.size
        pixels, mask = np.empty((1, height, width, 3), np.float32), np.zeros((1, height, width), np.float32)
        write(picture.colour, picture.alpha, pixels[0], mask[0])
        found[index] = pixels, mask
        return True

    _side_by_side(len(names), read, outside, outside.progress)
    good = _good(folder, names, problems)
    images = [torch.from_numpy(found[index][0]) for index in good]
    masks = [torch.from_numpy(found[index][1]) for index in good]
    return FolderImages(images, masks, _names_of(names, good), _lines(names, problems))


def _first_readable(
    folder: Path, names: Sequence[str], problems: dict[int, str], outside: Outside
) -> tuple[int, Picture]:
    """The first file that can be read, and its index; those before it are put into the problems."""
    for index, name in enumerate(names):
        outside.check_interrupted()
        try:
            return index, decode(folder / name)
        except Unreadable as error:
            problems[index] = str(error)
    raise ValueError(_none_readable(folder, names, problems))


def _target(fitting: Fitting, first: tuple[int, int]) -> tuple[int, int]:
    """Width and height of a batch whose first image has that size."""
    width, height = fitting.width, fitting.height
    if not width and not height:
        return first
    scale = width / first[0] if width else height / first[1]
    return width or max(1, round(first[0] * scale)), height or max(1, round(first[1] * scale))


def _refuse_what_does_not_fit(needed: Sequence[int], of_size: str, outside: Outside) -> None:
    """
    Args:
        needed: bytes of each image.
    """
    free = outside.free_memory()
    if sum(needed) <= free * _USABLE:
        return
    fits = sum(total <= free * _USABLE for total in itertools.accumulate(needed))
    advice = f"A limit of {fits:,} fits" if fits else "Not even one fits"
    if of_size:
        advice += "; so do more if width and height are smaller" if fits else ": make width and height smaller"
    raise MemoryError(
        f"{counted(len(needed), 'image')}{of_size} with their masks need {sum(needed) / 1e9:,.1f} GB of memory, and "
        f"{free / 1e9:,.1f} GB are free. {advice}."
    )


def _side_by_side(
    count: int, work: Callable[[int], bool], outside: Outside, progress: Callable[[int, int], None] | None = None
) -> None:
    """Calls ``work(0)`` ... ``work(count - 1)`` in threads, which take the numbers in order.

    The first False, or exception, ends it after the calls that are under way: all smaller numbers have been worked on
    then. Progress never goes back.
    """
    numbers, lock, is_over = iter(range(count)), threading.Lock(), threading.Event()
    done = 0

    def take_turns() -> None:
        nonlocal done
        try:
            while not is_over.is_set():
                with lock:
                    number = next(numbers, None)
                if number is None:
                    return
                if not work(number):
                    is_over.set()
                with lock:
                    done += 1
        except BaseException:
            is_over.set()
            raise

    threads = min(_THREADS, os.cpu_count() or 1, count)
    with concurrent.futures.ThreadPoolExecutor(threads, thread_name_prefix="discomfort-images") as pool:
        try:
            tasks = [pool.submit(take_turns) for _ in range(threads)]
            told = 0
            while True:
                _, running = concurrent.futures.wait(tasks, timeout=_PULSE)
                if progress is not None and done != told:
                    told = done
                    progress(told, count)
                outside.check_interrupted()
                if not running:
                    break
        finally:
            is_over.set()
    for task in tasks:
        task.result()


def _move_up(rows: Pixels, good: Sequence[int]) -> None:
    """Closes the gaps of an array in place, and gives back the memory behind its end."""
    for new, old in enumerate(good):
        # Zeros stay unwritten: masks that hold nothing else take no memory.
        if new != old and (rows[old].any() or rows[new].any()):
            rows[new] = rows[old]
    # Nothing else looks at it: the threads have ended.
    rows.resize((len(good), *rows.shape[1:]), refcheck=False)


def _good(folder: Path, names: Sequence[str], problems: dict[int, str]) -> list[int]:
    """Indexes of the files that were read."""
    good = [index for index in range(len(names)) if index not in problems]
    if not good:
        raise ValueError(_none_readable(folder, names, problems))
    return good


def _names_of(names: Sequence[str], good: Sequence[int]) -> list[str]:
    return [printable(names[index]) for index in good]


def _lines(names: Sequence[str], problems: dict[int, str]) -> list[str]:
    return [f"{printable(names[index])}: {problems[index]}" for index in sorted(problems)]


def _none_readable(folder: Path, names: Sequence[str], problems: dict[int, str]) -> str:
    files = "The file" if len(names) == 1 else f"None of the {len(names):,} files"
    verb = "cannot" if len(names) == 1 else "can"
    lines = _lines(names, problems)
    more = f" ... and {len(lines) - 3:,} more." if len(lines) > 3 else ""
    return f"{files} in {str(folder)!r} {verb} be read as an image. {'; '.join(lines[:3])}.{more}"


def _sizes_differ(
    names: Sequence[str], others: dict[int, tuple[int, int]], target: tuple[int, int], is_given: bool
) -> str:
    index = min(others)
    wanted = "width and height say" if is_given else "the batch has"
    return (
        f"{printable(names[index])} has {others[index][0]} x {others[index][1]} pixels, and {wanted} "
        f"{target[0]} x {target[1]}. Choose another size_policy ({PAD}, {CROP} or {STRETCH}), or the output list."
    )
