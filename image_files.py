"""Image files to tensors and back, as ComfyUI's image nodes mean them: float32 [B,H,W,C] in 0..1, sRGB as stored.

Reading drops alpha, as ComfyUI's LoadImage does for its IMAGE output (it is not composited: hidden colours show).
Writing rounds to the nearest of 256 levels: a picture read from an 8-bit file and written to a lossless format comes
back bit for bit, also after arithmetic that is off by float rounding. (ComfyUI's SaveImage cuts off instead, and may
then differ by one level.)
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL import Image

# Suffix -> (Pillow's format, options). Lossless where the format can be.
_FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {"compress_level": 4}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".webp": ("WEBP", {"lossless": True}),
    ".bmp": ("BMP", {}),
    ".tif": ("TIFF", {"compression": "tiff_deflate"}),
    ".tiff": ("TIFF", {"compression": "tiff_deflate"}),
}
_NO_ALPHA = ("JPEG", "BMP")


def open_image_as_tensor(path: str | os.PathLike[str]) -> torch.Tensor:
    """Reads an image file.

    Args:
        path: any format Pillow reads. 16-bit greyscale keeps its precision (65535 becomes 1.0); Pillow reads 16-bit
            colour PNGs with 8 bits.

    Returns:
        float32 tensor [B,H,W,3] in 0..1, contiguous, turned as its EXIF orientation says, alpha dropped, greyscale as
        three equal channels. B is 1, or the number of frames of an animation or multi-page file (frames of another size
        than the first are left out).

    Raises:
        FileNotFoundError: no such file (names path and current directory).
        ValueError: a folder, no image, or a damaged one.
    """
    import numpy as np
    import torch

    with _opened(path) as image:
        frames = [_frame_array(frame) for frame in _frames(image)]
    return torch.from_numpy(np.stack(_of_one_size(frames)))


def open_image_as_mask(path: str | os.PathLike[str]) -> torch.Tensor:
    """Reads an image file as a mask.

    Args:
        path: any format Pillow reads, as :func:`open_image_as_tensor` takes it.

    Returns:
        float32 tensor [B,H,W] in 0..1: 1 minus alpha, as ComfyUI's LoadImage has it (transparent places become 1), or
        the brightness of a picture that has no alpha. Turned as its EXIF orientation says. B is 1, or the number of
        frames.

    Raises:
        FileNotFoundError: no such file (names path and current directory).
        ValueError: a folder, no image, or a damaged one.
    """
    import numpy as np
    import torch

    alphas = []
    with _opened(path) as image:
        for frame in _frames(image):
            if "A" not in frame.getbands() and "transparency" not in frame.info:
                break
            alpha = np.asarray(frame.convert("RGBA").getchannel("A"), dtype=np.float32)
            alphas.append(1.0 - alpha / np.float32(255.0))
    if alphas:
        return torch.from_numpy(np.stack(_of_one_size(alphas)))
    red, green, blue = open_image_as_tensor(path).unbind(-1)
    # Grey stays exactly what it is; colours count as the eye sees them.
    return red + 0.587 * (green - red) + 0.114 * (blue - red)


def _of_one_size(frames: list[np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
    """Those of some frames that are of the first one's size."""
    return [frame for frame in frames if frame.shape == frames[0].shape]


@contextlib.contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[Image.Image]:
    """An image file; what goes wrong with it meanwhile is told with its name."""
    from PIL import Image, UnidentifiedImageError

    file = Path(path)
    if file.is_dir():
        raise ValueError(
            f"{str(file)!r} is a folder, not an image. Pass one file (DiscomfortFolderImageLoader reads folders)."
        )
    if not file.exists():
        raise FileNotFoundError(f"There is no image file {str(file)!r} (current directory: {str(Path.cwd())!r}).")
    try:
        with Image.open(file) as image:
            yield image
    except UnidentifiedImageError:
        raise ValueError(f"{str(file)!r} is not an image that Pillow can read.") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"The image {str(file)!r} cannot be read: {error}") from error


