"""The embedded server's core nodes show the same interface as ComfyUI's and give the same results.

``CASES`` are calls of the nodes. Their results in ComfyUI 0.3.64 are recorded in
``data/core_nodes_0.3.64.npz``, so that every machine checks them; with COMFYUI_PATH they are compared with
that ComfyUI itself. With DISCOMFORT_RECORD set as well, the recordings are written anew. The tests behind the
cases state what nodes do without any recording.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from discomfort.embedded import folder_paths
from discomfort.embedded.core_nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS
from discomfort.embedded.core_nodes.align import image_alpha_fix, repeat_to_batch_size
from discomfort.embedded.core_nodes.preview import AnyType
from discomfort.embedded.core_nodes.resize import common_upscale
from PIL import Image

DATA = Path(__file__).parent / "data"
RECORDED_VERSION = "0.3.64"
RECORDED_RESULTS = DATA / f"core_nodes_{RECORDED_VERSION}.npz"
RECORDED_INTERFACE = DATA / f"object_info_{RECORDED_VERSION}.json"

TOLERANCE = 1e-5


# -- inputs ------------------------------------------------------------------------------------------------


def noise(seed: int, *size: int) -> torch.Tensor:
    """The same random values in 0..1 on every machine."""
    return torch.from_numpy(np.random.default_rng(seed).random(size, dtype=np.float32))


def image(seed: int = 0, batch: int = 1, height: int = 9, width: int = 8, channels: int = 3) -> torch.Tensor:
    return noise(seed, batch, height, width, channels)


def mask(seed: int = 0, batch: int = 1, height: int = 9, width: int = 8) -> torch.Tensor:
    return noise(seed + 100, batch, height, width)


def latent(seed: int = 0, batch: int = 1, height: int = 12, width: int = 10, **more: Any) -> dict[str, Any]:
    return {"samples": noise(seed + 200, batch, 4, height, width) * 4 - 2, **more}


def write_input_files(folder: Path) -> None:
    """Pictures of every kind LoadImage treats differently."""
    rgba = (noise(1, 6, 5, 4).numpy() * 255).astype(np.uint8)
    rgb = Image.fromarray(np.ascontiguousarray(rgba[..., :3]))
    rgb.save(folder / "rgb.png")
    Image.fromarray(rgba).save(folder / "rgba.png")
    rgb.convert("L").save(folder / "grey.png")
    Image.fromarray(rgba).convert("LA").save(folder / "grey_alpha.png")
    rgb.quantize(8).save(folder / "palette.png")
    rgb.quantize(8).save(folder / "palette_transparent.png", transparency=0)
    Image.fromarray(rgba[..., 0] > 127).save(folder / "bilevel.png")
    deep = rgba[..., 0].astype(np.uint16) * 257
    Image.fromarray(deep).save(folder / "grey16.png")
    Image.fromarray(deep.astype(np.int32)).save(folder / "grey32.tiff")
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn by 90 degrees
    rgb.save(folder / "turned.png", exif=exif)
    frames = [Image.fromarray(np.roll(rgba, step, axis=1)) for step in range(3)]
    frames[0].save(folder / "animated.png", save_all=True, append_images=frames[1:])
    frames[0].convert("RGB").save(
        folder / "pages.tiff", save_all=True, append_images=[frames[1].convert("RGB"), rgb.resize((3, 3))]
    )
    rgb.save(folder / "camera.mpo", save_all=True, append_images=[rgb])
    data = (folder / "rgb.png").read_bytes()
    (folder / "truncated.png").write_bytes(data[: len(data) - 30])


# -- cases -------------------------------------------------------------------------------------------------


class Case(NamedTuple):
    """One call of a node."""

    class_type: str
    inputs: dict[str, Any]


METHODS = ["nearest-exact", "bilinear", "area", "bicubic", "lanczos"]
FLIPS = ["x-axis: vertically", "y-axis: horizontally"]
TURNS = ["none", "90 degrees", "180 degrees", "270 degrees"]
BLEND_MODES = ["normal", "multiply", "screen", "overlay", "soft_light", "difference"]
DITHERS = ["none", "floyd-steinberg", "bayer-2", "bayer-4", "bayer-8", "bayer-16"]
PORTER_DUFF = [
    "ADD",
    "CLEAR",
    "DARKEN",
    "DST",
    "DST_ATOP",
    "DST_IN",
    "DST_OUT",
    "DST_OVER",
    "LIGHTEN",
    "MULTIPLY",
    "OVERLAY",
    "SCREEN",
    "SRC",
    "SRC_ATOP",
    "SRC_IN",
    "SRC_OUT",
    "SRC_OVER",
    "XOR",
]
INPUT_FILES = [
    "rgb.png",
    "rgba.png",
    "grey.png",
    "grey_alpha.png",
    "palette.png",
    "palette_transparent.png",
    "bilevel.png",
    "grey16.png",
    "grey32.tiff",
    "turned.png",
    "animated.png",
    "pages.tiff",
    "camera.mpo",
    "truncated.png",
]
TEXT = "One fish two Fish\nred fish, blue fish"


def all_cases() -> dict[str, Case]:
    """Every case by its name: class, then what is special about it."""
    cases: dict[str, Case] = {}

    def case(class_type: str, name: str = "plain", **inputs: Any) -> None:
        key = f"{class_type}-{name}"
        assert key not in cases, key
        cases[key] = Case(class_type, inputs)

    case("EmptyImage", width=3, height=2, batch_size=2, color=0x3380FF)
    case("EmptyImage", "black", width=1, height=1, batch_size=1, color=0)
    case("ImageInvert", image=image(batch=2))
    case("ImageBatch", image1=image(0, 2), image2=image(1))
    case("ImageBatch", "wider", image1=image(0), image2=image(1, 2, 8, 20))
    case("ImageBatch", "higher", image1=image(0), image2=image(1, 1, 30, 11))
    for index, length in [(0, 1), (1, 2), (2, 9), (8, 3)]:
        case("ImageFromBatch", f"{index}+{length}", image=image(batch=4), batch_index=index, length=length)
    case("RepeatImageBatch", image=image(batch=2, height=2, width=2), amount=3)
    case("RebatchImages", images=[image(0, 2, 2, 2), image(1, 3, 2, 2)], batch_size=[2])
    case("RebatchImages", "one", images=[image(0, 2, 2, 2)], batch_size=[5])

    for method in METHODS:
        for crop in ("disabled", "center"):
            for width, height in [(7, 5), (15, 13), (8, 9)]:
                case(
                    "ImageScale",
                    f"{method}-{crop}-{width}x{height}",
                    image=image(),
                    upscale_method=method,
                    width=width,
                    height=height,
                    crop=crop,
                )
        case("ImageScaleBy", f"{method}-half", image=image(), upscale_method=method, scale_by=0.55)
        case("ImageScaleBy", f"{method}-more", image=image(), upscale_method=method, scale_by=1.5)
        for padding in ("white", "black"):
            case(
                "ResizeAndPadImage",
                f"{method}-{padding}",
                image=image(),
                target_width=17,
                target_height=9,
                padding_color=padding,
                interpolation=method,
            )
    for width, height in [(0, 0), (0, 7), (7, 0), (1, 0)]:
        case(
            "ImageScale",
            f"follows-{width}x{height}",
            image=image(),
            upscale_method="bilinear",
            width=width,
            height=height,
            crop="center",
        )
    case("ImageScale", "rgba", image=image(channels=4), upscale_method="lanczos", width=5, height=5, crop="center")
    for size in (7, 15):
        for name, source in [("high", image()), ("wide", image(0, 1, 5, 9)), ("square", image(0, 1, 6, 6))]:
            case(
                "ImageScaleToMaxDimension",
                f"{name}-{size}",
                image=source,
                upscale_method="bilinear",
                largest_size=size,
            )
    case("ImageScaleToTotalPixels", image=image(0, 1, 3, 7), upscale_method="nearest-exact", megapixels=0.01)

    for number, (width, height, x, y) in enumerate([(4, 5, 2, 3), (50, 50, 3, 3), (4, 4, 99, 99)]):
        case("ImageCrop", str(number), image=image(batch=2), width=width, height=height, x=x, y=y)
    for flip in FLIPS:
        case("ImageFlip", flip[0], image=image(), flip_method=flip)
        case("LatentFlip", flip[0], samples=latent(), flip_method=flip)
    for turn in TURNS:
        case("ImageRotate", turn.split()[0], image=image(), rotation=turn)
        case("LatentRotate", turn.split()[0], samples=latent(), rotation=turn)
    for number, (left, top, right, bottom, feathering) in enumerate(
        [(8, 0, 0, 0, 3), (8, 8, 16, 8, 4), (0, 8, 0, 0, 40), (0, 0, 0, 0, 2), (0, 8, 8, 0, 0), (0, 0, 8, 8, 5)]
    ):
        case(
            "ImagePadForOutpaint",
            str(number),
            image=image(batch=2),
            left=left,
            top=top,
            right=right,
            bottom=bottom,
            feathering=feathering,
        )
    for direction in ("right", "down", "left", "up"):
        for match in (True, False):
            for width, color in [(0, "white"), (3, "red"), (4, "white"), (2, "black")]:
                case(
                    "ImageStitch",
                    f"{direction}-{'match' if match else 'pad'}-{width}-{color}",
                    image1=image(),
                    direction=direction,
                    match_image_size=match,
                    spacing_width=width,
                    spacing_color=color,
                    image2=image(1, 1, 7, 9, 4),
                )
    stitch = {"direction": "up", "match_image_size": True, "spacing_width": 2, "spacing_color": "green"}
    case("ImageStitch", "alone", image1=image(), **stitch)
    case("ImageStitch", "batches", image1=image(), image2=image(1, 3), **stitch)
    case("ImageAddNoise", image=image(), seed=42, strength=0.3)
    case("ImageAddNoise", "largest-seed", image=image(), seed=0xFFFFFFFFFFFFFFFF, strength=1.0)
    case("GetImageSize", image=image(batch=3))

    for mode in BLEND_MODES:
        case("ImageBlend", mode, image1=image(0, 2), image2=image(1, 2), blend_factor=0.7, blend_mode=mode)
    case("ImageBlend", "resized", image1=image(), image2=image(1, 1, 9, 31), blend_factor=1, blend_mode="normal")
    case("ImageBlend", "rgba", image1=image(), image2=image(1, channels=4), blend_factor=0.5, blend_mode="screen")
    for radius, sigma in [(1, 1.0), (3, 0.3), (8, 10.0), (2, 0.1), (0, 1.0)]:
        case("ImageBlur", f"{radius}-{sigma}", image=image(0, 2, 9, 10), blur_radius=radius, sigma=sigma)
    case("ImageBlur", "rgba", image=image(channels=4), blur_radius=2, sigma=1.0)
    case("ImageBlur", "white", image=torch.ones(1, 8, 8, 3), blur_radius=3, sigma=1.0)
    for radius, sigma, alpha in [(1, 1.0, 1.0), (4, 0.5, 0.2), (7, 3.33, 5.0), (1, 1.0, 0.0), (0, 1.0, 1.0)]:
        case(
            "ImageSharpen",
            f"{radius}-{sigma}-{alpha}",
            image=image(batch=2),
            sharpen_radius=radius,
            sigma=sigma,
            alpha=alpha,
        )
    for dither in DITHERS:
        for colors in (2, 5, 256):
            case("ImageQuantize", f"{dither}-{colors}", image=image(0, 2, 20, 18), colors=colors, dither=dither)

    for operation in ("erode", "dilate", "open", "close", "gradient", "bottom_hat", "top_hat"):
        for size in (3, 4, 20):
            case("Morphology", f"{operation}-{size}", image=image(0, 2), operation=operation, kernel_size=size)
    case("ImageRGBToYUV", image=image(0, 2))
    case("ImageYUVToRGB", Y=image(0), U=image(1), V=image(2))

    case("SolidMask", value=0.25, width=3, height=2)
    case("MaskToImage", mask=mask(batch=2))
    case("MaskToImage", "flat", mask=mask()[0])
    for channel in ("red", "green", "blue", "alpha"):
        case("ImageToMask", channel, image=image(batch=2, channels=4), channel=channel)
    few_colors = (image(0, 2, 6, 6) * 2).round() / 2
    for color in (0x000000, 0x8000FF, 0x80FF80):
        case("ImageColorToMask", f"{color:06x}", image=few_colors, color=color)
    case("InvertMask", mask=mask())
    for x, y, width, height in [(2, 3, 4, 5), (8, 0, 50, 2), (99, 0, 5, 5)]:
        case("CropMask", f"{x}-{y}", mask=mask(batch=2), x=x, y=y, width=width, height=height)
    case("CropMask", "flat", mask=mask()[0], x=1, y=1, width=3, height=3)
    for number, (left, top, right, bottom) in enumerate(
        [(3, 0, 0, 0), (0, 4, 0, 0), (0, 0, 3, 0), (0, 0, 0, 5), (3, 2, 4, 1), (99, 99, 99, 99), (0, 0, 0, 0)]
    ):
        case("FeatherMask", str(number), mask=mask(batch=2), left=left, top=top, right=right, bottom=bottom)
    for expand in (0, 1, 3, -1, -3, 40):
        for tapered in (True, False):
            name = f"{expand}-{'tapered' if tapered else 'square'}"
            case("GrowMask", name, mask=mask(batch=2), expand=expand, tapered_corners=tapered)
    for value in (0.0, 0.5, 1.0):
        case("ThresholdMask", str(value), mask=mask(), value=value)
    for operation in ("multiply", "add", "subtract", "and", "or", "xor"):
        case(
            "MaskComposite",
            operation,
            destination=mask(batch=2),
            source=mask(1, 1, 6, 7),
            x=2,
            y=6,
            operation=operation,
        )
    for number, (x, y, resize) in enumerate([(0, 0, False), (5, 2, False), (50, 3, False), (2, 2, True)]):
        for name, through in [("all", None), ("masked", mask(1, 1, 4, 4)), ("masks", mask(1, 2, 5, 5))]:
            put = {"x": x, "y": y, "resize_source": resize}
            if through is not None:
                put["mask"] = through
            case("ImageCompositeMasked", f"{number}-{name}", destination=image(0, 2), source=image(1, 1, 6, 7), **put)
            put.update(x=x * 8, y=y * 8)
            case(
                "LatentCompositeMasked",
                f"{number}-{name}",
                destination=latent(0, 2, batch_index=[4, 5]),
                source=latent(1, 3, 6, 7),
                **put,
            )
    case(
        "ImageCompositeMasked",
        "rgba-source",
        destination=image(),
        source=image(1, 1, 5, 5, 4),
        x=1,
        y=1,
        resize_source=False,
    )
    case("SplitImageWithAlpha", "rgba", image=image(0, 2, channels=4))
    case("SplitImageWithAlpha", "rgb", image=image(0, 2))
    case("JoinImageWithAlpha", image=image(0, 2), alpha=mask(0, 3, 5, 5))
    for rule in PORTER_DUFF:
        case(
            "PorterDuffImageComposite",
            rule,
            source=image(0, 1),
            source_alpha=mask(0, 2),
            destination=image(1, 1),
            destination_alpha=mask(1, 1),
            mode=rule,
        )
    case(
        "PorterDuffImageComposite",
        "sizes",
        source=image(0, 2, 5, 9),
        source_alpha=mask(0, 2, 6, 6),
        destination=image(1, 2),
        destination_alpha=mask(1, 2, 20, 3),
        mode="SRC_OVER",
    )

    case("EmptyLatentImage", width=24, height=20, batch_size=2)
    noise_masks = noise(3, 3, 1, 5, 5)
    full = latent(0, 4, 3, 3, noise_mask=noise_masks, batch_index=[3, 4, 7, 9])
    one_mask = latent(0, 2, 3, 3, noise_mask=noise_masks[:1])
    for index, length in [(0, 1), (1, 2), (3, 9)]:
        for name, samples in [("full", full), ("one-mask", one_mask)]:
            case("LatentFromBatch", f"{index}+{length}-{name}", samples=samples, batch_index=index, length=length)
    case("RepeatLatentBatch", "full", samples=full, amount=3)
    case("RepeatLatentBatch", "one-mask", samples=one_mask, amount=2)
    case("LatentBatch", samples1=latent(0, 2), samples2=latent(1, 1, 7, 9))
    case("LatentBatch", "numbered", samples1=full, samples2=latent(1, 2, 3, 3))
    for behavior in ("random", "fixed"):
        case("LatentBatchSeedBehavior", behavior, samples=full, seed_behavior=behavior)
    case("LatentBatchSeedBehavior", "fixed-unnumbered", samples=latent(0, 3), seed_behavior="fixed")
    case("SetLatentNoiseMask", samples=latent(), mask=mask(0, 2))
    for method in [*METHODS[:4], "bislerp"]:
        for width, height, crop in [(64, 104, "center"), (88, 72, "disabled"), (0, 0, "center")]:
            case(
                "LatentUpscale",
                f"{method}-{width}x{height}",
                samples=latent(),
                upscale_method=method,
                width=width,
                height=height,
                crop=crop,
            )
        case("LatentUpscaleBy", method, samples=latent(0, 2), upscale_method=method, scale_by=1.3)
        case("LatentUpscaleBy", f"{method}-half", samples=latent(), upscale_method=method, scale_by=0.5)
    for width, height in [(0, 72), (104, 0), (0, 8)]:
        case(
            "LatentUpscale",
            f"follows-{width}x{height}",
            samples=latent(),
            upscale_method="bilinear",
            width=width,
            height=height,
            crop="disabled",
        )
    flat = {"samples": torch.cat((torch.zeros(1, 4, 3, 3), torch.ones(1, 4, 3, 3), -torch.ones(1, 4, 3, 3)), 3)}
    case("LatentUpscaleBy", "bislerp-flat", samples=flat, upscale_method="bislerp", scale_by=2.0)
    video = {"samples": noise(9, 2, 4, 3, 5, 6)}
    for method in ("bilinear", "bislerp"):
        case("LatentUpscaleBy", f"{method}-video", samples=video, upscale_method=method, scale_by=1.5)
    for x, y in [(0, 0), (16, 24), (800, 800)]:
        case("LatentCrop", f"{x}-{y}", samples=latent(), width=64, height=72, x=x, y=y)
    for dim in "xyt":
        for index, amount in [(0, 1), (2, 99), (99, 2), (-2, 1), (-99, 3)]:
            case("LatentCut", f"{dim}-{index}+{amount}", samples=video, dim=dim, index=index, amount=amount)
        for sign in ("", "-"):
            case("LatentConcat", f"{sign}{dim}", samples1=video, samples2=video, dim=sign + dim)
    case("LatentConcat", "batches", samples1=latent(0, 3), samples2=latent(1, 2), dim="x")
    for number, (x, y, feather) in enumerate([(0, 0, 0), (16, 24, 0), (16, 24, 16), (0, 40, 24), (48, 0, 80)]):
        case(
            "LatentComposite",
            str(number),
            samples_to=latent(0, 2),
            samples_from=latent(1, 2, 6, 7),
            x=x,
            y=y,
            feather=feather,
        )
    case("LatentBlend", samples1=latent(), samples2=latent(1), blend_factor=0.3)
    case("LatentBlend", "resized", samples1=latent(), samples2=latent(1, 1, 5, 5), blend_factor=0.3)
    for class_type in ("LatentAdd", "LatentSubtract"):
        case(class_type, samples1=latent(0, 3), samples2=latent(1, 2))
        case(class_type, "resized", samples1=latent(), samples2=latent(1, 1, 20, 6))
    case("LatentMultiply", samples=latent(), multiplier=-1.5)
    for ratio in (0.0, 0.4, 1.0):
        case("LatentInterpolate", str(ratio), samples1=latent(), samples2=latent(1), ratio=ratio)
    tonemap = ("LatentOperationTonemapReinhard", {"multiplier": 0.7})
    case("LatentApplyOperation", "tonemap", samples=latent(0, 2), operation={"$node": tonemap})
    sharpen = ("LatentOperationSharpen", {"sharpen_radius": 2, "sigma": 1.0, "alpha": 0.1})
    case("LatentApplyOperation", "sharpen", samples=latent(0, 2), operation={"$node": sharpen})

    case("PrimitiveString", value="text")
    case("PrimitiveStringMultiline", value="two\nlines")
    case("PrimitiveInt", value=-3)
    case("PrimitiveFloat", value=0.1)
    case("PrimitiveBoolean", value=True)
    case("StringConcatenate", string_a="a", string_b="b", delimiter=", ")
    case("StringSubstring", string=TEXT, start=4, end=-5)
    case("StringLength", string="naïve 😀")
    for mode in ("UPPERCASE", "lowercase", "Capitalize", "Title Case"):
        case("CaseConverter", mode, string="heLLo big wORLD's", mode=mode)
    for mode in ("Both", "Left", "Right"):
        case("StringTrim", mode, string=" \n in the middle\t ", mode=mode)
    case("StringReplace", string=TEXT, find="fish", replace="bird")
    for sensitive in (True, False):
        name = "exact" if sensitive else "any-case"
        case("StringContains", name, string=TEXT, substring="FISH", case_sensitive=sensitive)
        for mode in ("Starts With", "Ends With", "Equal"):
            for other in ("one", "FISH", TEXT, TEXT.upper()):
                number = f"{len(other)}{other[-1]}"
                case(
                    "StringCompare",
                    f"{mode}-{name}-{number}",
                    string_a=TEXT,
                    string_b=other,
                    mode=mode,
                    case_sensitive=sensitive,
                )
    patterns = {"none": "fi.h", "one": r"(\w+) fish", "two": r"(\w+) (fish)", "broken": "(", "no": "cat", "dot": "h.r"}
    for name, pattern in patterns.items():
        for flag in range(8):
            flags = {
                "case_insensitive": bool(flag & 1),
                "multiline": bool(flag & 2),
                "dotall": bool(flag & 4),
            }
            case("RegexMatch", f"{name}-{flag}", string=TEXT, regex_pattern=pattern, **flags)
        for mode in ("First Match", "All Matches", "First Group", "All Groups"):
            for group in (0, 1, 2, 3):
                case(
                    "RegexExtract",
                    f"{name}-{mode}-{group}",
                    string=TEXT,
                    regex_pattern=pattern,
                    mode=mode,
                    case_insensitive=True,
                    multiline=False,
                    dotall=False,
                    group_index=group,
                )
    case("RegexReplace", string=TEXT, regex_pattern=r"(\w+) fish", replace=r"fish \1")
    case("RegexReplace", "once", string=TEXT, regex_pattern="FISH", replace="bird", case_insensitive=False, count=1)
    case("RegexReplace", "lines", string=TEXT, regex_pattern="^.", replace="X", multiline=True, dotall=True, count=2)
    for name, value in {
        "text": "é",
        "int": 3,
        "float": 0.5,
        "bool": True,
        "none": None,
        "data": {"a": [1, "é"]},
    }.items():
        case("PreviewAny", name, source=value)
    case("PreviewAny", "tensor", source=torch.tensor([1.5, 2.5]))

    for name in INPUT_FILES:
        case("LoadImage", name, image=name)
        for channel in ("alpha", "red", "green", "blue"):
            case("LoadImageMask", f"{name}-{channel}", image=name, channel=channel)
    case("LoadImageOutput", image="rgb.png [input]")
    return cases


CASES = all_cases()

# Classes that have tests of their own below instead of cases.
WITHOUT_CASES = {
    "SaveImage",
    "PreviewImage",
    "MaskPreview",
    "SaveAnimatedWEBP",
    "SaveAnimatedPNG",
    # Their result is a function; LatentApplyOperation's cases call it.
    "LatentOperationTonemapReinhard",
    "LatentOperationSharpen",
}


# Cases a later ComfyUI (0.8.0) answers differently, and why that is not followed here.
CHANGED_LATER = {
    "ImageScaleToTotalPixels-plain": "a later ComfyUI has one more input, resolution_steps",
    "PreviewAny-data": "a later ComfyUI shows JSON indented",
}


# -- running and comparing ---------------------------------------------------------------------------------


def run_ours(class_type: str, inputs: dict[str, Any]) -> dict[str, Any]:
    """A node's result, as run_real_nodes.py gives it."""
    node = NODE_CLASS_MAPPINGS[class_type]()
    resolved = {
        name: run_ours(*value["$node"])["outputs"][0] if isinstance(value, dict) and "$node" in value else value
        for name, value in inputs.items()
    }
    output = getattr(node, node.FUNCTION)(**resolved)
    return {"ui": output["ui"]} if isinstance(output, dict) else {"outputs": list(output)}


