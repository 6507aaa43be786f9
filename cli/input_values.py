"""What ``-i NAME=VALUE`` means: values for ports, read as their types want them.

A text is read by the port's type: ``3`` is a number for an INT and stays a text for a STRING. Where the type is not
known, what is JSON is read as JSON, and the rest is text. ``@FILE`` stands for what is in a file: a picture, a text,
JSON, or a latent. A folder, or one name several times, is a value for each iteration.
"""

from __future__ import annotations

import difflib
import json
import math
import re
import shlex
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

ANY = "*"

#: what the help of a command says of NAME=VALUE
HELP = (
    "A value for an INPUT port: NAME=VALUE is read by the port's type, NAME=@FILE is what a picture, .txt, .json or "
    ".latent holds, NAME=@- is the text on standard input, NAME=@@TEXT a text that begins with @."
)

# Types of which no value can be typed: they come from a file.
_PICTURES = frozenset({"IMAGE", "MASK"})
_OBJECTS = _PICTURES | {
    *("LATENT", "CONDITIONING", "MODEL", "CLIP", "VAE", "CONTROL_NET", "CLIP_VISION", "CLIP_VISION_OUTPUT"),
    *("STYLE_MODEL", "UPSCALE_MODEL", "GLIGEN", "AUDIO", "VIDEO", "SAMPLER", "SIGMAS", "NOISE", "GUIDER", "HOOKS"),
}
_TEXTS, _NUMBERS = frozenset({"STRING", "COMBO"}), frozenset({"INT", "FLOAT", "BOOLEAN"})
_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_LATENT_SUFFIXES = frozenset({".latent", ".safetensors"})
# The scale of latents in files from before ComfyUI marked them: that of Stable Diffusion 1.
_OLD_SCALE = 0.18215
_STDIN = "discomfort.stdin"


# ------------------------------------------------------------------------------------------------------------ options


def read_inputs(options: Sequence[str], kinds: Mapping[str, str], where: str = "-i") -> dict[str, Any]:
    """The values of NAME=VALUE options by name; a PerIteration where a name has a folder, or several values.

    Files of a single value are read now, those of a value for each iteration when its turn comes.

    Args:
        kinds: {name: type} of what may be given; "*" for a type that is not known.

    Raises:
        click.BadParameter: an option cannot be understood; names option, port, type and value.
        ValueError: a file cannot be read.
    """
    from ..control_flow import PerIteration

    given: dict[str, list[str]] = {}
    for option in options:
        name, text = split_option(option, kinds, where)
        given.setdefault(name, []).append(text)
    values: dict[str, Any] = {}
    for name, texts in given.items():
        kind = kinds[name]
        place = f"{where} {name}"
        parts = [part for text in texts for part in _parts(name, text, kind, where)]
        if len(texts) == 1 and not _names_folder(texts[0]):
            values[name] = read_file(parts[0], kind, place) if isinstance(parts[0], Path) else parts[0]
        elif any(isinstance(part, Path) for part in parts):
            values[name] = PerIteration(FileValues(dict(enumerate(parts)), kind, place))
        else:
            values[name] = PerIteration(parts)
    return values


def split_option(option: str, names: Collection[str], where: str = "-i") -> tuple[str, str]:
    """(name, text) of NAME=VALUE. A name may have a = in it: the longest one that fits is meant.

    Raises:
        click.BadParameter: it has no =, or there is no such name.
    """
    known = [name for name in names if option.startswith(f"{name}=")]
    if known:
        longest = max(known, key=len)
        return longest, option[len(longest) + 1 :]
    name, is_there, _ = option.partition("=")
    if not is_there or not name:
        raise click.BadParameter(f"{option!r} is not NAME=VALUE.", param_hint=repr(where))
    raise click.BadParameter(f"there is no INPUT port {name!r}. {nearest(name, names)}", param_hint=repr(where))


def nearest(name: str, names: Iterable[str]) -> str:
    """A sentence on the names that there are, and the one that was probably meant."""
    known = sorted(set(names))
    if not known:
        return "There are none."
    folded = {one.casefold(): one for one in known}
    close = difflib.get_close_matches(name.casefold(), folded, n=1)
    meant = f" Did you mean {folded[close[0]]!r}?" if close else ""
    return f"There are: {', '.join(map(repr, known))}.{meant}"


