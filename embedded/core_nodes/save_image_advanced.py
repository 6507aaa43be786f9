"""The core node that saves images with more than 8 bits. As ComfyUI 0.33.0.

Files of 8 bits are written by Pillow, the others by PyAV, which is optional. Both kinds carry the prompt and the
workflow: a PNG in text chunks, as those of Save Image do, an OpenEXR file in attributes of its header.
"""

from __future__ import annotations

import io as files
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import folder_paths
from ..node_api import io
from ..node_api.audio import require
from .image_io import metadata_is_disabled, metadata_texts, to_pillow

if TYPE_CHECKING:
    from torch import Tensor


class SaveImageAdvanced(io.ComfyNode):
    """Save images as PNG files of 8 or 16 bits, or as OpenEXR files."""

    RELATIVE_PYTHON_MODULE = "comfy_extras.nodes_images"

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The choices of color spaces depend on the format."""
        png = [_choice("bit_depth", ["8-bit", "16-bit"]), _choice("input_color_space", ["sRGB"])]
        tooltip = (
            "Colorspace of the input tensor. The EXR is always written as scene-linear in the matching gamut.\n"
            "sRGB — input is sRGB-encoded Rec.709; the inverse sRGB EOTF is applied.\n"
            "HDR — input is HLG-encoded Rec.2020 (BT.2100); the inverse HLG OETF is applied to get scene-linear "
            "light.\n"
            "linear — input is already scene-linear (Rec.709 primaries); written through unchanged. Use this for "
            "renderer/compositor output."
        )
        spaces = _choice("input_color_space", ["sRGB", "HDR", "linear"], tooltip)
        exr = [_choice("bit_depth", ["32-bit float"]), spaces]
        return io.Schema(
            node_id="SaveImageAdvanced",
            display_name="Save Image (Advanced)",
            category="image",
            description="Saves the input images to your ComfyUI output directory.",
            essentials_category="Basics",
            search_aliases=["save", "save image", "export image", "output image", "write image"],
            inputs=[
                io.Image.Input("images", tooltip="The images to save."),
                io.String.Input(
                    "filename_prefix",
                    default="ComfyUI",
                    tooltip=(
                        "The prefix for the file to save. May include formatting tokens such as %date:yyyy-MM-dd% or "
                        "%Empty Latent Image.width%."
                    ),
                ),
                io.DynamicCombo.Input(
                    "format",
                    options=[io.DynamicCombo.Option("png", png), io.DynamicCombo.Option("exr", exr)],
                    tooltip="The file format in which to save the image.",
                ),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
            is_output_node=True,
            outputs=[io.Image.Output(display_name="images")],
        )

    @classmethod
    def execute(cls, images: Tensor, filename_prefix: str, format: dict[str, Any]) -> io.NodeOutput:
        """One numbered file per image; the ui result lists them, and the images are handed on.

        Args:
            images: ``[B, H, W, C]``, C of 1, 3 or 4, or ``[B, H, W]``.
            filename_prefix: see :func:`folder_paths.get_save_image_path`; ``%batch_num%`` is the image's number.
            format: ``format`` "png" or "exr", ``bit_depth``, and ``input_color_space``, by default "sRGB".

        Raises:
            ValueError: another format or number of channels.
            RuntimeError: PyAV is not installed, and the file is not one of 8 bits.
            Exception: the prefix leads out of the folder.
            OSError: a file cannot be written.
        """
        ending, bit_depth = format["format"], format["bit_depth"]
        space = format.get("input_color_space", "sRGB")
        folder, filename, counter, subfolder, _ = folder_paths.get_save_image_path(
            filename_prefix, folder_paths.get_output_directory(), images[0].shape[1], images[0].shape[0]
        )
        texts = None if metadata_is_disabled() else metadata_texts(cls.hidden.prompt, cls.hidden.extra_pnginfo)
        saved = []
        for number, image in enumerate(images):
            content = encode(image if image.ndim == 3 else image[..., None], ending, bit_depth, space)
            if texts is not None:
                content = with_texts(content, texts) if ending == "png" else with_attributes(content, texts, space)
            name = f"{filename.replace('%batch_num%', str(number))}_{counter + number:05}.{ending}"
            with open(os.path.join(folder, name), "wb") as file:
                file.write(content)
            saved.append({"filename": name, "subfolder": subfolder, "type": "output"})
        return io.NodeOutput(images, ui={"images": saved})


def _choice(name: str, options: list[str], tooltip: str | None = None) -> Any:
    """One of some options, of which the first is chosen."""
    return io.Combo.Input(name, options=options, default=options[0], tooltip=tooltip, advanced=True)


# -- pixels ------------------------------------------------------------------------------------------------


class _Coding(NamedTuple):
    """How PyAV writes a kind of image."""

    # The largest value; None: floating point, without limits.
    largest: int | None
    # The pixel formats of the array and of the file, by the number of channels.
    given: dict[int, str]
    written: dict[int, str]


_PLANES = {1: "grayf32le", 3: "gbrpf32le", 4: "gbrapf32le"}
_CODINGS = {
    ("png", "16-bit"): _Coding(
        65535,
        {1: "gray16le", 3: "rgb48le", 4: "rgba64le"},
        {1: "gray16be", 3: "rgb48be", 4: "rgba64be"},
    ),
    ("exr", "32-bit float"): _Coding(None, _PLANES, _PLANES),
}


def encode(image: Tensor, format: str, bit_depth: str, space: str) -> bytes:
    """An image ``[H, W, C]`` as a file without metadata.

    Values of a PNG are cut off at 0 and 1 and rounded down to its steps; those of an EXR are what they are, in linear
    light. Raises as :meth:`SaveImageAdvanced.execute`.
    """
    channels = image.shape[-1]
    if (format, bit_depth) == ("png", "8-bit") and channels in (1, 3, 4):
        file = files.BytesIO()
        to_pillow(image[..., 0] if channels == 1 else image).save(file, format="PNG", compress_level=4)
        return file.getvalue()
    coding = _CODINGS.get((format, bit_depth))
    if coding is None or channels not in coding.given:
        raise ValueError(
            f"No {format}/{bit_depth} encoder for {channels}-channel images: supported channel counts are 1 "
            "(grayscale), 3 (RGB) and 4 (RGBA)."
        )
    return _encode_with_av(_values(image, coding, space), format, coding.given[channels], coding.written[channels])


def _values(image: Tensor, coding: _Coding, space: str) -> Any:
    """The numbers that are written, as an array."""
    import numpy as np
    import torch

    if coding.largest is not None:
        scaled = (image * coding.largest).clamp(0, coding.largest)
        return scaled.to(torch.int32).cpu().numpy().astype(np.uint16)
    to_linear = {"sRGB": _srgb_to_linear, "HDR": _hlg_to_linear}.get(space)
    if to_linear is not None:
        # Alpha is linear already.
        colors = to_linear(image[..., :3] if image.shape[-1] == 4 else image)
        image = torch.cat([colors, image[..., 3:]], dim=-1) if image.shape[-1] == 4 else colors
    return image.cpu().numpy().astype(np.float32)


def _srgb_to_linear(values: Tensor) -> Tensor:
    """Linear light of sRGB values (IEC 61966-2-1)."""
    import torch

    return torch.where(values <= 0.04045, values / 12.92, ((values.clamp(min=0.0) + 0.055) / 1.055) ** 2.4)


def _hlg_to_linear(values: Tensor) -> Tensor:
    """Linear light of the scene of HLG values (ITU-R BT.2100, table 5)."""
    import torch

    a, b, c = 0.17883277, 0.28466892, 0.55991072928
    bright = (torch.exp((values.clamp(min=0.5) - c) / a) + b) / 12.0
    return torch.where(values <= 0.5, values**2 / 3.0, bright)


def _encode_with_av(values: Any, format: str, given: str, written: str) -> bytes:
    """A file of one frame: what the codec gives is all of it."""
    from fractions import Fraction

    av = require("av", f"Saving images as {format} of more than 8 bits")
    codec = av.CodecContext.create(format, "w")
    codec.height, codec.width = values.shape[:2]
    codec.pix_fmt = written
    codec.time_base = Fraction(1, 1)
    frame = av.VideoFrame.from_ndarray(values, format=given)
    if given != written:
        frame = frame.reformat(format=written)
    frame.pts, frame.time_base = 0, codec.time_base
    return b"".join(bytes(packet) for part in (frame, None) for packet in codec.encode(part))


# -- metadata ----------------------------------------------------------------------------------------------

# The signature, and the first chunk: its length and name, 13 bytes, its checksum.
_PNG_HEAD = 8 + 8 + 13 + 4
# Where the red, green and blue of Rec. 709 (also sRGB's) and Rec. 2020, and their white, lie in CIE 1931's xy.
_WHITE = (0.3127, 0.3290)
_REC_709 = (0.64, 0.33, 0.30, 0.60, 0.15, 0.06, *_WHITE)
_REC_2020 = (0.708, 0.292, 0.170, 0.797, 0.131, 0.046, *_WHITE)
# Lines of a chunk by the number of the compression, where it is not one (OpenEXR's file layout).
_LINES_PER_CHUNK = {3: 16, 4: 32, 5: 16, 6: 32, 7: 32, 8: 32, 9: 256}


def with_texts(png: bytes, texts: Sequence[tuple[str, str]]) -> bytes:
    """A PNG with text chunks behind its first chunk; what Latin-1 does not have becomes a question mark."""
    chunks = b"".join(
        _chunk(b"tEXt", name.encode("latin-1") + b"\0" + text.encode("latin-1", "replace")) for name, text in texts
    )
    return png[:_PNG_HEAD] + chunks + png[_PNG_HEAD:]


def _chunk(name: bytes, data: bytes) -> bytes:
    """One chunk of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def with_attributes(exr: bytes, texts: Sequence[tuple[str, str]], space: str) -> bytes:
    """An OpenEXR file with texts in its header, and what its colours are.

    Behind the header, the file lists where each of its chunks begins; that is later then.
    """
    header = {name: value for name, value, _ in _attributes(exr)}
    end = max((end for _, _, end in _attributes(exr)), default=8)
    _, top, _, bottom = struct.unpack("<4i", header["dataWindow"])
    lines = _LINES_PER_CHUNK.get(header["compression"][0], 1)
    count = -(-(bottom - top + 1) // lines)
    added = b"".join(_attribute(name, "string", text.encode()) for name, text in texts)
    colors = _REC_2020 if space == "HDR" else _REC_709
    added += _attribute("chromaticities", "chromaticities", struct.pack("<8f", *colors))
    # A zero byte ends the header.
    table = end + 1
    offsets = struct.unpack_from(f"<{count}Q", exr, table)
    moved = struct.pack(f"<{count}Q", *(offset + len(added) for offset in offsets))
    return exr[:end] + added + exr[end:table] + moved + exr[table + 8 * count :]


def _attributes(exr: bytes) -> Iterator[tuple[str, bytes, int]]:
    """The attributes of an OpenEXR file's header: name, value, where the next one begins."""
    position = 8  # behind the magic number and the version
    while exr[position]:
        name_end = exr.index(b"\0", position)
        type_end = exr.index(b"\0", name_end + 1)
        (size,) = struct.unpack_from("<i", exr, type_end + 1)
        start = type_end + 5
        yield exr[position:name_end].decode("latin-1"), exr[start : start + size], start + size
        position = start + size


def _attribute(name: str, kind: str, value: bytes) -> bytes:
    """One attribute of an OpenEXR file's header."""
    return name.encode() + b"\0" + kind.encode() + b"\0" + struct.pack("<i", len(value)) + value


NODE_CLASS_MAPPINGS: dict[str, type] = {"SaveImageAdvanced": SaveImageAdvanced}

NODE_DISPLAY_NAME_MAPPINGS = {"SaveImageAdvanced": "Save Image (Advanced)"}
