"""Which files of a folder are meant, and in which order. Knows no ComfyUI, and reads no image."""

from __future__ import annotations

import difflib
import fnmatch
import hashlib
import os
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .fitted_images import image_endings

SORT_ORDERS = ("name", "name as text", "modified", "size", "random")


class Choice(NamedTuple):
    """Which files of a folder, and in which order."""

    # Absolute.
    folder: Path
    # Globs separated by ";".
    pattern: str = "*"
    # One of SORT_ORDERS.
    sort_by: str = "name"
    descending: bool = False
    shuffle_seed: int = 0
    # Of the files in order: how many are left out first, then which part of them, then how many at most (0: all).
    start: int = 0
    every: int = 1
    limit: int = 0


class FoundFiles(NamedTuple):
    """What a Choice stands for."""

    # Relative to the folder, with "/" between their parts.
    names: list[str]
    # Subfolders that could not be looked into: a line each.
    problems: list[str]


# ---------------------------------------------------------------------------------------------------- the folder


def resolve_folder(text: str, base: Path) -> Path:
    """The folder that a user named.

    Args:
        text: absolute, with ~, or relative to *base*; "" for *base* itself. Quotes around it, as a copied path on
            Windows has them, do not count.

    Raises:
        FileNotFoundError: there is none; names similar ones.
        NotADirectoryError: it is a file.
        ValueError: no path at all.
    """
    name = text.strip().strip("\"'").strip()
    try:
        folder = Path(os.path.abspath(base / Path(name).expanduser()))
        if folder.is_dir():
            return folder
        is_there = folder.exists()
    except (ValueError, RuntimeError) as error:  # a NUL in it; ~ of an unknown user
        raise ValueError(f"folder: {text!r} is no path of a folder: {error}.") from None
    if is_there:
        raise NotADirectoryError(
            f"folder: {str(folder)!r} is a file, not a folder. Name the folder it lies in, and the file as pattern."
        )
    raise FileNotFoundError(f"folder: there is no folder {str(folder)!r}. {_whats_nearby(folder)}")


def _whats_nearby(folder: Path) -> str:
    """Similar names beside a folder that does not exist, or how far its path does."""
    parent = folder.parent
    if not parent.is_dir():
        existing = next((above for above in folder.parents if above.is_dir()), None)
        return f"Its path exists as far as {str(existing)!r}." if existing else "Nothing of its path exists."
    try:
        names = sorted(entry.name for entry in os.scandir(parent) if entry.is_dir())
    except OSError as error:
        return f"{str(parent)!r} cannot be looked into: {error.strerror}."
    folded = {name.casefold(): name for name in reversed(names)}
    similar = [folded[name] for name in difflib.get_close_matches(folder.name.casefold(), folded, 5, 0.5)]
    if similar:
        return f"Similar names in {str(parent)!r}: {', '.join(map(repr, similar))}."
    return f"{str(parent)!r} has {counted(len(names), 'folder')}, none of a similar name."


# ----------------------------------------------------------------------------------------------------- the files


class _Segment(NamedTuple):
    """A part of a pattern, between slashes."""

    # None: "**", any number of folders.
    regex: re.Pattern[str] | None
    # Whether names that begin with a dot match: only where the pattern says so, as in a shell.
    takes_hidden: bool = False
    # Whether it says how a file's name ends, as "*.png" does; other files count by their endings.
    names_ending: bool = False

    def fits(self, name: str) -> bool:
        if self.regex is None or (name.startswith(".") and not self.takes_hidden):
            return False
        return self.regex.match(name) is not None


_Pattern = tuple[_Segment, ...]


def parse_pattern(pattern: str) -> list[_Pattern]:
    """Globs separated by ";", each of them a tuple of its segments.

    Raises:
        ValueError: none at all, or one that leads out of the folder.
    """
    globs = [glob.strip().replace("\\", "/") for glob in pattern.split(";")]
    globs = [glob for glob in globs if glob]
    if not globs:
        raise ValueError("pattern: it is empty, so that no file matches. * takes all images of the folder.")
    return [_parse_glob(glob) for glob in globs]


def _parse_glob(glob: str) -> _Pattern:
    parts = [part for part in glob.split("/") if part not in ("", ".")]
    if glob.startswith("/") or re.match(r"[A-Za-z]:", glob) or ".." in parts or not parts:
        raise ValueError(
            f"pattern: {glob!r} leads out of the folder. Patterns are relative to it: *.png, sub/*.jpg, **/*."
        )
    if parts[-1] == "**":
        parts.append("*")
    return tuple(map(_segment, parts))


def _segment(part: str) -> _Segment:
    if part == "**":
        return _Segment(None)
    _, dot, ending = part.rpartition(".")
    names_ending = bool(dot and ending) and not set(ending) & set("*?[")
    return _Segment(re.compile(fnmatch.translate(part), re.IGNORECASE), part.startswith("."), names_ending)


def find_files(choice: Choice, check_interrupted: Callable[[], None] = lambda: None) -> FoundFiles:
    """The files of a choice, in order.

    Raises:
        ValueError: a bad pattern or sort order; nothing matches; *start* is beyond the last one.
        OSError: the folder cannot be looked into.
    """
    patterns = parse_pattern(choice.pattern)
    if choice.sort_by not in SORT_ORDERS:
        raise ValueError(f"sort_by: {choice.sort_by!r} is none of {', '.join(SORT_ORDERS)}.")
    problems: list[str] = []
    names = list(_walk(choice.folder, patterns, problems, check_interrupted))
    if not names:
        raise ValueError(_nothing_matches(choice, problems))
    picked = _in_order(choice, names)[max(0, choice.start) :: max(1, choice.every)]
    if not picked:
        files = "the only file that matches" if len(names) == 1 else f"all {len(names):,} files that match"
        raise ValueError(f"start: {choice.start:,} leaves out {files} in {str(choice.folder)!r}.")
    return FoundFiles(picked[: choice.limit] if choice.limit > 0 else picked, problems)


