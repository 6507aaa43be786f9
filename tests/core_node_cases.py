"""Calls of the embedded server's core nodes, by name: what test_core_nodes.py runs and compares.

``plain_cases`` are what the nodes are for, ``odd_cases`` what they are hardly ever given, ``later_cases`` the nodes of
a later version of ComfyUI. An input ``{"$node": (class_type, inputs)}`` is the first result of that call, ``{"$svg":
[text]}`` a link with drawings. Sizes are small: every result is recorded in ``data/``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

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
    _write_folders(folder, rgb)
    _write_latents(folder)


def _write_folders(folder: Path, rgb: Image.Image) -> None:
    """Folders of pictures. One picture each, or equal ones: the order of a folder is the file system's."""
    for name in ("one", "twins", "empty", "deep", "captions/3_cats", "captions/no_number", "mixed/2_x"):
        (folder / name).mkdir(parents=True)
    # For comparisons on one machine only.
    for number, size in enumerate([(5, 6), (4, 9), (8, 3)]):
        rgb.resize(size).save(folder / "mixed" / f"{number}.png")
        rgb.resize(size).save(folder / "mixed" / "2_x" / f"{number}.jpg")
        (folder / "mixed" / f"{number}.txt").write_text(f"caption {number}", encoding="utf-8")
    rgb.save(folder / "one" / "a.PNG")
    (folder / "one" / "notes.txt").write_text("no picture", encoding="utf-8")
    for name in ("a.png", "b.png"):
        rgb.save(folder / "twins" / name)
        (folder / "twins" / name.replace("png", "txt")).write_text(" the same \n", encoding="utf-8")
    # 32-bit grey exists in TIFF files alone; what counts is the name.
    Image.fromarray(np.arange(6, dtype=np.int32).reshape(2, 3) * 10000).save(folder / "deep" / "a.png", format="tiff")
    rgb.save(folder / "captions" / "3_cats" / "a.png")
    (folder / "captions" / "3_cats" / "a.txt").write_text("\n three càts\n", encoding="utf-8")
    (folder / "captions" / "no_number" / "notes.webp.txt").write_text("", encoding="utf-8")


def _write_latents(folder: Path) -> None:
    """Latents as ComfyUI saves them, older ones, and files that are none."""
    samples, mark = noise(6, 1, 4, 3, 2), {"latent_format_version_0": torch.tensor([])}
    save_file({"latent_tensor": samples, **mark}, folder / "saved.latent")
    save_file({"latent_tensor": samples}, folder / "unmarked.latent")
    save_file({"latent_tensor": samples.half(), **mark}, folder / "half.latent")
    save_file({"something": samples}, folder / "other.latent")
    (folder / "broken.latent").write_bytes(b"nothing")


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


class Cases(dict[str, Case]):
    """Cases by their names: class, then what is special about it."""

    def __call__(self, class_type: str, name: str = "plain", /, **inputs: Any) -> None:
        """Add one."""
        key = f"{class_type}-{name}"
        assert key not in self, key
        self[key] = Case(class_type, inputs)


def plain_cases(case: Cases) -> None:
    """Of the nodes of ComfyUI 0.3.64."""
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


def more_cases(case: Cases) -> None:
    """Of ComfyUI 0.3.64's empty latents and what else came later here."""
    square = {"width": 64, "height": 128, "batch_size": 2}
    for class_type in (
        "EmptySD3LatentImage",
        "EmptyHunyuanImageLatent",
        "EmptyChromaRadianceLatentImage",
    ):
        case(class_type, **{**square, "width": 64 if "Radiance" not in class_type else 16, "height": 16})
        case(class_type, "odd", width=69, height=33, batch_size=1)
        case(class_type, "default-batch", width=64, height=64)
    case("StableCascade_EmptyLatentImage", width=64, height=96, compression=42, batch_size=2)
    case("StableCascade_EmptyLatentImage", "odd", width=67, height=99, compression=5)
    for class_type in (
        "EmptyHunyuanLatentVideo",
        "EmptyMochiLatentVideo",
        "EmptyCosmosLatentVideo",
        "EmptyLTXVLatentVideo",
    ):
        for length in (1, 7, 8, 9, 25, 0):
            case(class_type, str(length), width=64, height=32, length=length, batch_size=1)
        case(class_type, "batch", width=69, height=33, length=5, batch_size=2)
    for seconds in (1.0, 1.05, 47.6, 3.3):
        for class_type in ("EmptyLatentAudio", "EmptyAceStepLatentAudio"):
            case(class_type, str(seconds), seconds=seconds, batch_size=1)
    case("EmptyLatentHunyuan3Dv2", resolution=7, batch_size=2)

    case("SetLatentNoiseMask", "flat", samples=latent(), mask=mask()[0])
    one, two = latent(0, 3, 3, 3), latent(1, 2, 3, 3, batch_index=[7, 8])
    wide = latent(2, 3, 3, 4)
    masked = latent(3, 3, 3, 3, noise_mask=noise(4, 1, 1, 24, 24))
    white = latent(5, 2, 3, 3, noise_mask=torch.ones(2, 1, 24, 24))
    for size in (1, 2, 3, 4, 9):
        case("RebatchLatents", f"one-{size}", latents=[one], batch_size=[size])
        case("RebatchLatents", f"numbered-{size}", latents=[one, two], batch_size=[size])
        case("RebatchLatents", f"sizes-{size}", latents=[one, wide, two], batch_size=[size])
        case("RebatchLatents", f"masks-{size}", latents=[masked, one, white], batch_size=[size])
    case("RebatchLatents", "none", latents=[], batch_size=[2])
    case(
        "RebatchLatents",
        "other-masks",
        latents=[one, latent(5, 2, 3, 3, noise_mask=noise(4, 2, 1, 5, 5))],
        batch_size=[9],
    )
    video = {"samples": noise(9, 2, 2, 3, 2, 2), "batch_index": [3, 4]}
    for amount in (0, 1, 2, 3, 9):
        case("TrimVideoLatent", str(amount), samples=video, trim_amount=amount)

    edges = image(0, 1, 40, 40)
    edges[:, 8:30, 10:26] = 0.0
    edges[:, 20:35, 18:36] += 0.6
    for low, high in [(0.4, 0.8), (0.01, 0.02), (0.2, 0.99), (0.5, 0.5), (0.8, 0.4), (0.0, 0.5)]:
        case("Canny", f"{low}-{high}", image=edges, low_threshold=low, high_threshold=high)
    flat = torch.full((2, 12, 14, 3), 0.5)
    flat[:, 4:8, 5:9] = 1.0
    flat[1, 3:9, 3] = 0.0
    thresholds = {"low_threshold": 0.3, "high_threshold": 0.7}
    case("Canny", "square", image=flat, **thresholds)
    case("Canny", "nothing", image=torch.zeros(1, 6, 6, 3), **thresholds)
    case("Canny", "small", image=image(0, 1, 3, 3), **thresholds)
    case("Canny", "smaller", image=image(0, 1, 2, 3), **thresholds)
    case("Canny", "grey", image=image(0, 2, 9, 9, 1), **thresholds)
    case("Canny", "alpha", image=image(0, 1, 9, 9, 4), **thresholds)
    ring = torch.zeros(1, 24, 24, 3)
    rows, columns = torch.meshgrid(torch.arange(24.0), torch.arange(24.0), indexing="ij")
    ring[0, ((rows - 11.5) ** 2 + (columns - 11.5) ** 2).sqrt() < 8] = 0.9
    case("Canny", "ring", image=ring, **thresholds)
    case("Canny", "soft", image=ring * 0.3 + image(3, 1, 24, 24) * 0.1, **thresholds)

    case("LoadImageSetFromFolderNode", folder="one", resize_method="None")
    case("LoadImageSetFromFolderNode", "twins", folder="twins", resize_method="None")
    case("LoadImageSetFromFolderNode", "empty", folder="empty", resize_method="None")
    case("LoadImageSetFromFolderNode", "missing", folder="nowhere", resize_method="None")
    case("LoadImageSetFromFolderNode", "32-bit", folder="deep", resize_method="Pad")
    case("LoadLatent", latent="saved.latent")
    case("LoadLatent", "unmarked", latent="unmarked.latent")
    case("LoadLatent", "half", latent="half.latent")
    case("LoadLatent", "broken", latent="broken.latent")
    case("LoadLatent", "missing", latent="missing.latent")
    case("LoadLatent", "other", latent="other.latent")