def _frames(image: Image.Image) -> Iterator[Image.Image]:
    from PIL import ImageOps, ImageSequence

    # An MPO is a JPEG whose further frames are previews or the other eye's view, not an animation.
    if image.format == "MPO" or getattr(image, "n_frames", 1) == 1:
        yield ImageOps.exif_transpose(image)
        return
    for frame in ImageSequence.Iterator(image):
        yield ImageOps.exif_transpose(frame)


def _frame_array(frame: Image.Image) -> np.ndarray[Any, Any]:
    """float32 [H,W,3] in 0..1."""
    import numpy as np

    if frame.mode.startswith("I"):
        grey = np.asarray(frame, dtype=np.float32) / 65535.0
    elif frame.mode == "F":
        grey = np.asarray(frame, dtype=np.float32)
    else:
        colour: np.ndarray[Any, Any] = np.asarray(frame.convert("RGB"), dtype=np.float32) / np.float32(255.0)
        return colour
    return np.repeat(np.clip(grey, 0.0, 1.0)[..., None], 3, axis=2)


def save_comfy_image_to_disk(tensor: torch.Tensor, path: str | os.PathLike[str]) -> list[Path]:
    """Writes an IMAGE to one file, or to one file per batch item.

    Args:
        tensor: [B,H,W,C] or [H,W,C] with C of 1, 3 or 4, or [H,W]; values in 0..1, others are clamped, NaN becomes 0.
        path: .png, .jpg, .jpeg (quality 95), .webp (lossless), .bmp, .tif or .tiff. Missing folders are made. Alpha is
            dropped for formats without it. Existing files are replaced.

    Returns:
        The files, in batch order: `path` itself for one image, else name_00001.png, name_00002.png...

    Each file appears under its name only when it is complete. Raises ValueError for a shape or suffix that is none of
    these, TypeError for no tensor, OSError if the disk refuses.
    """
    file = Path(path)
    kind, options = _format_of(file)
    images = _to_bhwc(tensor)
    file.parent.mkdir(parents=True, exist_ok=True)
    files = [file] if len(images) == 1 else [_numbered(file, i) for i in range(1, len(images) + 1)]
    for image, target in zip(images, files, strict=True):
        _write(_to_pillow(image, kind), target, kind, options)
    return files


def _format_of(file: Path) -> tuple[str, dict[str, Any]]:
    if file.suffix.lower() not in _FORMATS:
        known = ", ".join(_FORMATS)
        raise ValueError(f"Cannot save an image as {file.name!r}: the suffix must be one of {known}.")
    return _FORMATS[file.suffix.lower()]


def _to_bhwc(tensor: Any) -> torch.Tensor:
    if not hasattr(tensor, "detach"):
        raise TypeError(f"An IMAGE is a tensor [B,H,W,C], not {type(tensor).__name__}.")
    image: torch.Tensor = tensor.detach()
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim == 3:
        image = image[None]
    if image.ndim != 4 or image.shape[-1] not in (1, 3, 4) or 0 in image.shape:
        raise ValueError(
            f"An IMAGE has the shape [B,H,W,C] with 1, 3 or 4 channels last; this one has {list(tensor.shape)}. "
            "A MASK [B,H,W] becomes one by mask[..., None]."
        )
    return image


def _numbered(file: Path, number: int) -> Path:
    return file.with_name(f"{file.stem}_{number:05d}{file.suffix}")


def _to_pillow(image: torch.Tensor, kind: str) -> Image.Image:
    """One [H,W,C] image as 8-bit levels."""
    import torch
    from PIL import Image

    levels = image.to(device="cpu", dtype=torch.float32).nan_to_num(nan=0.0, posinf=1.0, neginf=0.0).clamp(0.0, 1.0)
    array = (levels * 255.0).round().to(torch.uint8).contiguous().numpy()
    if array.shape[-1] == 4 and kind in _NO_ALPHA:
        array = array[..., :3].copy()
    return Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)


def _write(picture: Image.Image, target: Path, kind: str, options: dict[str, Any]) -> None:
    """Writes beside the target first, so that a reader (or a crash) never meets half a file."""
    handle, name = tempfile.mkstemp(prefix=f".{target.stem}_", suffix=target.suffix, dir=target.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            picture.save(stream, format=kind, **options)
        # mkstemp makes files private; give this one the rights any new file gets here.
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _umask() -> int:
    # There is no way to read it without setting it.
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