def _names_folder(text: str) -> bool:
    return _is_reference(text) and text != "@-" and Path(text[1:]).expanduser().is_dir()


def _is_reference(text: str) -> bool:
    return text.startswith("@") and not text.startswith("@@")


def _parts(name: str, text: str, kind: str, where: str) -> list[Any]:
    """What one option gives: a Path of a file to be read, several for a folder, or the value itself."""
    place = f"{where} {name}"
    if text == "@-":
        return [_typed(name, _without_line_end(standard_input(place), kind), kind, where)]
    if not _is_reference(text):
        return [_typed(name, text[1:] if text.startswith("@@") else text, kind, where)]
    file = Path(text[1:]).expanduser()
    if text == "@":
        raise click.BadParameter(f"{place}=@ names no file.", param_hint=repr(where))
    if file.is_dir():
        return list(files_in(file, kind, place))
    if not file.exists():
        raise ValueError(f"{place}: there is no file {file} (current directory: {Path.cwd()}).")
    return [file]


def _typed(name: str, text: str, kind: str, where: str) -> Any:
    from ..durable.secrets import is_secret_name

    try:
        return read_text(text, kind, "a secret" if is_secret_name(name) else None)
    except ValueError as e:
        hint = ""
        if _members(kind) & _OBJECTS:
            file = text if text and "\n" not in text and Path(text).is_file() else example_of(kind)[1:]
            hint = f" What is in a file is given by {where} {shlex.quote(f'{name}=@{file}')}"
        raise click.BadParameter(f"the INPUT port {name!r} {e}{hint}", param_hint=repr(where)) from e


def example_of(kind: str) -> str:
    """What may stand for the value of a port of a type in a command that is an example."""
    members = _members(kind)
    if members & _PICTURES:
        return "@picture.png"
    return "@latent.latent" if "LATENT" in members else "@recipe.json" if members & _OBJECTS else "VALUE"


def standard_input(reader: str) -> str:
    """All of standard input, as text; kept, as it may be looked at again when more is known of types.

    Args:
        reader: the option or argument that reads it.

    Raises:
        click.UsageError: another one has read it.
        ValueError: it is no UTF-8, or a terminal, where nobody would know what is waited for.
    """
    context = click.get_current_context(silent=True)
    known: dict[str, Any] = context.find_root().meta if context is not None else {}
    if _STDIN not in known:
        if sys.stdin is None or sys.stdin.isatty():
            raise ValueError(f"Nothing is piped into standard input, which {reader} is to read.")
        try:
            known[_STDIN] = (reader, sys.stdin.buffer.read().decode("utf-8-sig"))
        except UnicodeDecodeError as e:
            raise ValueError(f"Standard input is not UTF-8 text (byte {e.start}).") from None
    first, text = known[_STDIN]
    if first != reader:
        raise click.UsageError(f"Standard input can be read by one: {first} and {reader} both want it.")
    return str(text)


def _without_line_end(text: str, kind: str) -> str:
    """A text as `echo` meant it; where text counts, each character does."""
    return text if _members(kind) & _TEXTS else text.strip()


# ------------------------------------------------------------------------------------------------------------- texts


def _members(kind: str) -> frozenset[str]:
    """The types of a union ("INT,FLOAT")."""
    return frozenset(one.strip() for one in kind.split(",")) or frozenset({ANY})


def read_text(text: str, kind: str, shown: str | None = None) -> Any:
    """The value that a text is, for a port of a type.

    Args:
        shown: stands for the text in messages, where it is a secret.

    Raises:
        ValueError: it is none; what is missing in the sentence is who takes it.
    """
    members = _members(kind)
    for number, reader in _READERS.items():
        if number in members and (found := reader(text.strip())) is not None:
            return found
    if members & _TEXTS:
        return text
    if members <= _NUMBERS:
        allowed = " (true or false)" if members == {"BOOLEAN"} else " (a whole number)" if members == {"INT"} else ""
        raise ValueError(f"takes {kind}{allowed}, and {shown or _short(text)} is none.")
    value: Any = _json_or(text)
    if members & _OBJECTS and ANY not in members and not _is_recipe(value):
        raise ValueError(f"takes {kind}, and no text ({shown or _short(text)}).")
    return value


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