def odd_cases(case: Cases) -> None:
    """Of the older nodes: one pixel, one channel, four, empty batches, numbers beyond the widgets' ranges."""
    pixel, grey, rgba = image(0, 1, 1, 1), image(0, 1, 5, 4, 1), image(0, 1, 5, 4, 4)
    nothing = image(0, 1, 3, 3)[:0]
    kinds = {"pixel": pixel, "1-channel": grey, "4-channels": rgba, "nothing": nothing}
    for name, source in kinds.items():
        case("ImageInvert", name, image=source)
        case("ImageBatch", f"onto-{name}", image1=source, image2=image(1, 1, 3, 3))
        case("ImageBatch", f"with-{name}", image1=image(1, 1, 3, 3), image2=source)
        case("ImageFromBatch", name, image=source, batch_index=0, length=1)
        case("RepeatImageBatch", name, image=source, amount=2)
        case("RebatchImages", name, images=[source, source], batch_size=[1])
        for method in METHODS:
            scale = {"image": source, "upscale_method": method}
            case("ImageScale", f"{name}-{method}", **scale, width=3, height=2, crop="center")
            case("ImageScaleBy", f"{name}-{method}", **scale, scale_by=1.7)
        case("ImageScaleBy", f"{name}-tiny", image=source, upscale_method="bilinear", scale_by=0.05)
        case("ImageScaleToMaxDimension", name, image=source, upscale_method="area", largest_size=3)
        case("ImageScaleToMaxDimension", f"{name}-0", image=source, upscale_method="area", largest_size=0)
        padding = {"padding_color": "white", "interpolation": "bilinear"}
        case("ResizeAndPadImage", name, image=source, target_width=3, target_height=4, **padding)
        case("ImageCrop", name, image=source, width=1, height=9, x=0, y=2)
        for flip in FLIPS:
            case("ImageFlip", f"{name}-{flip[0]}", image=source, flip_method=flip)
        for turn in TURNS:
            case("ImageRotate", f"{name}-{turn.split()[0]}", image=source, rotation=turn)
        pad = {"left": 1, "top": 2, "right": 0, "bottom": 1, "feathering": 1}
        case("ImagePadForOutpaint", name, image=source, **pad)
        stitch = {"direction": "right", "match_image_size": True, "spacing_width": 1, "spacing_color": "blue"}
        case("ImageStitch", f"onto-{name}", image1=source, image2=image(1, 1, 3, 3), **stitch)
        case("ImageStitch", f"with-{name}", image1=image(1, 1, 3, 3), image2=source, **stitch)
        loose = {**stitch, "direction": "down", "match_image_size": False, "spacing_width": 0}
        case("ImageStitch", f"loose-{name}", image1=image(1, 1, 3, 3), image2=source, **loose)
        case("ImageAddNoise", name, image=source, seed=1, strength=0.5)
        case("GetImageSize", name, image=source)
        for mode in BLEND_MODES:
            blend = {"blend_factor": 0.4, "blend_mode": mode}
            case("ImageBlend", f"{name}-{mode}", image1=source, image2=source.flip(2), **blend)
        blend = {"blend_factor": 1.5, "blend_mode": "multiply"}
        case("ImageBlend", f"onto-{name}", image1=source, image2=image(1, 1, 3, 3), **blend)
        case("ImageBlend", f"with-{name}", image1=image(1, 1, 3, 3), image2=source, **blend)
        case("ImageBlur", f"{name}-1", image=source, blur_radius=1, sigma=1.0)
        case("ImageBlur", f"{name}-4", image=source, blur_radius=4, sigma=1.0)
        case("ImageSharpen", f"{name}-1", image=source, sharpen_radius=1, sigma=1.0, alpha=1.0)
        case("ImageQuantize", f"{name}-none", image=source, colors=3, dither="none")
        case("ImageQuantize", f"{name}-bayer", image=source, colors=3, dither="bayer-4")
        for operation in ("erode", "dilate", "top_hat"):
            case("Morphology", f"{name}-{operation}", image=source, operation=operation, kernel_size=3)
        case("ImageRGBToYUV", name, image=source)
        case("ImageYUVToRGB", name, Y=source, U=source, V=source)
        for channel in ("red", "green", "blue", "alpha"):
            case("ImageToMask", f"{name}-{channel}", image=source, channel=channel)
        case("ImageColorToMask", name, image=source, color=0xFF)
        case("SplitImageWithAlpha", name, image=source)
        case("JoinImageWithAlpha", name, image=source, alpha=mask(0, 1, 2, 2))
        put = {"x": 1, "y": 1, "resize_source": False}
        case("ImageCompositeMasked", f"onto-{name}", destination=source, source=image(1, 1, 2, 2), **put)
        case("ImageCompositeMasked", f"with-{name}", destination=image(1, 1, 4, 4), source=source, **put)
        case(
            "ImageCompositeMasked",
            f"stretched-{name}",
            destination=image(1, 2, 4, 4),
            source=source,
            x=0,
            y=0,
            resize_source=True,
        )
        layers = {"source_alpha": mask(0, 1, 2, 2), "destination_alpha": mask(1, 1, 2, 2), "mode": "SRC_OVER"}
        case("PorterDuffImageComposite", f"onto-{name}", source=image(1, 1, 2, 2), destination=source, **layers)
        case("PorterDuffImageComposite", f"with-{name}", source=source, destination=image(1, 1, 2, 2), **layers)
    case("EmptyImage", "no-size", width=0, height=3)
    case("EmptyImage", "white", width=2, height=1, color=0xFFFFFF)
    case("EmptyImage", "too-large", width=1, height=1, color=0x1FFFFFF)
    case("RebatchImages", "sizes", images=[image(0, 1, 2, 2), image(1, 1, 3, 3)], batch_size=[2])
    case("RebatchImages", "empty", images=[], batch_size=[2])
    case("ImageFromBatch", "negative", image=image(batch=3), batch_index=-1, length=1)
    case("ImageFromBatch", "none", image=image(batch=3), batch_index=1, length=0)
    case("RepeatImageBatch", "none", image=image(0, 1, 2, 2), amount=0)
    case("ImageScale", "unknown", image=image(0, 1, 2, 2), upscale_method="magic", width=2, height=2, crop="disabled")
    case("ImageScale", "no-crop", image=image(0, 1, 4, 9), upscale_method="area", width=2, height=2, crop="other")
    for width, height in [(1, 1), (100, 1), (1, 100), (31, 2)]:
        scale = {"upscale_method": "nearest-exact", "width": width, "height": height, "crop": "center"}
        case("ImageScale", f"extreme-{width}x{height}", image=image(0, 1, 3, 7), **scale)
        case("ImageScale", f"extreme-follows-{width}x{height}", image=image(0, 1, 1, 50), **{**scale, "height": 0})
    for size in (1, 4, 99):
        case(
            "ImageScaleToMaxDimension",
            f"thin-{size}",
            image=image(0, 1, 1, 9),
            upscale_method="lanczos",
            largest_size=size,
        )
    case("ImageScaleToTotalPixels", "thin", image=image(0, 1, 1, 9), upscale_method="area", megapixels=0.01)
    for width, height in [(1, 9), (9, 1), (100, 3)]:
        pad = {"target_width": width, "target_height": height, "padding_color": "black", "interpolation": "area"}
        case("ResizeAndPadImage", f"extreme-{width}x{height}", image=image(0, 1, 3, 50), **pad)
    case("ImageCrop", "none", image=image(), width=0, height=2, x=0, y=0)
    case("ImageCrop", "negative", image=image(), width=3, height=3, x=-2, y=-5)
    case("ImageRotate", "other", image=image(0, 1, 2, 3), rotation="45 degrees")
    case("ImageFlip", "other", image=image(0, 1, 2, 3), flip_method="z-axis")
    wide = {"left": 0, "top": 0, "right": 0, "bottom": 0}
    for number, sides in enumerate([{"left": 3}, {"top": 3, "bottom": 1}, {"right": 2, "left": 1}, {}]):
        for feathering in (0, 1, 4, 5, 99):
            source = image(0, 1, 11, 10)
            case(
                "ImagePadForOutpaint",
                f"feather-{number}-{feathering}",
                image=source,
                **{**wide, **sides},
                feathering=feathering,
            )
    case("ImagePadForOutpaint", "negative", image=image(), **{**wide, "left": -2}, feathering=0)
    for direction in ("right", "down", "left", "up"):
        for first, second in [((3, 4), (5, 2)), ((1, 1), (4, 3)), ((6, 2), (6, 2))]:
            for match in (True, False):
                name = f"{direction}-{match}-{first[0]}{first[1]}-{second[0]}{second[1]}"
                stitch = {"direction": direction, "match_image_size": match, "spacing_width": 1}
                sources = {"image1": image(0, 2, *first), "image2": image(1, 1, *second)}
                case("ImageStitch", name, **sources, **stitch, spacing_color="red")
    stitch = {"direction": "right", "match_image_size": False, "spacing_width": 0, "spacing_color": "nothing"}
    case(
        "ImageStitch", "no-color", image1=image(0, 1, 2, 2), image2=image(1, 1, 2, 2), **{**stitch, "spacing_width": 2}
    )
    case(
        "ImageStitch",
        "rgba-twice",
        image1=image(0, 1, 2, 2, 4),
        image2=image(1, 1, 3, 2, 4),
        **{**stitch, "spacing_color": "white", "spacing_width": 2},
    )
    case("ImageStitch", "empty-second", image1=image(0, 1, 2, 2), image2=None, **stitch)
    around = {**stitch, "direction": "around", "spacing_color": "white"}
    case("ImageStitch", "other-way", image1=image(0, 1, 2, 2), image2=image(1, 1, 2, 2), **around)
    case("ImageAddNoise", "negative-seed", image=image(0, 1, 2, 2), seed=-1, strength=0.5)
    case("ImageBlend", "unknown", image1=image(), image2=image(), blend_factor=0.5, blend_mode="magic")
    case(
        "ImageBlend",
        "batches",
        image1=image(0, 3, 2, 2),
        image2=image(1, 2, 2, 2),
        blend_factor=0.5,
        blend_mode="normal",
    )
    case(
        "ImageBlend",
        "one-and-many",
        image1=image(0, 1, 2, 2),
        image2=image(1, 2, 2, 2),
        blend_factor=0.5,
        blend_mode="screen",
    )
    bright = image() * 3 - 1
    for mode in BLEND_MODES:
        case("ImageBlend", f"bright-{mode}", image1=bright, image2=bright.flip(1), blend_factor=0.5, blend_mode=mode)
    case("ImageQuantize", "bright", image=bright, colors=4, dither="floyd-steinberg")
    case("ImageQuantize", "one", image=image(0, 1, 4, 4), colors=1, dither="none")
    case("ImageQuantize", "one-bayer", image=image(0, 1, 4, 4), colors=1, dither="bayer-2")
    case("ImageQuantize", "flat", image=torch.full((1, 4, 4, 3), 0.3), colors=8, dither="bayer-2")
    case("ImageQuantize", "too-many", image=image(0, 1, 4, 4), colors=300, dither="none")
    case("ImageSharpen", "bright", image=bright, sharpen_radius=2, sigma=1.0, alpha=1.0)
    case("Morphology", "unknown", image=image(0, 1, 3, 3), operation="melt", kernel_size=3)
    case("Morphology", "one", image=image(0, 1, 3, 3), operation="dilate", kernel_size=1)
    case("ImageColorToMask", "bright", image=bright, color=0xFFFFFF)
    case("ImageToMask", "other", image=image(0, 1, 2, 2), channel="purple")

    flat, many = mask()[0], mask(0, 3, 4, 5)
    case("SolidMask", "none", value=0.0, width=1, height=1)
    case("SolidMask", "beyond", value=-2.5, width=2, height=1)
    for name, source in {"flat": flat, "many": many, "pixel": mask(0, 1, 1, 1), "deep": mask()[None]}.items():
        case("InvertMask", name, mask=source)
        case("MaskToImage", f"of-{name}", mask=source)
        case("CropMask", f"of-{name}", mask=source, x=1, y=0, width=3, height=2)
        case("FeatherMask", f"of-{name}", mask=source, left=1, top=2, right=3, bottom=1)
        case("GrowMask", f"of-{name}", mask=source, expand=1, tapered_corners=True)
        case("GrowMask", f"shrunk-{name}", mask=source, expand=-2, tapered_corners=False)
        case("ThresholdMask", f"of-{name}", mask=source, value=0.3)
        for operation in ("multiply", "add", "subtract", "and", "or", "xor"):
            two = {"x": 1, "y": 1, "operation": operation}
            case("MaskComposite", f"onto-{name}-{operation}", destination=source, source=mask(1, 1, 2, 2), **two)
            case("MaskComposite", f"with-{name}-{operation}", destination=mask(1, 1, 6, 6), source=source, **two)
    case("MaskComposite", "unknown", destination=flat, source=flat, x=0, y=0, operation="magic")
    case("MaskComposite", "batches", destination=mask(0, 2), source=mask(1, 3), x=0, y=0, operation="add")
    case("CropMask", "negative", mask=many, x=-2, y=-1, width=3, height=2)
    case("GrowMask", "range", mask=many * 4 - 2, expand=-1, tapered_corners=True)
    for number, sides in enumerate([(5, 0, 5, 0), (0, 4, 0, 4), (1, 1, 1, 1), (5, 4, 5, 4), (2, 0, 0, 4)]):
        left, top, right, bottom = sides
        case("FeatherMask", f"meeting-{number}", mask=many, left=left, top=top, right=right, bottom=bottom)
    for name, through in {"flat": mask(2, 1, 3, 3)[0], "many": mask(2, 3, 3, 3), "pixel": mask(2, 1, 1, 1)}.items():
        put = {"destination": image(0, 2, 5, 5), "source": image(1, 3, 4, 4), "mask": through}
        case("ImageCompositeMasked", f"mask-{name}", **put, x=2, y=0, resize_source=False)
        case("ImageCompositeMasked", f"mask-{name}-stretched", **put, x=0, y=0, resize_source=True)
        put = {"destination": latent(0, 2, 5, 5), "source": latent(1, 3, 4, 4), "mask": through}
        case("LatentCompositeMasked", f"mask-{name}", **put, x=16, y=0, resize_source=False)
    case("JoinImageWithAlpha", "many", image=image(0, 1, 4, 4), alpha=mask(0, 3, 4, 4))
    case("JoinImageWithAlpha", "flat", image=image(0, 2, 4, 4), alpha=mask(0, 1, 4, 4)[0])
    for rule in PORTER_DUFF:
        corners = torch.tensor([0.0, 0.0, 1.0, 1.0, 0.5, 0.2]).reshape(1, 2, 3)
        other = torch.tensor([0.0, 1.0, 0.0, 1.0, 0.5, 0.9]).reshape(1, 2, 3)
        layers = {"source": image(0, 1, 2, 3), "destination": image(1, 1, 2, 3)}
        case(
            "PorterDuffImageComposite",
            f"corners-{rule}",
            **layers,
            source_alpha=corners,
            destination_alpha=other,
            mode=rule,
        )
    layers = {"source_alpha": mask(0, 1, 2, 2), "destination_alpha": mask(1, 1, 2, 2), "mode": "MAGIC"}
    case("PorterDuffImageComposite", "unknown", source=image(0, 1, 2, 2), destination=image(1, 1, 2, 2), **layers)

    tiny, video = latent(0, 1, 1, 1), {"samples": noise(9, 1, 4, 3, 5, 6)}
    sound = {"samples": noise(8, 1, 4, 6), "type": "audio"}
    for name, samples in {"tiny": tiny, "video": video, "sound": sound}.items():
        case("LatentFromBatch", name, samples=samples, batch_index=0, length=1)
        case("RepeatLatentBatch", name, samples=samples, amount=2)
        case("LatentBatch", name, samples1=samples, samples2=samples)
        case("LatentBatchSeedBehavior", name, samples=samples, seed_behavior="fixed")
        case("SetLatentNoiseMask", name, samples=samples, mask=mask())
        for method in [*METHODS[:4], "bislerp"]:
            case("LatentUpscaleBy", f"{name}-{method}", samples=samples, upscale_method=method, scale_by=1.5)
        case("LatentUpscale", name, samples=samples, upscale_method="bilinear", width=0, height=80, crop="center")
        for flip in FLIPS:
            case("LatentFlip", f"{name}-{flip[0]}", samples=samples, flip_method=flip)
        case("LatentRotate", name, samples=samples, rotation="90 degrees")
        case("LatentCrop", name, samples=samples, width=64, height=64, x=0, y=0)
        for dim in "xyt":
            case("LatentCut", f"{name}-{dim}", samples=samples, dim=dim, index=1, amount=2)
            case("LatentConcat", f"{name}-{dim}", samples1=samples, samples2=samples, dim=dim)
        case("LatentComposite", name, samples_to=samples, samples_from=samples, x=8, y=0, feather=8)
        put = {"destination": samples, "source": samples, "x": 0, "y": 0, "resize_source": True}
        case("LatentCompositeMasked", name, **put)
        case("LatentCompositeMasked", f"{name}-masked", **put, mask=mask())
        case("LatentBlend", name, samples1=samples, samples2=samples, blend_factor=0.3)
        case("LatentAdd", name, samples1=samples, samples2=samples)
        case("LatentSubtract", name, samples1=samples, samples2=latent(1, 1, 5, 6))
        case("LatentMultiply", name, samples=samples, multiplier=0.5)
        case("LatentInterpolate", name, samples1=samples, samples2=samples, ratio=0.5)
        tonemap = ("LatentOperationTonemapReinhard", {"multiplier": 1.0})
        case("LatentApplyOperation", f"{name}-tonemap", samples=samples, operation={"$node": tonemap})
        sharpen = ("LatentOperationSharpen", {"sharpen_radius": 1, "sigma": 1.0, "alpha": 0.1})
        case("LatentApplyOperation", f"{name}-sharpen", samples=samples, operation={"$node": sharpen})
    marked = latent(0, 2, 3, 3, batch_index=[5, 6], noise_mask=noise(3, 2, 1, 4, 4), downscale_ratio_spacial=16)
    other = latent(1, 1, 4, 4, noise_mask=noise(4, 1, 1, 5, 5), extra=3)
    case("LatentBatch", "marked", samples1=marked, samples2=other)
    case("LatentBatch", "channels", samples1=marked, samples2={"samples": noise(5, 1, 16, 3, 3)})
    for class_type in ("LatentAdd", "LatentSubtract"):
        case(class_type, "marked", samples1=marked, samples2=other)
        case(class_type, "channels", samples1=marked, samples2={"samples": noise(5, 1, 16, 3, 3)})
        case(class_type, "more", samples1=other, samples2=marked)
    case(
        "LatentInterpolate",
        "zeros",
        samples1={"samples": torch.zeros(1, 4, 2, 2)},
        samples2=latent(0, 1, 2, 2),
        ratio=0.5,
    )
    case("LatentConcat", "marked", samples1=marked, samples2=marked, dim="-y")
    case("LatentConcat", "sizes", samples1=marked, samples2=other, dim="x")
    case("LatentFromBatch", "marked", samples=marked, batch_index=1, length=5)
    case(
        "LatentFromBatch",
        "few-masks",
        samples=latent(0, 5, 2, 2, noise_mask=noise(3, 2, 1, 4, 4)),
        batch_index=2,
        length=2,
    )
    case("LatentFromBatch", "negative", samples=latent(0, 3, 2, 2), batch_index=-1, length=1)
    case("LatentFromBatch", "no-length", samples=latent(0, 3, 2, 2), batch_index=1, length=0)
    case("RepeatLatentBatch", "few-masks", samples=latent(0, 3, 2, 2, noise_mask=noise(3, 2, 1, 4, 4)), amount=2)
    case("RepeatLatentBatch", "gaps", samples=latent(0, 2, 2, 2, batch_index=[2, 9]), amount=3)
    case("LatentBatchSeedBehavior", "other", samples=marked, seed_behavior="other")
    case("LatentCrop", "sizes", samples=latent(0, 1, 20, 20), width=8, height=200, x=40, y=100)
    case(
        "LatentComposite",
        "beyond",
        samples_to=latent(0, 1, 4, 4),
        samples_from=latent(1, 1, 9, 9),
        x=16,
        y=8,
        feather=16,
    )
    case(
        "LatentComposite",
        "batches",
        samples_to=latent(0, 1, 4, 4),
        samples_from=latent(1, 2, 2, 2),
        x=0,
        y=0,
        feather=0,
    )
    case("LatentBlend", "batches", samples1=latent(0, 1, 4, 4), samples2=latent(1, 2, 4, 4), blend_factor=0.5)
    case("LatentMultiply", "marked", samples=marked, multiplier=0.0)
    for width, height in [(8, 8), (1, 1), (0, 1), (63, 65), (200, 0)]:
        scale = {"upscale_method": "nearest-exact", "width": width, "height": height, "crop": "center"}
        case("LatentUpscale", f"odd-{width}x{height}", samples=latent(0, 1, 3, 7), **scale)
    case(
        "LatentUpscale",
        "unknown",
        samples=latent(0, 1, 3, 3),
        upscale_method="magic",
        width=64,
        height=64,
        crop="disabled",
    )
    case("LatentUpscaleBy", "tiny", samples=latent(0, 1, 3, 3), upscale_method="area", scale_by=0.01)
    case("EmptyLatentImage", "odd", width=17, height=9)

    for name, value in {"none": None, "list": [1, "a"], "number": 3}.items():
        for class_type in ("PrimitiveString", "PrimitiveInt", "PrimitiveFloat", "PrimitiveBoolean"):
            case(class_type, name, value=value)
    texts = {
        "empty": "",
        "spaces": " \t\n ",
        "umlauts": "straße ÜBER İi ǅ",
        "lines": "a\r\nb\n\nc",
        "emoji": "👩‍👩‍👧 é e\u0301",
    }
    for name, text in texts.items():
        for start, end in [(0, 0), (-3, -1), (1, 100), (5, 2), (-100, 2)]:
            case("StringSubstring", f"{name}-{start}-{end}", string=text, start=start, end=end)
        case("StringLength", name, string=text)
        for mode in ("UPPERCASE", "lowercase", "Capitalize", "Title Case", "other"):
            case("CaseConverter", f"{name}-{mode}", string=text, mode=mode)
        for mode in ("Both", "Left", "Right", "other"):
            case("StringTrim", f"{name}-{mode}", string=text, mode=mode)
        case("StringConcatenate", name, string_a=text, string_b=text, delimiter=text)
        case("StringReplace", name, string=text, find="", replace="-")
        case("StringReplace", f"{name}-all", string=text, find=text, replace="")
        for sensitive in (True, False):
            case("StringContains", f"{name}-{sensitive}", string=text, substring="", case_sensitive=sensitive)
            case("StringContains", f"{name}-in-{sensitive}", string="STRASSE", substring=text, case_sensitive=sensitive)
            for mode in ("Starts With", "Ends With", "Equal"):
                compare = {"string_a": text, "string_b": text.upper(), "mode": mode, "case_sensitive": sensitive}
                case("StringCompare", f"{name}-{mode}-{sensitive}", **compare)
        flags = {"case_insensitive": False, "multiline": True, "dotall": False}
        for number, pattern in enumerate(["", "^", r"\b", r"(?P<x>\w)", r"(a)|(b)", "[", "(?i)A", r"\Z", "."]):
            case("RegexMatch", f"{name}-{number}", string=text, regex_pattern=pattern, **flags)
            case("RegexReplace", f"{name}-{number}", string=text, regex_pattern=pattern, replace=r"<\g<0>>", **flags)
            case("RegexReplace", f"{name}-{number}-group", string=text, regex_pattern=pattern, replace=r"\1")
            for mode in ("First Match", "All Matches", "First Group", "All Groups"):
                extract = {"string": text, "regex_pattern": pattern, "mode": mode, "group_index": 1}
                case("RegexExtract", f"{name}-{number}-{mode}", **extract, **flags)
    case("StringCompare", "other", string_a="a", string_b="a", mode="other", case_sensitive=True)
    case("RegexExtract", "other", string="a", regex_pattern="a", mode="other", group_index=0, **flags)
    for count in (-1, 0, 1, 100):
        case("RegexReplace", f"count-{count}", string="aaaa", regex_pattern="a", replace="b", count=count)
    for name, value in {
        "nan": float("nan"),
        "empty": "",
        "list": [1, [2, None]],
        "tuple": (1, "é"),
        "keys": {1: 2, "ä": None},
        "latent": {"samples": torch.zeros(1, 1, 1, 2)},
        "large": 10**30,
    }.items():
        case("PreviewAny", name, source=value)


