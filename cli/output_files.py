"""What ``-o DIR`` writes: the values that OUTPUT ports delivered, in files for people.

::

    DIR/<port>.png                          an IMAGE or a MASK; <port>_00001.png, <port>_00002.png... of a batch
    DIR/<port>.txt                          a text
    DIR/<port>.json                         numbers, lists, dicts; models by reference
    DIR/<port>.latent                       a LATENT, as ComfyUI's LoadLatent reads it (without its noise mask)
    DIR/<port>/iteration-00012.png          the value of an iteration of a collected port

`-i NAME=@FILE` reads each of them. Names of ports come from workflows: in file names they lose what could lead out of
the folder, as in a run's own folder (durable/).
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any


class OutputFolder:
    """A folder that values are written into. Files that are there are replaced."""

    def __init__(self, path: Path):
        self.path = path.expanduser()
        # {name as the file system may see it: port}: two ports may look the same as a file's name.
        self._stems: dict[str, str] = {}

    def prepare(self) -> None:
        """Make the folder, and see that it can be written to: an hour later would be too late.

        Raises:
            OSError: it cannot.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=".writable_", dir=self.path)
        except OSError as e:
            raise OSError(f"Nothing can be written into {self.path}: {e.strerror or e}. Give another folder.") from e
        os.close(handle)
        os.unlink(name)

    def write(self, name: str, value: Any) -> list[Path]:
        """Write a port's value; returns the files, none where it is of a kind that has no file.

        Raises:
            OSError: the disk refuses.
        """
        return _write(value, self.path / self._stem(name))

    def write_iteration(self, name: str, iteration: int, value: Any) -> list[Path]:
        """Write a collected value; as `write`."""
        return _write(value, self._folder(name) / f"iteration-{iteration:05d}")

    def earlier(self, name: str, written: set[Path]) -> list[Path]:
        """Files of iterations that an earlier run has left beside those of this one."""
        return sorted(file for file in self._folder(name).glob("iteration-*") if file not in written)

    def _folder(self, name: str) -> Path:
        return self.path / self._stem(name)

    def _stem(self, name: str) -> str:
        from ..durable.thumbnails import safe_name

        wanted = safe_name(name)
        stem, number = wanted, 1
        while self._stems.setdefault(stem.casefold(), name) != name:
            number += 1
            stem = f"{wanted}-{number}"
        return stem


def _write(value: Any, stem: Path) -> list[Path]:
    """Write a value into files whose names begin with a path; returns them."""
    from ..durable.run_folder import is_plain
    from ..image_files import save_comfy_image_to_disk

    picture = as_picture(value)
    if picture is not None:
        return save_comfy_image_to_disk(picture, stem.with_name(f"{stem.name}.png"))
    if isinstance(value, str):
        return [_replace(stem, ".txt", lambda: value.encode("utf-8", "surrogatepass"))]
    if is_plain(value):
        return [_replace(stem, ".json", lambda: (json.dumps(value, indent=2) + "\n").encode())]
    if isinstance(value, dict) and hasattr(value.get("samples"), "detach"):
        content = _latent(value["samples"])
        return [] if content is None else [_replace(stem, ".latent", lambda: content)]
    return []


def as_picture(value: Any) -> Any:
    """An IMAGE [B,H,W,C], or a MASK [B,H,W] as one; None for anything else."""
    if not (hasattr(value, "detach") and hasattr(value, "is_floating_point") and value.is_floating_point()):
        return None
    if value.ndim == 4 and value.shape[-1] in (1, 3, 4) and 0 not in value.shape:
        return value
    return value[..., None] if value.ndim == 3 and 0 not in value.shape else None


def _latent(samples: Any) -> bytes | None:
    """Samples in the format of a .latent; None where the package for it is missing."""
    try:
        from safetensors.torch import save
    except ModuleNotFoundError:
        return None
    import torch

    tensors = {"latent_tensor": samples.detach().cpu().contiguous(), "latent_format_version_0": torch.tensor([])}
    return save(tensors)


def _replace(stem: Path, suffix: str, content: Callable[[], bytes]) -> Path:
    """Write a file that appears under its name only when it is complete."""
    target = stem.with_name(f"{stem.name}{suffix}")
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{stem.name[:40]}_", suffix=suffix, dir=target.parent)
    young = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content())
        mask = os.umask(0o022)  # there is no way to read it without setting it
        os.umask(mask)
        young.chmod(0o666 & ~mask)  # mkstemp makes files private
        young.replace(target)
    except BaseException:
        young.unlink(missing_ok=True)
        raise
    return target