def _json_or(text: str) -> Any:
    """The JSON that a text is; else the text. What JSON has not (NaN, Infinity) is text."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return text


def _refuse(constant: str) -> Any:
    raise ValueError(f"JSON has no {constant}")


def _int(text: str) -> int | None:
    # Longer ones are refused by Python itself.
    return int(text) if re.fullmatch(r"[+-]?[0-9]{1,1000}", text) else None


def _float(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _bool(text: str) -> bool | None:
    return _WORDS.get(text.casefold())


_READERS: dict[str, Callable[[str], Any]] = {"INT": _int, "FLOAT": _float, "BOOLEAN": _bool}


def check_value(value: Any, kind: str) -> Any:
    """A JSON value as a port of a type takes it: a whole number for a FLOAT becomes one.

    Raises:
        ValueError: it does not take it; what is missing in the sentence is who.
    """
    members = _members(kind)
    if ANY in members or _is_recipe(value):
        return value
    if isinstance(value, str):
        return read_text(value, kind)
    is_int = isinstance(value, int) and not isinstance(value, bool)
    fits = (
        (isinstance(value, bool) and "BOOLEAN" in members)
        or (is_int and members & {"INT", "FLOAT", "COMBO"})
        or (isinstance(value, float) and members & {"FLOAT", "COMBO"})
        or not members <= _NUMBERS | _TEXTS | _OBJECTS
    )
    if not fits:
        raise ValueError(f"takes {kind}, and {_short(json.dumps(value))} is none.")
    return float(value) if is_int and "INT" not in members and "FLOAT" in members else value


def _is_recipe(value: Any) -> bool:
    from ..prompt_graph import is_recipe

    return is_recipe(value)


# ------------------------------------------------------------------------------------------------------------- files


def read_file(file: Path, kind: str = ANY, where: str = "--input") -> Any:
    """The value in a file, as a port of a type takes it.

    Pictures: an IMAGE is float32 [B,H,W,3] in 0..1 without alpha, a MASK [B,H,W] is 1 minus alpha, as ComfyUI loads
    it, or the brightness where there is no alpha.

    Args:
        where: what messages begin with.

    Raises:
        ValueError: there is no such file, or it holds no such value.
    """
    if not file.exists():
        raise ValueError(f"{where}: there is no file {file}.")
    members, suffix = _members(kind), file.suffix.lower()
    try:
        if members & _TEXTS:
            return read_text(_text_of(file, where), kind)
        if suffix == ".json":
            return check_value(_json_of(file, where), kind)
        if members <= _NUMBERS or (suffix == ".txt" and not members & _OBJECTS):
            return read_text(_text_of(file, where), kind) if ANY not in members else _text_of(file, where)
    except ValueError as e:
        raise ValueError(_told_of(file, e, where)) from e
    is_any = not members & _OBJECTS
    if "LATENT" in members or (is_any and suffix in _LATENT_SUFFIXES):
        return _latent_of(file, where)
    if members & _PICTURES or is_any:
        return _picture_of(file, "MASK" in members and "IMAGE" not in members, kind, where)
    raise ValueError(
        f"{where}: {file} is no .json. The port takes {kind}: what an OUTPUT port of that type has delivered can be "
        "given back; files of models and media are loaded by a node of the workflow."
    )


def _told_of(file: Path, error: ValueError, where: str) -> str:
    """The message of an error in a file: a sentence of its own, or one that lacks who takes the value."""
    text = str(error)
    return text if text.startswith(where) else f"{where}: the port {text.rstrip('.')} (in {file})."


def _text_of(file: Path, where: str) -> str:
    try:
        return file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise ValueError(f"{where}: {file} is no text in UTF-8 (byte {e.start}).") from None
    except OSError as e:
        raise ValueError(f"{where}: {file} cannot be read: {e.strerror or e}.") from e


def _json_of(file: Path, where: str) -> Any:
    text = _text_of(file, where)
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as e:
        raise ValueError(f"{where}: {file} is not JSON: {e}") from e


def _picture_of(file: Path, is_mask: bool, kind: str, where: str) -> Any:
    from ..image_files import open_image_as_mask, open_image_as_tensor

    try:
        return open_image_as_mask(file) if is_mask else open_image_as_tensor(file)
    except (OSError, ValueError) as e:
        known = "neither .json nor .txt, and no picture" if ANY in _members(kind) else "no picture"
        raise ValueError(f"{where}: {file} is {known}: {e}") from e


def _latent_of(file: Path, where: str) -> dict[str, Any]:
    """A LATENT from a file that ComfyUI's SaveLatent, or `-o`, has written."""
    if file.suffix.lower() not in _LATENT_SUFFIXES:
        raise ValueError(f"{where}: {file} is no .latent or .safetensors, which a LATENT is read from.")
    try:
        from safetensors.torch import load_file
    except ModuleNotFoundError as e:
        raise ValueError(f"{where}: {file} cannot be read without the package safetensors: pip install it.") from e
    try:
        tensors = load_file(str(file), device="cpu")
    except Exception as e:  # SafetensorError, which is an Exception and no more
        raise ValueError(f"{where}: {file} is not in safetensors format: {e}") from e
    if "latent_tensor" not in tensors:
        names = ", ".join(sorted(tensors)[:4]) or "nothing"
        raise ValueError(f"{where}: {file} holds no latent (it has {names}). SaveLatent writes such files.")
    scale = 1.0 if "latent_format_version_0" in tensors else 1.0 / _OLD_SCALE
    return {"samples": tensors["latent_tensor"].float() * scale}