def later_cases(case: Cases) -> None:
    """Of the nodes that ComfyUI 0.33.0 has beyond 0.3.64's."""
    kinds = {
        "rgb": image(0, 1, 9, 8),
        "batch": image(0, 2, 5, 6),
        "pixel": image(0, 1, 1, 1),
        "grey": image(0, 1, 5, 4, 1),
        "rgba": image(0, 1, 5, 4, 4),
        "bright": image(0, 1, 4, 4) * 3 - 1,
    }
    for name, source in kinds.items():
        for length in (1, 4, 7):
            case("ResizeImagesByShorterEdge", f"{name}-{length}", images=source, shorter_edge=length)
            case("ResizeImagesByLongerEdge", f"{name}-{length}", images=source, longer_edge=length)
        for width, height in [(3, 2), (1, 99), (99, 1), (5, 5)]:
            size = {"width": width, "height": height}
            case("CenterCropImages", f"{name}-{width}x{height}", images=source, **size)
            for seed in (0, 2**32 - 1, 2**64 - 1, 5):
                case("RandomCropImages", f"{name}-{width}x{height}-{seed}", images=source, **size, seed=seed)
        for factor in (0.0, 0.5, 1.0, 2.0, -1.0):
            case("AdjustBrightness", f"{name}-{factor}", images=source, factor=factor)
            case("AdjustContrast", f"{name}-{factor}", images=source, factor=factor)
        case("NormalizeImages", name, images=source, mean=0.3, std=0.2)
        case("NormalizeImages", f"{name}-none", images=source, mean=0.5, std=0.0)
        case("MergeImageLists", name, images=[source, source[:, :2]])
        case("ImageHistogram", name, image=source)
        grid = {"columns": [2], "cell_width": [4], "cell_height": [3], "padding": [1]}
        case("ImageGrid", name, images=[source, source.flip(1), source], **grid)
    thin = image(0, 1, 1, 9)
    case("ResizeImagesByShorterEdge", "thin", images=thin, shorter_edge=2)
    case("ResizeImagesByLongerEdge", "thin", images=thin, longer_edge=5)
    flat = image()[0]
    for class_type in ("ShuffleDataset", "MergeImageLists", "ImageDeduplication"):
        more = {"ShuffleDataset": {"seed": [3]}, "ImageDeduplication": {"similarity_threshold": [0.9]}}.get(
            class_type, {}
        )
        case(class_type, "empty", images=[], **more)
        case(class_type, "flat", images=[flat], **more)
        case(class_type, "text", images=["no image"], **more)
    singles = [image(number, 1, 2, 1) for number in range(5)]
    for seed in (0, 1, 2**32 - 1, 2**64 - 1):
        case("ShuffleDataset", str(seed), images=[singles[0], torch.cat(singles[1:])], seed=[seed])
        texts = [f"text {number}" for number in range(5)]
        case("ShuffleImageTextDataset", str(seed), images=singles, texts=texts, seed=[seed])
    case("ShuffleImageTextDataset", "few-texts", images=singles, texts=["a"], seed=[1])
    case(
        "ShuffleImageTextDataset",
        "batches",
        images=[image(0, 2, 1, 1), image(1, 3, 1, 1)],
        texts=["a", "b", "c"],
        seed=[2],
    )
    similar = [
        image(0, 1, 16, 16),
        image(0, 1, 16, 16) * 0.9,
        image(1, 1, 16, 16),
        image(0, 1, 16, 16).flip(2),
        torch.zeros(1, 9, 9, 3),
    ]
    for threshold in (0.0, 0.5, 0.6, 0.95, 1.0, 1.1):
        case("ImageDeduplication", str(threshold), images=[*similar, similar[-1]], similarity_threshold=[threshold])
    for columns, padding in [(1, 0), (3, 2), (20, 1)]:
        grid = {"columns": [columns], "cell_width": [3], "cell_height": [2], "padding": [padding]}
        case("ImageGrid", f"{columns}-{padding}", images=[*singles, image(0, 2, 3, 3)], **grid)
    case("ImageGrid", "empty", images=[], **grid)

    tiles = [
        ("even", 8, 8, 4, 4, 0),
        ("overlap", 9, 7, 4, 4, 1),
        ("large", 5, 6, 9, 9, 2),
        ("much", 9, 9, 4, 5, 9),
        ("one", 4, 4, 4, 4, 0),
    ]
    for name, height, width, tile_width, tile_height, overlap in tiles:
        source = image(0, 1, height, width)
        size = {"tile_width": tile_width, "tile_height": tile_height, "overlap": overlap}
        case("SplitImageToTileList", name, image=source, **size)
        pieces = {"$node": ("SplitImageToTileList", {"image": source, **size})}
        final = {"final_width": [width], "final_height": [height], "overlap": [overlap]}
        case("ImageMergeTileList", name, image_list=pieces, **final)
        case("ImageMergeTileList", f"{name}-few", image_list=[source[:, :tile_height, :tile_width]], **final)
        case(
            "ImageMergeTileList",
            f"{name}-sizes",
            image_list=[source[:, :3, :3], source[:, :2, :4], source[:, :4, :2]],
            **final,
        )
    case("SplitImageToTileList", "batch", image=image(0, 2, 5, 5, 4), tile_width=3, tile_height=3, overlap=1)
    case(
        "ImageMergeTileList",
        "batch",
        image_list=[image(0, 2, 3, 3, 4)] * 4,
        final_width=[5],
        final_height=[5],
        overlap=[1],
    )
    case("ImageMergeTileList", "small", image_list=[image(0, 1, 4, 4)], final_width=[3], final_height=[2], overlap=[1])
    case("ImageMergeTileList", "empty", image_list=[], final_width=[4], final_height=[4], overlap=[0])

    case("PrimitiveBoundingBox", x=1, y=2, width=3, height=4)
    box = {"x": 2, "y": 1, "width": 4, "height": 5}
    low = {"x": 0.5, "y": 3.25, "width": 4.5, "height": 2.5, "label": "cat", "score": 0.456}
    high = {"x": 1, "y": 0, "width": 3, "height": 6, "label": "unheard of", "score": 0.9}
    outside = {"x": 50, "y": -9, "width": 3, "height": 3}
    boxes = {
        "one": box,
        "list": [low, high],
        "lists": [[low, high], [box]],
        "few": [[], [box]],
        "outside": outside,
        "outsides": [[outside]],
        "empty": [],
        "empty-list": [[]],
        "no": None,
        "three": [[box], [high], [low]],
    }
    for name, bboxes in boxes.items():
        for kind in ("rgb", "batch", "grey", "rgba"):
            source = kinds[kind]
            case("DrawBBoxes", f"{name}-{kind}", bboxes=bboxes, image=source)
            for aspect in ("stretch", "pad"):
                for padding in (0, 1):
                    size = {"output_width": 4, "output_height": 3, "padding": padding, "keep_aspect": aspect}
                    case("CropByBBoxes", f"{name}-{kind}-{aspect}-{padding}", image=source, bboxes=bboxes, **size)
        if not name.startswith(("empty", "no")):
            case("DrawBBoxes", f"{name}-alone", bboxes=bboxes)
    case("DrawBBoxes", "bright", bboxes=box, image=kinds["bright"])
    case("CropByBBoxes", "pixel", image=kinds["pixel"], bboxes=outside, output_width=2, output_height=2, padding=0)

    scene = image(0, 1, 12, 16)
    subject = torch.zeros(1, 12, 16)
    subject[:, 4:9, 3:8] = 1.0
    corner = torch.zeros(1, 12, 16)
    corner[:, :5, 11:] = 0.9
    covers = {
        "subject": subject,
        "corner": corner,
        "inverted": 1 - subject,
        "faint": subject * 0.5,
        "almost": subject * 0.82,
        "dust": torch.maximum(subject, torch.tensor(0.04)),
        "half": torch.cat([torch.ones(1, 12, 8), torch.zeros(1, 12, 8)], dim=2),
        "nothing": torch.zeros(1, 12, 16),
        "everything": torch.ones(1, 12, 16),
        "noise": mask(0, 1, 12, 16),
        "pixel": torch.nn.functional.pad(torch.ones(1, 1, 1), (9, 6, 6, 5)),
    }
    cut = {"width": 16, "height": 16, "pad_factor": 1.0, "grow_mask": 0, "background": "#000000"}
    for name, cover in covers.items():
        for number, change in enumerate(
            [
                {},
                {"width": 8, "height": 6, "background": "#ff8000"},
                {"width": 24, "pad_factor": 1.37},
                {"height": 24, "grow_mask": 2},
                {"grow_mask": -2, "pad_factor": 2.0},
                {"grow_mask": -9},
            ]
        ):
            case("ImageCropToMask", f"{name}-{number}", images=scene, masks=cover, **{**cut, **change})
    for background in ("#fff", "808080", "#gggggg", "", "#12345"):
        case(
            "ImageCropToMask",
            f"background-{background}",
            images=scene,
            masks=subject,
            **{**cut, "background": background},
        )
    both = {"subject": subject, "batch": torch.cat([subject, corner]), "three": subject.expand(3, -1, -1)}
    for name, cover in both.items():
        case("ImageCropToMask", f"two-{name}", images=image(0, 2, 12, 16), masks=cover, **cut)
    case("ImageCropToMask", "size", images=scene, masks=mask(0, 1, 5, 7), **cut)
    case("ImageCropToMask", "rgba", images=image(0, 1, 12, 16, 4), masks=subject, **cut)
    case("ImageCropToMask", "grey", images=image(0, 1, 12, 16, 1), masks=subject, **cut)
    case("ImageCropToMask", "bright", images=scene * 3 - 1, masks=subject * 3 - 1, **cut)
    case("ImageCropToMask", "one-pixel", images=kinds["pixel"], masks=torch.ones(1, 1, 1), **cut)
    case("ImageCropToMask", "small", images=scene[:, :3, :2], masks=subject[:, 3:6, 2:4], **cut)
    case("ImageCropToMask", "none", images=scene[:0], masks=subject, **cut)

    video = {"samples": noise(9, 2, 3, 6, 4, 5), "batch_index": [1, 2]}
    for dim in "txy":
        for size in (1, 2, 4, 99):
            case("LatentCutToBatch", f"{dim}-{size}", samples=video, dim=dim, slice_size=size)
            case("LatentCutToBatch", f"image-{dim}-{size}", samples=latent(0, 1, 4, 5), dim=dim, slice_size=size)
    frames = {"samples": noise(8, 2, 3, 2, 4, 5), "noise_mask": noise(7, 1, 1, 2, 2)}
    for index in (0, 1, 4, 5, 6, 7, -1, -2, -6, -7, -99):
        case("ReplaceVideoLatentFrames", str(index), destination=video, index=index, source=frames)
    case("ReplaceVideoLatentFrames", "alone", destination=video, index=0)
    case("ReplaceVideoLatentFrames", "size", destination=video, index=0, source={"samples": noise(8, 2, 3, 2, 3, 5)})
    for start, reference in [(1, 1), (2, 3), (4, 5), (6, 2), (99, 99), (1, 99)]:
        count = {"start_frame_count": start, "reference_frame_count": reference}
        case("NormalizeVideoLatentStart", f"{start}-{reference}", latent=video, **count)
    count = {"start_frame_count": 2, "reference_frame_count": 2}
    case(
        "NormalizeVideoLatentStart",
        "far",
        latent={"samples": noise(3, 1, 2, 4, 3, 3) * torch.arange(1.0, 5.0).reshape(4, 1, 1)},
        **count,
    )
    case("NormalizeVideoLatentStart", "one", latent={"samples": noise(3, 1, 2, 1, 3, 3)}, **count)
    case("NormalizeVideoLatentStart", "image", latent=latent(0, 1, 4, 4), **count)
    for class_type in ("EmptyFlux2LatentImage", "EmptyHiDreamO1LatentImage"):
        case(class_type, width=32, height=16, batch_size=1)
        case(class_type, "odd", width=37, height=19)
    for layers in (0, 1, 3):
        case("EmptyQwenImageLayeredLatentImage", str(layers), width=20, height=16, layers=layers, batch_size=2)
    for class_type in ("EmptyHunyuanVideo15Latent", "EmptyARVideoLatent"):
        for length in (1, 4, 5, 9):
            case(class_type, str(length), width=37, height=32, length=length, batch_size=1)
    for seconds in (1.0, 1.03, 2.5):
        case("EmptyAceStep1.5LatentAudio", str(seconds), seconds=seconds, batch_size=2)
    for seconds in (0.0, 0.04, 0.06, 0.1, 1.28, 2.5, 360.0, 999.0):
        case("EmptyMiniMaxMusic3LatentAudio", str(seconds), seconds=seconds, batch_size=1)
    case("EmptyTrellis2LatentStructure", batch_size=1)

    texts = {"empty": "", "spaces": " \t\n ", "umlauts": "straße ÜBER İi", "lines": "a\r\nb\n\nc"}
    for name, text in texts.items():
        for class_type in ("TextToLowercase", "TextToUppercase", "StripWhitespace"):
            case(class_type, name, texts=text)
        for length in (1, 3, 100, -1):
            case("TruncateText", f"{name}-{length}", texts=text, max_length=length)
        case("AddTextPrefix", name, texts=text, prefix="<")
        case("AddTextSuffix", name, texts=text, suffix=">")
        case("ReplaceText", name, texts=text, find="", replace="-")
        case("ReplaceText", f"{name}-b", texts=text, find="b", replace="")
        case("MergeTextLists", name, texts=[text, "x"])
    case("MergeTextLists", "none", texts=[])
    documents = {
        "text": '{"a": "b"}',
        "number": '{"a": 1.50, "b": 2}',
        "null": '{"a": null}',
        "nested": '{"a": {"b": [1, true, null, "é"]}}',
        "list": '["a"]',
        "broken": '{"a"',
        "empty": "",
        "bool": '{"a": true}',
        "nan": '{"a": NaN}',
    }
    for name, document in documents.items():
        for key in ("a", "b", ""):
            case("JsonExtractString", f"{name}-{key}", json_string=document, key=key)
    case("JsonExtractString", "no-text", json_string=3, key="a")
    for indent in (0, 1, 2, 8):
        case("ConvertDictionaryToString", str(indent), dictionary={"a": [1, "é"], "b": {}}, indent=indent)
        case("ConvertArrayToString", str(indent), array=[1, [], {"é": None}], indent=indent)
    case("ConvertDictionaryToString", "default", dictionary={"x": 1})
    case("ConvertArrayToString", "tensor", array=[torch.zeros(1)])

    case("Painter", "nothing", mask="", width=4, height=3, bg_color="#ff8000")
    for color in ("#fff", "ff8000", "", "#FF800080", "#gggggg"):
        case("Painter", f"color-{color}", mask=" ", width=2, height=1, bg_color=color)
    for name in ("rgba.png", "rgb.png", "grey_alpha.png", "palette_transparent.png", "missing.png"):
        case("Painter", name, mask=name, width=4, height=3)
        case("Painter", f"{name}-over", mask=name, width=4, height=3, image=image(0, 2, 6, 5))
    case("Painter", "over-rgba", mask="rgba.png", width=4, height=3, image=image(0, 1, 6, 5, 4))
    case("Painter", "untouched", mask="", width=4, height=3, image=image(0, 2, 6, 5))

    for folder in ("one", "twins", "empty", "nowhere", "deep", "captions"):
        case("LoadImageDataSetFromFolder", folder, folder=folder)
        case("LoadImageTextDataSetFromFolder", folder, folder=folder)
    steps = torch.tensor([0, 31, 31.5, 63, 95, 96, 127, 128, 191, 192, 254, 255])
    for dilation in (0, 1, 50):
        case("VOIDQuadmaskPreprocess", f"steps-{dilation}", mask=steps.reshape(1, 3, 4), dilate_width=dilation)
        case("VOIDQuadmaskPreprocess", f"range-{dilation}", mask=mask(0, 2), dilate_width=dilation)
        case("VOIDQuadmaskPreprocess", f"flat-{dilation}", mask=mask()[0], dilate_width=dilation)
    case("VOIDQuadmaskPreprocess", "default", mask=mask(1, 1, 3, 3))
    case("VOIDQuadmaskPreprocess", "empty", mask=mask()[:0])
    case("ImageCropV2", image=image(0, 2), crop_region={"x": 2, "y": 3, "width": 4, "height": 2})
    case("ImageCropV2", "beyond", image=image(), crop_region={"x": 99, "y": 7, "width": 4, "height": 20})
    case("ImageCropV2", "empty", image=image(0, 1, 3, 3), crop_region={})
    case("ImageCropV2", "none", image=image(0, 1, 3, 3), crop_region={"x": 0, "y": 0, "width": 0, "height": 0})


