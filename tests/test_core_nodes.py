"""The embedded server's core nodes show the same interface as ComfyUI's and give the same results.

``CASES`` are calls of the nodes. Their results in ComfyUI 0.3.64 are recorded in
``data/core_nodes_0.3.64.npz``, so that every machine checks them; with COMFYUI_PATH they are compared with
that ComfyUI itself. With DISCOMFORT_RECORD set as well, the recordings are written anew. The tests behind the
cases state what nodes do without any recording.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from discomfort.embedded import folder_paths
from discomfort.embedded.core_nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS
from discomfort.embedded.core_nodes.align import image_alpha_fix, repeat_to_batch_size
from discomfort.embedded.core_nodes.preview import AnyType
from discomfort.embedded.core_nodes.resize import common_upscale

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
PORTER_DUFF = (
    "ADD CLEAR DARKEN DST DST_ATOP DST_IN DST_OUT DST_OVER LIGHTEN MULTIPLY OVERLAY SCREEN SRC SRC_ATOP SRC_IN "
    "SRC_OUT SRC_OVER XOR"
).split()
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

    for name in (
        "rgb.png rgba.png grey.png grey_alpha.png palette.png palette_transparent.png bilevel.png grey16.png "
        "grey32.tiff turned.png animated.png pages.tiff camera.mpo truncated.png"
    ).split():
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
    # Their result is a function; LatentApplyOperation's cases call it.
    "LatentOperationTonemapReinhard",
    "LatentOperationSharpen",
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
    expected = real["results"][name]
    assert "error" not in expected, expected["error"]
    assert_equal_results(flatten(run_ours(*CASES[name])), flatten(expected))