# ----------------------------------------------------------------------------------------------------------- folders


def files_in(folder: Path, kind: str = ANY, where: str = "--input") -> list[Path]:
    """The files of a folder that hold values for a port of a type, in the order of their names (2 before 10).

    Raises:
        ValueError: there are none.
    """
    suffixes = suffixes_of(kind)
    try:
        found = choose_files(folder.iterdir(), kind)
    except OSError as e:
        raise ValueError(f"{where}: the folder {folder} cannot be read: {e.strerror or e}.") from e
    if not found:
        raise ValueError(f"{where}: the folder {folder} has no file for {kind} ({', '.join(sorted(suffixes))}).")
    return found


def choose_files(files: Iterable[Path], kind: str) -> list[Path]:
    """Those of some files that hold values for a port of a type, in the order of their names.

    Where the type is not known, texts beside pictures are notes on them, and are left out.
    """
    from ..batch import PICTURE_SUFFIXES

    suffixes = suffixes_of(kind)
    found = [file for file in files if file.suffix.lower() in suffixes and file.name[0] != "." and file.is_file()]
    pictures = [file for file in found if file.suffix.lower() in PICTURE_SUFFIXES]
    return in_order(pictures or found)


def in_order(files: Iterable[Path]) -> list[Path]:
    """Files in the order in which people count: 2 before 10."""
    from ..editor_nodes.folder_files import natural_key

    return sorted(files, key=lambda file: natural_key(file.as_posix()))


def suffixes_of(kind: str) -> frozenset[str]:
    """How names of files end that hold values for a port of a type; lower case, with the dot."""
    from ..batch import PICTURE_SUFFIXES

    members = _members(kind)
    if members & _PICTURES:
        return PICTURE_SUFFIXES
    if "LATENT" in members:
        return _LATENT_SUFFIXES
    if members & _OBJECTS:
        return frozenset({".json"})
    if members <= _TEXTS:
        return frozenset({".txt"})
    return frozenset({".txt", ".json"}) | (frozenset() if members <= _NUMBERS | _TEXTS else PICTURE_SUFFIXES)


class FileValues(Sequence[Any]):
    """Values by iteration, those that are files read when they are asked for."""

    def __init__(self, parts: Mapping[int, Any], kind: str = ANY, where: str = "--input"):
        self._parts, self._kind, self._where = parts, kind, where

    def __len__(self) -> int:
        return max(self._parts, default=-1) + 1

    def __getitem__(self, index: Any) -> Any:
        if index not in self._parts:
            raise IndexError(f"{self._where}: there is no file for iteration {index}.")
        part = self._parts[index]
        return read_file(part, self._kind, self._where) if isinstance(part, Path) else part