def live_cases(case: Cases) -> None:
    """What is compared with a ComfyUI alone, not with a recording: large results, and text, which FreeType draws."""
    for width, height in [(8, 8), (3, 30), (30, 3), (13, 9), (9, 13), (1, 1)]:
        source = image(0, 1, height, width)
        case("FluxKontextImageScale", f"{width}x{height}", image=source)
    case("FluxKontextImageScale", "rgba", image=image(0, 2, 5, 7, 4))
    for method in ("None", "Stretch", "Crop", "Pad"):
        case("LoadImageSetFromFolderNode", f"mixed-{method}", folder="mixed", resize_method=method)
    case("LoadImageDataSetFromFolder", "mixed", folder="mixed")
    case("LoadImageTextDataSetFromFolder", "mixed", folder="mixed")
    long_text = (
        "A longer text, with words that are wrapped\\nand a secondlinewithoutanyspacesthatiscut\n\n\ttab \\t end"
    )
    texts = {"word": "Ay", "long": long_text, "spaces": " \n ", "umlauts": "ÄÖÜ ß é", "many": "line\n" * 30}
    for name, text in texts.items():
        for size in (0.5, 5.0, 20.0, 50.0):
            for position in ("top", "bottom"):
                for align in ("left", "center", "right"):
                    more = {"color": "#ff8000", "position": position, "align": align, "outline": size > 1}
                    key = f"{name}-{size}-{position}-{align}"
                    case("TextOverlay", key, images=image(0, 1, 90, 120), text=text, font_size=size, **more)
    more = {"position": "top", "align": "center", "font_size": 20.0}
    for color in ("red", "#f00", "#ff000080", "rgb(1, 2, 3)", "hsl(120, 50%, 50%)", "nothing", ""):
        for outline in (True, False):
            source = image(0, 2, 30, 40)
            case("TextOverlay", f"{color}-{outline}", images=source, text="Ay", color=color, outline=outline, **more)
    for name, source in {
        "pixel": image(0, 1, 1, 1),
        "grey": image(0, 1, 20, 20, 1),
        "rgba": image(0, 1, 20, 20, 4),
    }.items():
        case("TextOverlay", name, images=source, text="Ay", color="white", outline=True, **more)