def flatten(value: Any, path: str = "") -> dict[str, np.ndarray]:
    """A nested result as arrays by their path."""
    if isinstance(value, dict):
        return {k: v for key, part in value.items() for k, v in flatten(part, f"{path}/{key}").items()}
    if isinstance(value, (list, tuple)):
        return {k: v for key, part in enumerate(value) for k, v in flatten(part, f"{path}/{key}").items()}
    return {path: value.numpy() if isinstance(value, torch.Tensor) else np.array(value)}


def assert_equal_results(actual: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Same parts; numbers within the tolerance, everything else exactly."""
    assert list(actual) == list(expected)
    for path, wanted in expected.items():
        got = actual[path]
        assert got.shape == wanted.shape, path
        assert got.dtype.kind == wanted.dtype.kind, path
        if wanted.dtype.kind == "f":
            assert got.dtype == wanted.dtype, path
            np.testing.assert_allclose(got, wanted, rtol=TOLERANCE, atol=TOLERANCE, err_msg=path)
        else:
            np.testing.assert_array_equal(got, wanted, err_msg=path)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base folder with the input files; folder_paths points there."""
    folder = tmp_path_factory.mktemp("base")
    folder_paths.configure(folder)
    write_input_files(folder / "input")
    return folder


@pytest.fixture(scope="module")
def recorded() -> dict[str, dict[str, np.ndarray]]:
    """Case -> its recorded result, flat."""
    with np.load(RECORDED_RESULTS) as file:
        index, data = json.loads(file["index"].tobytes()), file["data"].tobytes()
    return {
        case: {
            path: np.frombuffer(data[start:end], dtype=dtype).reshape(shape)
            for path, (dtype, shape, start, end) in parts.items()
        }
        for case, parts in index.items()
    }


def record(results: dict[str, dict[str, np.ndarray]]) -> None:
    """Write what the fixture ``recorded`` reads: all values in one block, as a file of 1200 arrays is twice as big."""
    index: dict[str, dict[str, Any]] = {}
    data = bytearray()
    for case, parts in results.items():
        index[case] = {}
        for path, array in parts.items():
            index[case][path] = (array.dtype.str, array.shape, len(data), len(data) + array.nbytes)
            data += array.tobytes()
    blocks = {"index": json.dumps(index).encode(), "data": bytes(data)}
    np.savez_compressed(RECORDED_RESULTS, **{name: np.frombuffer(b, np.uint8) for name, b in blocks.items()})


def test_every_node_has_cases() -> None:
    assert {case.class_type for case in CASES.values()} == set(NODE_CLASS_MAPPINGS) - WITHOUT_CASES


@pytest.mark.parametrize("name", CASES)
def test_result_equals_the_recorded_one(name: str, base: Path, recorded: dict[str, dict[str, np.ndarray]]) -> None:
    assert_equal_results(flatten(run_ours(*CASES[name])), recorded[name])


# -- the real ComfyUI --------------------------------------------------------------------------------------


def run_real(calls: list[tuple[str, dict[str, Any]]], base: Path, scratch: Path) -> dict[str, Any]:
    """Version and results of node calls in the ComfyUI at COMFYUI_PATH; skips the test without one."""
    root = os.environ.get("COMFYUI_PATH")
    if not root:
        pytest.skip("needs a real ComfyUI: set COMFYUI_PATH to its folder")
    python = Path(root) / "venv" / "bin" / "python"
    folders = {name: str(base / name) for name in ("input", "output", "temp")}
    torch.save({**folders, "calls": calls}, scratch / "calls.pt")
    command = [str(python if python.exists() else sys.executable), str(DATA / "run_real_nodes.py")]
    done = subprocess.run(
        [*command, str(scratch / "calls.pt"), str(scratch / "results.pt")],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(scratch / "results.pt", weights_only=True)


@pytest.fixture(scope="module")
def real(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """``version`` and ``results`` (by case) of all cases in the real ComfyUI."""
    job = run_real([tuple(case) for case in CASES.values()], base, tmp_path_factory.mktemp("real"))
    job["results"] = dict(zip(CASES, job["results"], strict=True))
    if job["version"] == RECORDED_VERSION and os.environ.get("DISCOMFORT_RECORD"):
        record({name: flatten(result) for name, result in job["results"].items()})
    return job


@pytest.mark.real_comfyui
@pytest.mark.parametrize("name", CASES)
def test_result_equals_the_real_one(name: str, base: Path, real: dict[str, Any]) -> None:
    if real["version"] != RECORDED_VERSION and name in CHANGED_LATER:
        pytest.skip(CHANGED_LATER[name])
    expected = real["results"][name]
    assert "error" not in expected, expected["error"]
    assert_equal_results(flatten(run_ours(*CASES[name])), flatten(expected))


@pytest.mark.real_comfyui
def test_saved_files_equal_the_real_ones(base: Path, tmp_path: Path) -> None:
    """Same names, pixels and text chunks; previews differ in their random part only."""
    prompt = {"1": {"class_type": "SaveImage", "inputs": {"text": "Grüße 😀"}}}
    metadata = {"prompt": prompt, "extra_pnginfo": {"workflow": {"nodes": [1.5, None]}, "more": "ü"}}
    source = image(0, 2) * 1.2 - 0.1
    calls = [
        ("SaveImage", {"images": source, "filename_prefix": "a/b-%batch_num%-%width%x%height%", **metadata}),
        ("SaveImage", {"images": source, "filename_prefix": "plain"}),
        ("PreviewImage", {"images": source, **metadata}),
        ("MaskPreview", {"mask": mask(0, 2), **metadata}),
        ("SaveAnimatedWEBP", {**WEBP_OPTIONS, "images": source, "filename_prefix": "w", **metadata}),
        ("SaveAnimatedWEBP", {**WEBP_OPTIONS, "images": source[:1], "filename_prefix": "w"}),
        ("SaveAnimatedPNG", {"images": source, "filename_prefix": "p", "fps": 7, "compress_level": 9, **metadata}),
    ]
    for name in ("input", "output", "temp"):
        (tmp_path / name).mkdir()
    job = run_real(calls, tmp_path, tmp_path)
    for call, result in zip(calls, job["results"], strict=True):
        assert "error" not in result, result
        ui = run_ours(*call)["ui"]
        ours = ui["images"]
        assert len(ours) == len(result["ui"]["images"])
        if call[0].startswith("SaveAnimated"):
            # Later versions leave it out where it is false.
            assert list(ui["animated"]) == list(result["ui"].get("animated", [False]))
            ours_bytes, real_bytes = (
                (folder / "output" / ours[0]["filename"]).read_bytes() for folder in (base, tmp_path)
            )
            assert ours[0] == result["ui"]["images"][0]
            assert ours_bytes == real_bytes
            continue
        for our_file, real_file in zip(ours, result["ui"]["images"], strict=True):
            if our_file["type"] == "output":
                assert our_file == real_file
            our_image = open_saved(base, our_file)
            real_image = open_saved(tmp_path, real_file)
            # Later versions write nothing into the previews of masks.
            if call[0] != "MaskPreview" or job["version"] == RECORDED_VERSION:
                assert our_image.text == real_image.text
            np.testing.assert_array_equal(np.array(our_image), np.array(real_image))


WEBP_OPTIONS = {"fps": 12.5, "lossless": True, "quality": 80, "method": "fastest"}


def open_saved(base: Path, file: dict[str, str]) -> Any:
    """The PNG that a ui result names."""
    with Image.open(base / file["type"] / file["subfolder"] / file["filename"]) as opened:
        opened.load()
    return opened


# -- the interface -----------------------------------------------------------------------------------------


def interface_of(name: str) -> dict[str, Any]:
    """What GET /object_info tells about a class, in the words of ComfyUI's protocol, after a trip through JSON."""
    node = NODE_CLASS_MAPPINGS[name]
    inputs = node.INPUT_TYPES()
    return json.loads(
        json.dumps(
            {
                "input": inputs,
                "input_order": {kind: list(group) for kind, group in inputs.items()},
                "output": node.RETURN_TYPES,
                "output_is_list": getattr(node, "OUTPUT_IS_LIST", [False] * len(node.RETURN_TYPES)),
                "output_name": getattr(node, "RETURN_NAMES", node.RETURN_TYPES),
                "name": name,
                "display_name": NODE_DISPLAY_NAME_MAPPINGS.get(name, name),
                "description": getattr(node, "DESCRIPTION", ""),
                "category": node.CATEGORY,
                "output_node": getattr(node, "OUTPUT_NODE", False),
                "output_tooltips": getattr(node, "OUTPUT_TOOLTIPS", []),
                "experimental": getattr(node, "EXPERIMENTAL", False),
            }
        )
    )


RECORDED_NODES = json.loads(RECORDED_INTERFACE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", NODE_CLASS_MAPPINGS)
def test_interface_equals_the_recorded_one(name: str, tmp_path: Path) -> None:
    """Two deliberate differences of form, which the editor shows alike.

    ComfyUI's newer node classes say null for a missing display name or output tooltip and false for
    ``experimental``; ours are all of the older kind, which say the class name, or nothing.
    """
    folder_paths.configure(tmp_path)
    wanted = RECORDED_NODES[name]
    ours = interface_of(name)
    assert ours["display_name"] == (wanted.pop("display_name") or name)
    assert ours["output_tooltips"] == [tip for tip in wanted.pop("output_tooltips", []) if tip]
    assert ours["experimental"] == wanted.pop("experimental", False)
    for key in ("input", "input_order", "output", "output_is_list", "output_name", "name"):
        assert ours[key] == wanted[key], key
    for key in ("description", "category", "output_node"):
        assert ours[key] == wanted[key], key


@pytest.mark.parametrize("name", NODE_CLASS_MAPPINGS)
def test_every_required_and_optional_input_is_a_parameter(name: str, tmp_path: Path) -> None:
    folder_paths.configure(tmp_path)  # some nodes list the input folder
    node = NODE_CLASS_MAPPINGS[name]
    inputs = node.INPUT_TYPES()
    parameters = inspect.signature(getattr(node, node.FUNCTION)).parameters
    for kind in ("required", "optional", "hidden"):
        assert set(inputs.get(kind, {})) <= set(parameters)
    for optional in inputs.get("optional", {}):
        assert parameters[optional].default is not inspect.Parameter.empty


def test_importing_the_nodes_imports_no_torch(tmp_path: Path) -> None:
    code = "import sys, discomfort.embedded.core_nodes; sys.exit('torch' in sys.modules or 'PIL' in sys.modules)"
    # Elsewhere than in the clone, whose discomfort.py would be found first.
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False, timeout=60).returncode == 0


def test_any_type_differs_from_nothing_and_is_a_star_in_json() -> None:
    wildcard = AnyType("*")
    image_type = "IMAGE"
    assert (wildcard != image_type) is False
    assert (image_type != wildcard) is False
    assert json.dumps(wildcard) == '"*"'
    assert {wildcard: 1} == {"*": 1}


# -- what nodes do, said without a recording ---------------------------------------------------------------


def first(class_type: str, **inputs: Any) -> Any:
    """A node's first output."""
    return run_ours(class_type, inputs)["outputs"][0]


def test_empty_image_has_the_color_in_every_pixel() -> None:
    made = first("EmptyImage", width=3, height=2, batch_size=4, color=0xFF8000)
    assert made.shape == (4, 2, 3, 3)
    assert made.dtype == torch.float32
    assert torch.equal(made, torch.tensor([1.0, 128 / 255, 0.0]).expand(4, 2, 3, 3))


def test_nodes_leave_their_inputs_unchanged() -> None:
    """Inputs are shared with other nodes and with the cache."""
    for name, case in CASES.items():
        before = flatten(case.inputs)
        copies = {path: array.copy() for path, array in before.items()}
        if case.class_type.startswith("LoadImage"):
            continue
        run_ours(*case)
        after = flatten(case.inputs)
        assert list(after) == list(copies), name
        for path, array in copies.items():
            np.testing.assert_array_equal(after[path], array, err_msg=name)


def test_scale_center_crop_keeps_the_middle() -> None:
    """A wide image made square loses the same number of columns left and right."""
    columns = torch.arange(12.0).expand(1, 4, 12)[..., None].expand(-1, -1, -1, 3)
    scaled = first("ImageScale", image=columns, upscale_method="nearest-exact", width=4, height=4, crop="center")
    assert scaled[0, 0, :, 0].tolist() == [4, 5, 6, 7]


@pytest.mark.parametrize("method", METHODS)
def test_scaling_keeps_a_flat_image_flat(method: str) -> None:
    flat = torch.full((1, 5, 7, 3), 51 / 255)
    for width, height in [(3, 2), (20, 11)]:
        scaled = common_upscale(flat.movedim(-1, 1), width, height, method, "disabled")
        assert scaled.shape == (1, 3, height, width)
        torch.testing.assert_close(scaled, torch.full_like(scaled, 51 / 255))


def test_area_scaling_takes_the_mean() -> None:
    source = image(0, 1, 6, 6)
    halved = first("ImageScale", image=source, upscale_method="area", width=3, height=3, crop="disabled")
    blocks = source.reshape(1, 3, 2, 3, 2, 3).mean(dim=(2, 4))
    torch.testing.assert_close(halved, blocks)


def test_lanczos_is_pillows() -> None:
    pixels = (image(0, 1, 9, 8)[0].numpy() * 255).astype(np.uint8)
    expected = np.asarray(Image.fromarray(pixels).resize((5, 13), Image.Resampling.LANCZOS)) / 255
    source = torch.from_numpy(pixels.astype(np.float32) / 255 + 1e-4)[None]
    scaled = first("ImageScale", image=source, upscale_method="lanczos", width=5, height=13, crop="disabled")
    np.testing.assert_allclose(scaled[0].numpy(), expected, atol=1e-6)


def test_lanczos_takes_a_single_channel() -> None:
    grey = image(0, 1, 6, 6).movedim(-1, 1)[:, :1]
    scaled = common_upscale(grey, 3, 3, "lanczos", "disabled")
    assert scaled.shape == (1, 1, 3, 3)
    same = common_upscale(grey.expand(-1, 3, -1, -1), 3, 3, "lanczos", "disabled")
    assert torch.equal(scaled, same[:, :1])


def test_an_unknown_scaling_method_is_named() -> None:
    with pytest.raises(ValueError, match="Unknown upscale_method 'magic'"):
        common_upscale(torch.zeros(1, 3, 2, 2), 2, 2, "magic", "disabled")


def test_total_pixels_reaches_the_area_and_keeps_proportions() -> None:
    scaled = first("ImageScaleToTotalPixels", image=image(0, 1, 10, 40), upscale_method="area", megapixels=0.25)
    assert scaled.shape == (1, 256, 1024, 3)


def test_blur_equals_a_direct_sum() -> None:
    source = image(0, 1, 5, 5)
    blurred = first("ImageBlur", image=source, blur_radius=2, sigma=0.7)
    steps = np.linspace(-1, 1, 5)
    weights = np.exp(-(steps[:, None] ** 2 + steps**2) / (2 * 0.7**2))
    mirrored = np.pad(source[0].numpy(), ((2, 2), (2, 2), (0, 0)), mode="reflect")
    expected = sum(
        weights[row, column] * mirrored[row : row + 5, column : column + 5] for row in range(5) for column in range(5)
    )
    np.testing.assert_allclose(blurred[0].numpy(), expected / weights.sum(), atol=1e-6)


def test_sharpening_strengthens_an_edge_and_leaves_flat_areas() -> None:
    edge = torch.full((1, 9, 10, 3), 0.4)
    edge[:, :, 5:] = 0.6
    sharpened = first("ImageSharpen", image=edge, sharpen_radius=1, sigma=1.0, alpha=0.05)
    torch.testing.assert_close(sharpened[:, :, :4], edge[:, :, :4])
    assert (sharpened[:, :, 4] < 0.39).all()
    assert (sharpened[:, :, 5] > 0.61).all()


@pytest.mark.parametrize("dither", DITHERS)
def test_quantizing_leaves_few_colors(dither: str) -> None:
    quantized = first("ImageQuantize", image=image(0, 1, 16, 16), colors=4, dither=dither)
    assert len(torch.unique(quantized.reshape(-1, 3), dim=0)) <= 4


def test_quantizing_refuses_transparency_with_a_reason() -> None:
    with pytest.raises(ValueError, match="RGB images, this one has 4 channels"):
        first("ImageQuantize", image=image(channels=4), colors=4, dither="none")


def test_rotation_is_clockwise() -> None:
    corner = torch.zeros(1, 2, 3, 3)
    corner[0, 0, 0] = 1.0
    turned = first("ImageRotate", image=corner, rotation="90 degrees")
    assert turned.shape == (1, 3, 2, 3)
    assert turned[0, 0, 1].tolist() == [1.0, 1.0, 1.0]


def test_an_rgb_source_is_opaque_on_an_rgba_destination() -> None:
    """Where ComfyUI 0.3.64 fails."""
    put = first(
        "ImageCompositeMasked",
        destination=torch.zeros(1, 4, 4, 4),
        source=torch.full((1, 2, 2, 3), 0.5),
        x=1,
        y=1,
        resize_source=False,
    )
    assert put[0, 1, 1].tolist() == [0.5, 0.5, 0.5, 1.0]
    assert put[0, 0, 0].tolist() == [0.0, 0.0, 0.0, 0.0]


def test_composite_leaves_out_what_lies_outside() -> None:
    """Also to the left and above, which only a link can ask for."""
    source = torch.arange(1.0, 10.0).reshape(1, 3, 3, 1).expand(-1, -1, -1, 3)
    black = torch.zeros(1, 3, 3, 3)
    placed = {
        (1, 1): [[0, 0, 0], [0, 1, 2], [0, 4, 5]],
        (-1, -2): [[8, 9, 0], [0, 0, 0], [0, 0, 0]],
        (9, 0): [[0, 0, 0]] * 3,
    }
    for (x, y), rows in placed.items():
        put = first("ImageCompositeMasked", destination=black, source=source, x=x, y=y, resize_source=False)
        assert put[0, ..., 0].tolist() == rows


def test_mask_composite_beyond_the_edge_changes_nothing() -> None:
    source = mask()
    result = first("MaskComposite", destination=source, source=source, x=99, y=99, operation="add")
    assert torch.equal(result, source)


def test_growing_reaches_as_far_as_it_says() -> None:
    dot = torch.zeros(1, 7, 7)
    dot[0, 3, 3] = 1.0
    rows, columns = torch.meshgrid(torch.arange(7), torch.arange(7), indexing="ij")
    straight = (rows - 3).abs() + (columns - 3).abs()
    square = torch.maximum((rows - 3).abs(), (columns - 3).abs())
    tapered = first("GrowMask", mask=dot, expand=2, tapered_corners=True)
    full = first("GrowMask", mask=dot, expand=2, tapered_corners=False)
    assert torch.equal(tapered[0], (straight <= 2).float())
    assert torch.equal(full[0], (square <= 2).float())
    assert torch.equal(first("GrowMask", mask=full, expand=-2, tapered_corners=False), dot)


def test_latent_interpolation_treats_each_sample_of_a_batch_alone() -> None:
    """Where ComfyUI 0.3.64 fails (batch and channels differ) or mixes them up (they do not)."""
    one, two = latent(0, 3), latent(1, 3)
    together = first("LatentInterpolate", samples1=one, samples2=two, ratio=0.3)["samples"]
    for index in range(3):
        single = first(
            "LatentInterpolate",
            samples1={"samples": one["samples"][index : index + 1]},
            samples2={"samples": two["samples"][index : index + 1]},
            ratio=0.3,
        )
        torch.testing.assert_close(together[index : index + 1], single["samples"])


def test_a_latent_smaller_than_a_crop_stays_whole() -> None:
    """Where ComfyUI 0.3.64 keeps only the last columns."""
    small = latent(0, 1, 6, 5)
    cropped = first("LatentCrop", samples=small, width=64, height=64, x=0, y=0)
    assert torch.equal(cropped["samples"], small["samples"])


def test_bislerp_keeps_the_strength_between_opposite_directions() -> None:
    samples = torch.zeros(1, 2, 1, 2)
    samples[0, :, 0, 0] = torch.tensor([2.0, 0.0])
    samples[0, :, 0, 1] = torch.tensor([0.0, 2.0])
    resized = common_upscale(samples, 4, 1, "bislerp", "disabled")
    torch.testing.assert_close(torch.linalg.vector_norm(resized, dim=1), torch.full((1, 1, 4), 2.0))


def test_a_group_that_took_no_part_is_empty() -> None:
    """Where ComfyUI 0.3.64 hands on None, or fails."""
    extract = {"string": "b ab", "regex_pattern": "(a)?b", "group_index": 1}
    flags = {"case_insensitive": True, "multiline": False, "dotall": False}
    assert first("RegexExtract", mode="First Group", **extract, **flags) == ""
    assert first("RegexExtract", mode="All Groups", **extract, **flags) == "\na"


def test_replacing_by_a_broken_pattern_fails_the_node() -> None:
    with pytest.raises(re.error):
        first("RegexReplace", string="a", regex_pattern="(", replace="b")


def test_preview_survives_an_object_that_cannot_be_shown() -> None:
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError("no")

    ui = run_ours("PreviewAny", {"source": Broken()})["ui"]
    assert ui == {"text": ("source exists, but could not be serialized.",)}


def test_image_size_is_shown_on_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []
    instance = types.SimpleNamespace(send_progress_text=lambda text, node_id: shown.append((text, node_id)))
    server = types.SimpleNamespace(PromptServer=types.SimpleNamespace(instance=instance))
    monkeypatch.setitem(sys.modules, "server", server)
    run_ours("GetImageSize", {"image": image(0, 2, 5, 7), "unique_id": "12"})
    assert shown == [("width: 7, height: 5\n batch size: 2", "12")]


def test_noise_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first("ImageAddNoise", image=image(), seed=5, strength=0.5)
    assert torch.equal(torch.rand(3), expected)


def test_repeat_to_batch_size_cuts_and_repeats() -> None:
    numbers = torch.arange(3)
    assert repeat_to_batch_size(numbers, 2).tolist() == [0, 1]
    assert repeat_to_batch_size(numbers, 7).tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert repeat_to_batch_size(numbers[None], 4, dim=1).tolist() == [[0, 1, 2, 0]]


def test_alpha_is_taken_away_or_added_to_the_source() -> None:
    rgb, rgba = torch.zeros(1, 1, 1, 3), torch.zeros(1, 1, 1, 4)
    assert image_alpha_fix(rgb, rgba)[1].shape[-1] == 3
    assert image_alpha_fix(rgba, rgb)[1].tolist() == [[[[0.0, 0.0, 0.0, 1.0]]]]


# -- files -------------------------------------------------------------------------------------------------


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """An empty base folder that folder_paths points to."""
    folder_paths.configure(tmp_path)
    return tmp_path


def test_saved_image_is_rounded_down_and_cut_off(folders: Path) -> None:
    values = torch.tensor([-0.5, 0.0, 0.5, 0.999, 1.0, 7.0])
    run_ours("SaveImage", {"images": values[None, None, :, None].expand(1, 1, 6, 3)})
    with Image.open(folders / "output" / "ComfyUI_00001_.png") as saved:
        assert [saved.getpixel((x, 0))[0] for x in range(6)] == [0, 0, 127, 254, 255, 255]


def test_saved_image_counts_on_and_is_listed(folders: Path) -> None:
    for _ in range(2):
        ui = run_ours("SaveImage", {"images": image(0, 2), "filename_prefix": "sub/pic"})["ui"]
    assert ui["images"] == [
        {"filename": f"pic_0000{number}_.png", "subfolder": "sub", "type": "output"} for number in (3, 4)
    ]
    assert len(list((folders / "output" / "sub").iterdir())) == 4


def test_saved_image_carries_prompt_and_workflow(folders: Path) -> None:
    metadata = {"prompt": {"1": {"inputs": {"text": "ü"}}}, "extra_pnginfo": {"workflow": {"nodes": []}}}
    ui = run_ours("SaveImage", {"images": image(), **metadata})["ui"]
    saved = open_saved(folders, ui["images"][0])
    assert json.loads(saved.text["prompt"]) == metadata["prompt"]
    assert json.loads(saved.text["workflow"]) == {"nodes": []}


def test_animations_hold_every_image_and_their_metadata(folders: Path) -> None:
    metadata = {"prompt": {"1": {}}, "extra_pnginfo": {"workflow": {"nodes": [1]}}}
    source = image(0, 3)
    pixels = (source * 255).to(torch.uint8).numpy()
    calls = {"SaveAnimatedWEBP": WEBP_OPTIONS, "SaveAnimatedPNG": {"fps": 12.5, "compress_level": 1}}
    for class_type, options in calls.items():
        inputs = {"images": source, "filename_prefix": "a/b", **options, **metadata}
        ui = run_ours(class_type, inputs)["ui"]
        assert ui["animated"] == (True,)
        path = folders / "output" / "a" / ui["images"][0]["filename"]
        with Image.open(path) as saved:
            assert saved.n_frames == 3
            for number in range(3):
                saved.seek(number)
                np.testing.assert_array_equal(np.array(saved.convert("RGB")), pixels[number])
                assert saved.info["duration"] == 80
        assert b"prompt" in path.read_bytes()
        assert b'{"nodes": [1]}' in path.read_bytes()


def test_disable_metadata_leaves_the_file_bare(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = types.SimpleNamespace(args=types.SimpleNamespace(disable_metadata=True))
    monkeypatch.setitem(sys.modules, "comfy.cli_args", arguments)
    ui = run_ours("SaveImage", {"images": image(), "prompt": {"1": {}}, "extra_pnginfo": {"workflow": {}}})["ui"]
    assert open_saved(folders, ui["images"][0]).text == {}


def test_saving_outside_the_output_folder_is_refused(folders: Path) -> None:
    with pytest.raises(Exception, match="outside the output folder"):
        run_ours("SaveImage", {"images": image(), "filename_prefix": "../escaped"})
    assert not list(folders.glob("escaped*"))


@pytest.mark.parametrize(("class_type", "inputs"), [("PreviewImage", "images"), ("MaskPreview", "mask")])
def test_previews_go_to_the_temp_folder(folders: Path, class_type: str, inputs: str) -> None:
    source = image(0, 2) if inputs == "images" else mask(0, 2)
    files = run_ours(class_type, {inputs: source})["ui"]["images"]
    assert [file["type"] for file in files] == ["temp", "temp"]
    assert all(re.fullmatch(r"ComfyUI_temp_[a-z]{5}_0000\d_\.png", file["filename"]) for file in files)
    assert {path.name for path in (folders / "temp").iterdir()} == {file["filename"] for file in files}


def test_a_saved_image_loads_as_it_was(folders: Path) -> None:
    pixels = (image() * 255).floor() / 255
    run_ours("SaveImage", {"images": pixels + 1e-4})
    loaded, empty_mask = run_ours("LoadImage", {"image": "ComfyUI_00001_.png [output]"})["outputs"]
    torch.testing.assert_close(loaded, pixels)
    assert torch.equal(empty_mask, torch.zeros(1, 64, 64))


def test_transparency_becomes_the_mask(folders: Path) -> None:
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0, 0] = (255, 0, 0, 255)
    Image.fromarray(pixels).save(folders / "input" / "a.png")
    loaded, transparency = run_ours("LoadImage", {"image": "a.png"})["outputs"]
    assert loaded.shape == (1, 2, 2, 3)
    assert transparency.tolist() == [[[0.0, 1.0], [1.0, 1.0]]]
    alone = first("LoadImageMask", image="a.png", channel="alpha")
    assert torch.equal(alone, transparency)


def test_load_image_lists_pictures_and_its_mask_all_files(folders: Path) -> None:
    for name in ("b.png", "a.jpg", "notes.txt"):
        (folders / "input" / name).touch()
    (folders / "input" / "folder.png").mkdir()
    assert NODE_CLASS_MAPPINGS["LoadImage"].INPUT_TYPES()["required"]["image"][0] == ["a.jpg", "b.png"]
    listed = NODE_CLASS_MAPPINGS["LoadImageMask"].INPUT_TYPES()["required"]["image"][0]
    assert listed == ["a.jpg", "b.png", "notes.txt"]


@pytest.mark.parametrize(
    ("class_type", "more"), [("LoadImage", {}), ("LoadImageMask", {"channel": "red"}), ("LoadImageOutput", {})]
)
def test_a_loader_changes_with_the_files_content(folders: Path, class_type: str, more: dict[str, str]) -> None:
    path = folders / "input" / "a.png"
    path.write_bytes(b"one")
    node = NODE_CLASS_MAPPINGS[class_type]
    changed = node.IS_CHANGED(image="a.png", **more)
    assert changed == hashlib.sha256(b"one").hexdigest()
    os.utime(path, (1, 1))
    assert node.IS_CHANGED(image="a.png", **more) == changed
    path.write_bytes(b"two")
    assert node.IS_CHANGED(image="a.png", **more) != changed


def test_a_missing_file_is_named_before_the_run(folders: Path) -> None:
    (folders / "output" / "there.png").touch()
    validate = NODE_CLASS_MAPPINGS["LoadImage"].VALIDATE_INPUTS
    assert validate(image="there.png [output]") is True
    assert validate(image="gone.png") == "Invalid image file: gone.png"
    # Only inputs it names are exempt from the server's own check.
    assert list(inspect.signature(validate).parameters) == ["image"]


def test_damaged_files_do_not_change_pillows_settings(base: Path) -> None:
    from PIL import ImageFile

    folder_paths.configure(base)
    first("LoadImage", image="truncated.png")
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False
    (base / "input" / "no_image.png").write_bytes(b"nothing")
    with pytest.raises(OSError, match="cannot identify image file"):
        first("LoadImage", image="no_image.png")
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False