def _walk(
    folder: Path, patterns: Sequence[_Pattern], problems: list[str], check_interrupted: Callable[[], None]
) -> Iterator[str]:
    """Names of the files that match, in no order. Links to folders are not followed: they lead out, or in circles."""
    # (subfolder with a slash behind it, or ""; what is left of the patterns for what is in it)
    waiting: list[tuple[str, Sequence[_Pattern]]] = [("", patterns)]
    endings = image_endings()
    while waiting:
        check_interrupted()
        prefix, rests = waiting.pop()
        active = _with_no_folder_for_stars(rests)
        try:
            with os.scandir(folder / prefix) as entries:
                for entry in entries:
                    if entry.is_dir():
                        inner = [] if entry.is_symlink() else _inside(entry.name, active)
                        if inner:
                            waiting.append((f"{prefix}{entry.name}/", inner))
                    # A pipe would be waited for, and for ever.
                    elif _takes(active, entry.name, endings) and entry.is_file():
                        yield prefix + entry.name
        except OSError as error:
            if not prefix:
                raise
            problems.append(f"{printable(prefix)}: {error.strerror or error}")


def _with_no_folder_for_stars(patterns: Iterable[_Pattern]) -> list[_Pattern]:
    """The patterns, and what each is if its leading ** stands for no folder."""
    found: dict[_Pattern, None] = {}
    for pattern in patterns:
        found[pattern] = None
        while pattern[0].regex is None:
            pattern = pattern[1:]
            found[pattern] = None
    return list(found)


def _inside(name: str, patterns: Iterable[_Pattern]) -> list[_Pattern]:
    """What is left of patterns for the files of a subfolder."""
    found: dict[_Pattern, None] = {}
    for pattern in patterns:
        if pattern[0].regex is None and not name.startswith("."):
            found[pattern] = None
        elif len(pattern) > 1 and pattern[0].fits(name):
            found[pattern[1:]] = None
    return list(found)


def _takes(patterns: Iterable[_Pattern], name: str, endings: frozenset[str]) -> bool:
    """Whether a file matches: one of the endings, or another one that the pattern spells out."""
    is_image = os.path.splitext(name)[1].lower() in endings
    return any(len(rest) == 1 and (is_image or rest[0].names_ending) and rest[0].fits(name) for rest in patterns)


def _nothing_matches(choice: Choice, problems: list[str]) -> str:
    with os.scandir(choice.folder) as entries:
        kinds = [(entry.is_dir(), os.path.splitext(entry.name)[1].lower()) for entry in entries]
    endings = Counter(ending or "no ending" for is_folder, ending in kinds if not is_folder)
    folders = sum(is_folder for is_folder, _ in kinds)
    most = ", ".join(f"{count:,} x {ending}" for ending, count in endings.most_common(8))
    more = ", ..." if len(endings) > 8 else ""
    files = counted(endings.total(), "file") + (f" ({most}{more})" if most else "")
    text = f"No image in {str(choice.folder)!r} matches the pattern {choice.pattern!r}. It holds {files}"
    text += f" and {counted(folders, 'subfolder')}." if folders else "."
    if folders and "**" not in choice.pattern:
        text += " The pattern **/* takes those of the subfolders, too."
    return " ".join([text, *problems])


def _in_order(choice: Choice, names: list[str]) -> list[str]:
    if choice.sort_by == "name as text":
        names.sort()
    else:
        names.sort(key=natural_key)  # also what equal dates and sizes, and the shuffling, begin with
    if choice.sort_by == "modified":
        names.sort(key=lambda name: _state(choice.folder, name)[1])
    elif choice.sort_by == "size":
        names.sort(key=lambda name: _state(choice.folder, name)[0])
    elif choice.sort_by == "random":
        random.Random(choice.shuffle_seed).shuffle(names)  # noqa: S311 - an order, no secret
    return names[::-1] if choice.descending else names


def natural_key(name: str) -> Any:
    """Sorts numbers in names by their value, 2 before 10, and does not tell upper from lower case."""
    # Without the ending, which would put a2.png before a.png.
    stem, ending = os.path.splitext(name.casefold())
    parts = [
        [(0, int(word), "") if word.isdecimal() else (1, 0, word) for word in re.findall(r"\d+|\D+", part)]
        for part in stem.split("/")
    ]
    return parts, ending, name


def _state(folder: Path, name: str) -> tuple[int, int]:
    """Size in bytes and date of change in nanoseconds; -1 for a file that is gone."""
    try:
        status = os.stat(folder / name)
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns


def fingerprint(choice: Choice, check_interrupted: Callable[[], None] = lambda: None) -> str:
    """Changes when another file is chosen, or one of them is written to. Reads no file.

    Raises:
        ValueError, OSError: as :func:`find_files`.
    """
    digest = hashlib.blake2b(os.fsencode(choice.folder), digest_size=16)
    for name in find_files(choice, check_interrupted).names:
        size, changed = _state(choice.folder, name)
        digest.update(b"\0%b\0%d %d" % (os.fsencode(name), size, changed))
    return digest.hexdigest()


def counted(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def printable(name: str) -> str:
    """A name that can be sent as JSON: bytes that are no UTF-8 become question marks in a diamond."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
