"""DiscomfortFolderImageLoader: which files, in which order; their pixels as one batch or as a list."""

from __future__ import annotations

import asyncio
import json
import math
import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
import torch
from discomfort.comfy_serverless import NodeExecutionError, PromptInterruptedError, PromptRejectedError, ServerEvent
from discomfort.editor_nodes.fitted_images import Fitting, parse_colour
from discomfort.editor_nodes.folder_files import (
    Choice,
    find_files,
    fingerprint,
    natural_key,
    parse_pattern,
    resolve_folder,
)
from discomfort.editor_nodes.folder_image_loader import DiscomfortFolderImageLoader
from discomfort.editor_nodes.folder_images import FolderImages, Outside, load_batch, load_list
from discomfort.image_files import open_image_as_tensor
from discomfort.workflow_tools import DiscomfortWorkflowTools
from pack_server import SERVERS, server_path
from PIL import Image
from prompt_parts import node, port

from discomfort import ComfyConnector

# 6 pixels wide, 4 high, each of another colour; its levels divide by 255 in float32 like any others.
WIDE = np.arange(6 * 4 * 3, dtype=np.uint8).reshape(4, 6, 3) * 3


def save(folder: Path, name: str, pixels: Any = WIDE, **options: Any) -> Path:
    """An image file of some pixels, of a Pillow image, or of (mode, size, colour)."""
    picture = Image.fromarray(pixels) if isinstance(pixels, np.ndarray) else pixels
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    picture.save(folder / name, **options)
    return folder / name


def plain(colour: Any, size: tuple[int, int] = (3, 2), mode: str = "RGB") -> Image.Image:
    return Image.new(mode, size, colour)


def write(folder: Path, name: str, content: bytes = b"words") -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)


def names(folder: Path, pattern: str = "*", **choice: Any) -> list[str]:
    return find_files(Choice(folder, pattern, **choice)).names


def batch(folder: Path, policy: str = "pad to fit", outside: Outside | None = None, **fitting: Any) -> FolderImages:
    return load_batch(folder, names(folder), Fitting(policy, **fitting), outside)


def only_image(loaded: FolderImages) -> np.ndarray[Any, Any]:
    (images,) = loaded.images
    return images.numpy()


def levels(images: Any) -> np.ndarray[Any, Any]:
    """8-bit levels of images in 0..1, which have to be such levels exactly."""
    array = np.asarray(images)
    rounded = np.round(array * 255).astype(np.uint8)
    assert np.array_equal(array, rounded.astype(np.float32) / np.float32(255))
    return rounded


# ---- which files, in which order ----


def test_numbers_in_names_are_sorted_by_value() -> None:
    expected = ["1.png", "a.png", "a2.png", "A10.png", "b/1.png", "b/02.png", "b/2.png", "b/10.png", "b2/1.png"]
    mixed = expected[::-1]
    assert sorted(mixed, key=natural_key) == expected
    assert sorted(["x" + "9" * 200, "x10", "x²"], key=natural_key) == ["x10", "x" + "9" * 200, "x²"]


def test_orders(tmp_path: Path) -> None:
    for number, (name, side, age) in enumerate([("b10", 9, 1), ("b2", 40, 3), ("a1", 20, 2)]):
        path = save(tmp_path, f"{name}.png", np.random.default_rng(number).integers(0, 255, (side, side), np.uint8))
        os.utime(path, ns=(0, (1_000 - age) * 10**9))
    expected = {
        "name": ["a1", "b2", "b10"],
        "name as text": ["a1", "b10", "b2"],
        "modified": ["b2", "a1", "b10"],
        "size": ["b10", "a1", "b2"],
    }
    for sort_by, order in expected.items():
        assert [Path(name).stem for name in names(tmp_path, sort_by=sort_by)] == order, sort_by
        backwards = names(tmp_path, sort_by=sort_by, descending=True)
        assert [Path(name).stem for name in backwards] == order[::-1], sort_by
    with pytest.raises(ValueError, match="sort_by: 'date' is none of name, name as text"):
        names(tmp_path, sort_by="date")


def test_a_shuffled_order_is_that_of_its_seed(tmp_path: Path) -> None:
    for number in range(20):
        write(tmp_path, f"{number}.png")
    first = names(tmp_path, sort_by="random", shuffle_seed=1)
    assert first == names(tmp_path, sort_by="random", shuffle_seed=1)
    assert first != names(tmp_path, sort_by="random", shuffle_seed=2)
    assert first != names(tmp_path)
    assert sorted(first, key=natural_key) == names(tmp_path)


def test_start_every_and_limit_take_a_part_of_the_order(tmp_path: Path) -> None:
    for number in range(10):
        write(tmp_path, f"{number}.png")

    def numbers(**choice: int) -> str:
        return "".join(name[0] for name in names(tmp_path, **choice))

    assert numbers(start=3) == "3456789"
    assert numbers(every=3) == "0369"
    assert numbers(limit=2) == "01"
    assert numbers(start=1, every=2, limit=3) == "135"
    assert numbers(limit=100) == "0123456789"
    with pytest.raises(ValueError, match="start: 10 leaves out all 10 files that match"):
        numbers(start=10)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*", "a.png b.JPG"),
        ("*.jpg", "b.JPG"),
        ("B*", "b.JPG"),
        ("[ac].*", "a.png"),
        ("*.png ; *.jpg; ", "a.png b.JPG"),
        ("*.png;a*", "a.png"),
        ("sub/*", "sub/c.png"),
        ("sub\\*", "sub/c.png"),
        ("./sub//*.png", "sub/c.png"),
        ("*/*", "sub/c.png"),
        ("**/*", "a.png b.JPG sub/c.png sub/deep/d.png"),
        ("**", "a.png b.JPG sub/c.png sub/deep/d.png"),
        ("**/**/d*", "sub/deep/d.png"),
        ("**/deep/*", "sub/deep/d.png"),
        ("s*/**/*.png", "sub/c.png sub/deep/d.png"),
        ("*.txt", "notes.txt"),  # said in so many words, it is tried
        (".hidden/*", ".hidden/e.png"),
        (".*", ".f.png"),
    ],
)
def test_patterns(tmp_path: Path, pattern: str, expected: str) -> None:
    for name in ("a.png", "b.JPG", "notes.txt", "Thumbs.db", "sub/c.png", "sub/deep/d.png", ".hidden/e.png", ".f.png"):
        write(tmp_path, name)
    assert names(tmp_path, pattern) == expected.split()


@pytest.mark.parametrize("pattern", ["../*", "sub/../../*", "/etc/*", "C:\\pictures\\*", "\\\\server\\share\\*", "."])
def test_patterns_do_not_lead_out_of_the_folder(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"^pattern: .*leads out of the folder"):
        parse_pattern(pattern)


def test_an_empty_pattern_is_said() -> None:
    with pytest.raises(ValueError, match=r"^pattern: it is empty"):
        parse_pattern(" ; ")


@pytest.mark.skipif(sys.platform == "win32", reason="links and pipes need rights there")
def test_links_to_folders_and_pipes_are_passed_over(tmp_path: Path) -> None:
    save(tmp_path / "outside", "x.png")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "outside")
    (tmp_path / "in" / "circle").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "a.png").symlink_to(tmp_path / "outside" / "x.png")
    os.mkfifo(tmp_path / "in" / "pipe.png")
    assert names(tmp_path / "in", "**/*;linked/*") == ["a.png"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may look into every folder")
def test_a_closed_subfolder_is_listed_as_skipped(tmp_path: Path) -> None:
    save(tmp_path, "a.png")
    (tmp_path / "closed").mkdir(mode=0)
    found = find_files(Choice(tmp_path, "**/*"))
    assert found.names == ["a.png"]
    assert found.problems == ["closed/: Permission denied"]


def test_a_pattern_without_files_says_what_there_is(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt", "c.png", "README", "sub/d.png"):
        write(tmp_path, name)
    with pytest.raises(ValueError, match=r"No image in .*'\*\.jpg'") as error:
        names(tmp_path, "*.jpg")
    assert "4 files (2 x .txt, " in str(error.value)
    assert "1 x no ending" in str(error.value)
    assert "and 1 subfolder." in str(error.value)
    assert "**/*" in str(error.value)


def test_folders_that_are_none(tmp_path: Path) -> None:
    write(tmp_path, "Holiday 2023/a.png")
    assert resolve_folder("Holiday 2023", tmp_path) == tmp_path / "Holiday 2023"
    assert resolve_folder(f' "{tmp_path}" ', Path("/")) == tmp_path
    assert resolve_folder("", tmp_path) == tmp_path
    with pytest.raises(FileNotFoundError, match=r"no folder .*holiday 2024'. Similar names .*: 'Holiday 2023'\."):
        resolve_folder("holiday 2024", tmp_path)
    with pytest.raises(FileNotFoundError, match="has 1 folder, none of a similar name"):
        resolve_folder("xyz", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"Its path exists as far as '.*'\.") as error:
        resolve_folder("no/such/one", tmp_path)
    assert repr(str(tmp_path)) in str(error.value)
    with pytest.raises(NotADirectoryError, match="is a file, not a folder"):
        resolve_folder("Holiday 2023/a.png", tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match="folder: "):
        resolve_folder("a\0b", tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="HOME is another variable there")
def test_the_home_folder_may_be_written_as_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "pictures").mkdir()
    assert resolve_folder("~/pictures", Path("/")) == tmp_path / "pictures"


# ---- pixels ----


def test_a_batch_has_the_pixels_of_its_files(tmp_path: Path) -> None:
    for number in (1, 2, 10):
        save(tmp_path, f"{number}.png", WIDE + np.uint8(number))
    loaded = batch(tmp_path)
    assert loaded.file_names == ["1.png", "2.png", "10.png"]
    assert loaded.skipped == []
    assert [list(masks.shape) for masks in loaded.masks] == [[3, 4, 6]]
    assert not loaded.masks[0].any()
    assert loaded.images[0].dtype == loaded.masks[0].dtype == torch.float32
    assert np.array_equal(levels(only_image(loaded)), np.stack([WIDE + np.uint8(n) for n in (1, 2, 10)]))
    loaded.images[0].mul_(0)  # the caller owns it


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "CMYK", "RGBA", "I;16", "F", "YCbCr"])
def test_all_kinds_of_pixels_are_read_as_image_files_reads_them(tmp_path: Path, mode: str) -> None:
    if mode == "I;16":
        picture = Image.fromarray(np.array([[0, 1, 255], [256, 40000, 65535]], dtype=np.uint16))
    elif mode == "F":
        picture = Image.fromarray(np.array([[-1.0, 0.25, 7.0]], dtype=np.float32))
    else:
        picture = Image.fromarray(WIDE).convert(mode)
    path = save(tmp_path, "a.tif" if mode in ("CMYK", "F", "YCbCr") else "a.png", picture)
    expected = open_image_as_tensor(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(batch(tmp_path).images[0], expected)
        assert torch.equal(load_list(tmp_path, [path.name]).images[0], expected)


def test_masks_are_one_minus_alpha_and_hidden_colours_stay(tmp_path: Path) -> None:
    clear = plain((255, 0, 51, 0), mode="RGBA")
    clear.putpixel((1, 0), (10, 20, 30, 51))
    save(tmp_path, "1.png", clear)
    save(tmp_path, "2.png", plain((1, 2, 3)))
    loaded = batch(tmp_path)
    assert levels(only_image(loaded))[0, 0].tolist() == [[255, 0, 51], [10, 20, 30], [255, 0, 51]]
    expected = torch.ones(2, 3)
    expected[0, 1] = 1 - torch.tensor(51, dtype=torch.float32) / 255
    assert torch.equal(loaded.masks[0][0], expected)
    assert torch.equal(loaded.masks[0][1], torch.zeros(2, 3))
    listed = load_list(tmp_path, ["1.png", "2.png"])
    assert torch.equal(torch.cat(listed.masks), loaded.masks[0])


def test_a_palette_with_transparent_colours_gives_a_mask(tmp_path: Path) -> None:
    picture = Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8)).convert("P")
    picture.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    save(tmp_path, "a.png", picture, transparency=bytes([255, 0, 51]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Pillow warns where such palettes lose their transparency
        loaded = batch(tmp_path)
    assert levels(only_image(loaded))[0, 0].tolist() == [[255, 0, 0], [0, 255, 0], [0, 0, 255]]
    assert loaded.masks[0][0, 0].tolist() == pytest.approx([0, 1, 0.8])


@pytest.mark.parametrize("ending", [".png", ".jpg", ".tif", ".webp"])
def test_exif_orientation_is_applied(tmp_path: Path, ending: str) -> None:
    picture = plain("red", (64, 32))
    picture.paste((0, 0, 255), (0, 0, 16, 16))
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned a quarter clockwise: top left goes to top right
    path = save(tmp_path, f"a{ending}", picture, exif=exif)
    pixels = only_image(batch(tmp_path))
    assert np.array_equal(pixels, open_image_as_tensor(path).numpy())
    assert pixels.shape == (1, 64, 32, 3)
    assert pixels[0, 4, 26].tolist() == pytest.approx([0, 0, 1], abs=0.05)
    assert pixels[0, 4, 4].tolist() == pytest.approx([1, 0, 0], abs=0.05)
    assert load_list(tmp_path, [path.name]).images[0].shape == (1, 64, 32, 3)


def test_of_an_animation_the_first_frame_counts(tmp_path: Path) -> None:
    frames = [plain(colour) for colour in ("red", "lime", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=10)
    frames[1].save(tmp_path / "b.tif", save_all=True, append_images=frames[:1])
    frames[2].save(tmp_path / "c.webp", save_all=True, append_images=frames[:1], duration=10, lossless=True)
    assert torch.equal(torch.from_numpy(only_image(batch(tmp_path)))[:, 0, 0], torch.eye(3))


# ---- sizes ----


def test_pad_to_fit_keeps_all_of_an_image_in_the_middle(tmp_path: Path) -> None:
    save(tmp_path, "1.png", plain("red", (6, 4)))
    save(tmp_path, "2.png", WIDE[:, :2].copy())  # 2 x 4: bars left and right
    save(tmp_path, "3.png", WIDE[:1].copy())  # 6 x 1: bars above and below
    save(tmp_path, "4.png", plain((9, 9, 9), (3, 2)))  # scaled up
    loaded = batch(tmp_path, pad_colour="#102030")
    pixels = levels(only_image(loaded))
    expected = np.full((4, 4, 6, 3), (16, 32, 48), np.uint8)
    expected[0], expected[3] = (255, 0, 0), (9, 9, 9)
    expected[1, :, 2:4] = WIDE[:, :2]
    expected[2, 1] = WIDE[0]
    assert np.array_equal(pixels, expected)
    bars = np.zeros((4, 4, 6), np.float32)
    bars[1], bars[2] = 1, 1
    bars[1, :, 2:4], bars[2, 1] = 0, 0
    assert np.array_equal(loaded.masks[0].numpy(), bars)


def test_crop_to_fill_keeps_the_middle(tmp_path: Path) -> None:
    save(tmp_path, "1.png", plain("red", (2, 4)))
    save(tmp_path, "2.png", WIDE)  # 6 x 4: two columns are left of it
    save(tmp_path, "3.png", np.repeat(np.repeat(WIDE[:2], 2, 0), 2, 1))  # 12 x 4
    pixels = levels(only_image(batch(tmp_path, "crop to fill")))
    assert np.array_equal(pixels[1], WIDE[:, 2:4])
    assert np.array_equal(
        pixels[2], np.repeat(WIDE[:2, 2:4], 2, 0)[:, [0, 0]] * 0 + np.repeat(WIDE[:2], 2, 0)[:, [2, 3]]
    )
    halved = levels(only_image(batch(tmp_path, "crop to fill", width=1, height=2, resampling="nearest")))
    assert np.array_equal(halved[1], WIDE[[1, 3]][:, [3]])


def test_stretch_changes_proportions(tmp_path: Path) -> None:
    save(tmp_path, "1.png", plain("red", (12, 4)))
    save(tmp_path, "2.png", WIDE)
    pixels = levels(only_image(batch(tmp_path, "stretch", resampling="nearest")))
    assert np.array_equal(pixels[1], np.repeat(WIDE, 2, axis=1))


def test_a_difference_is_an_error_if_it_is_to_be(tmp_path: Path) -> None:
    for number in range(40):
        save(tmp_path, f"{number}.png", plain("red", (3, 2 if number not in (17, 23) else number)))
    with pytest.raises(ValueError, match=r"17\.png has 3 x 17 pixels, and the batch has 3 x 2\. Choose another"):
        batch(tmp_path, "error if they differ")
    with pytest.raises(ValueError, match=r"0\.png has 3 x 2 pixels, and width and height say 3 x 17\."):
        batch(tmp_path, "error if they differ", width=3, height=17)
    (tmp_path / "17.png").unlink()
    (tmp_path / "23.png").unlink()
    assert len(only_image(batch(tmp_path, "error if they differ"))) == 38


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [(0, 0, (4, 6)), (3, 0, (2, 3)), (0, 8, (8, 12)), (5, 5, (5, 5)), (100, 1, (1, 100))],
)
def test_width_and_height_are_given_or_the_first_image_s(
    tmp_path: Path, width: int, height: int, expected: tuple[int, int]
) -> None:
    write(tmp_path, "0.png")  # no image: not the first one either
    save(tmp_path, "1.png", WIDE)
    save(tmp_path, "2.png", plain("red", (50, 60)))
    for policy in ("pad to fit", "crop to fill", "stretch"):
        loaded = batch(tmp_path, policy, width=width, height=height)
        assert only_image(loaded).shape == (2, *expected, 3)
        assert loaded.masks[0].shape == (2, *expected)


@pytest.mark.parametrize("resampling", ["lanczos", "bicubic", "bilinear", "nearest"])
def test_images_and_masks_are_scaled_as_pillow_does(tmp_path: Path, resampling: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 4), dtype=np.uint8)
    save(tmp_path, "a.png", pixels)
    loaded = batch(tmp_path, "stretch", width=5, height=4, resampling=resampling)
    method = Image.Resampling[resampling.upper()]
    expected = Image.fromarray(pixels[..., :3].copy()).resize((5, 4), method)
    alpha = Image.fromarray(pixels[..., 3].copy()).resize((5, 4), method)
    assert np.array_equal(levels(only_image(loaded))[0], np.asarray(expected))
    assert np.allclose(loaded.masks[0][0], 1 - np.asarray(alpha, dtype=np.float32) / 255)


def test_16_bit_images_keep_their_precision_when_they_are_scaled(tmp_path: Path) -> None:
    save(tmp_path, "a.png", np.array([[1000, 1001], [1000, 1001]], dtype=np.uint16))
    pixels = only_image(batch(tmp_path, "stretch", width=1, height=1, resampling="bilinear"))
    assert pixels[0, 0, 0].tolist() == pytest.approx([1000.5 / 65535] * 3, rel=1e-5)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("policy", ["pad to fit", "crop to fill", "stretch"])
def test_a_jpeg_that_is_decoded_at_a_fraction_looks_the_same(tmp_path: Path, policy: str, orientation: int) -> None:
    ramp = np.stack(np.meshgrid(np.linspace(0, 255, 1001), np.linspace(0, 255, 1499), indexing="ij"), -1)
    pixels = np.dstack([ramp, np.full(ramp.shape[:2], 100)]).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    small = {"width": 90, "height": 77}
    for folder, ending in (("jpeg", ".jpg"), ("png", ".png")):
        options = {"exif": exif} if ending == ".png" else {"exif": exif, "quality": 98, "subsampling": 0}
        save(tmp_path / folder, f"a{ending}", pixels, **options)
    jpeg, png = (batch(tmp_path / folder, policy, pad_colour="white", **small) for folder in ("jpeg", "png"))
    assert np.array_equal(jpeg.masks[0], png.masks[0])
    assert np.abs(only_image(jpeg) - only_image(png)).max() < 4 / 255


@pytest.mark.parametrize(
    ("fitting", "words"),
    [
        ({"pad_colour": "blau"}, "pad_colour: 'blau' is no colour"),
        ({"policy": "cut"}, "size_policy: 'cut' is none of pad to fit"),
        ({"resampling": "cubic"}, "resampling: 'cubic' is none of lanczos"),
    ],
)
def test_words_that_are_none(tmp_path: Path, fitting: dict[str, str], words: str) -> None:
    save(tmp_path, "a.png")
    with pytest.raises(ValueError, match=words):
        batch(tmp_path, **fitting)


def test_colours_as_css_writes_them() -> None:
    assert parse_colour(" #f00 ") == parse_colour("red") == parse_colour("rgb(255, 0, 0)") == (1.0, 0.0, 0.0)
    assert parse_colour("#11223344") == (17 / 255, 34 / 255, 51 / 255)


# ---- a list ----


def test_a_list_leaves_every_image_its_size(tmp_path: Path) -> None:
    save(tmp_path, "1.png", WIDE)
    write(tmp_path, "2.png")
    save(tmp_path, "3.png", plain((7, 8, 9, 0), (3, 2), "RGBA"))
    loaded = load_list(tmp_path, names(tmp_path))
    assert [tuple(image.shape) for image in loaded.images] == [(1, 4, 6, 3), (1, 2, 3, 3)]
    assert [tuple(mask.shape) for mask in loaded.masks] == [(1, 4, 6), (1, 2, 3)]
    assert np.array_equal(levels(loaded.images[0])[0], WIDE)
    assert [mask.unique().tolist() for mask in loaded.masks] == [[0.0], [1.0]]
    assert loaded.file_names == ["1.png", "3.png"]
    assert loaded.skipped == ["2.png: not an image that Pillow can read"]


# ---- files that cannot be read ----


def test_unreadable_files_are_left_out_and_listed(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for number in range(12):
        save(tmp_path, f"{number}.png", np.full((64, 64, 4), number, np.uint8))
    whole = save(tmp_path, "3.png", noise).read_bytes()
    write(tmp_path, "3.png", whole[: len(whole) // 2])
    write(tmp_path, "0.png", b"")
    write(tmp_path, "7.png", b"no picture")
    write(tmp_path, "11.png", b"\x89PNG\r\n\x1a\n broken")
    write(tmp_path, "4.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")  # would start Ghostscript
    for loaded in (batch(tmp_path), load_list(tmp_path, names(tmp_path))):
        good = [1, 2, 5, 6, 8, 9, 10]
        assert loaded.file_names == [f"{number}.png" for number in good]
        images, masks = torch.cat(loaded.images), torch.cat(loaded.masks)
        assert images.shape == (7, 64, 64, 3)
        assert [levels(image).flat[0] for image in images] == good
        assert torch.allclose(masks[:, 0, 0], 1 - torch.tensor(good) / 255)
        assert [line.partition(": ")[0] for line in loaded.skipped] == [f"{n}.png" for n in (0, 3, 4, 7, 11)]
        reasons = [line.partition(": ")[2] for line in loaded.skipped]
        assert reasons[0] == "the file is empty"
        assert "truncated" in reasons[1]
        assert reasons[2] == reasons[3] == "not an image that Pillow can read"
    # What the gaps took is given back: the batch's memory is its own size.
    assert batch(tmp_path).images[0].untyped_storage().nbytes() == 7 * 64 * 64 * 3 * 4


def test_a_file_that_goes_away_is_skipped(tmp_path: Path) -> None:
    save(tmp_path, "a.png")
    assert load_batch(tmp_path, ["a.png", "b.png"], Fitting()).skipped == ["b.png: No such file or directory"]


def test_nothing_readable_is_one_error(tmp_path: Path) -> None:
    for number in range(5):
        write(tmp_path, f"{number}.png")
    sentence = r"None of the 5 files in .* can be read as an image\. 0\.png: not an image .* \.\.\. and 2 more\."
    for fitting in (Fitting(), Fitting(width=4, height=4)):
        with pytest.raises(ValueError, match=sentence):
            load_batch(tmp_path, names(tmp_path), fitting)
    with pytest.raises(ValueError, match=sentence):
        load_list(tmp_path, names(tmp_path))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_names_that_are_no_text_can_be_handed_on(tmp_path: Path) -> None:
    save(tmp_path, "a.png")
    os.rename(tmp_path / "a.png", os.fsencode(tmp_path) + b"/caf\xe9.png")
    (name,) = batch(tmp_path).file_names
    assert json.loads(json.dumps(name).encode()) == "caf�.png"


# ---- memory, progress, cancelling ----


def test_what_does_not_fit_into_memory_is_refused(tmp_path: Path) -> None:
    for number in range(5):
        save(tmp_path, f"{number}.png", plain("red", (100, 50)))
    of_one = 100 * 50 * 16
    outside = Outside(free_memory=lambda: int(of_one * 3.5))
    with pytest.raises(MemoryError, match=r"5 images of 100 x 50 with their masks need .* A limit of 3 fits"):
        batch(tmp_path, outside=outside)
    with pytest.raises(MemoryError, match=r"5 images with their masks need .* A limit of 3 fits\."):
        load_list(tmp_path, names(tmp_path), outside)
    with pytest.raises(MemoryError, match=r"Not even one fits: make width and height smaller\."):
        batch(tmp_path, outside=Outside(free_memory=lambda: 1000))
    assert len(load_batch(tmp_path, names(tmp_path, limit=3), Fitting(), outside).file_names) == 3


class Cancelled(BaseException):
    """As ComfyUI's newest InterruptProcessingException: no Exception."""


@pytest.mark.parametrize("load", [lambda *args: load_batch(*args[:2], Fitting(), args[2]), load_list])
def test_cancelling_ends_it_in_the_middle(tmp_path: Path, load: Callable[..., Any], monkeypatch: Any) -> None:
    for number in range(200):
        save(tmp_path, f"{number}.png")
    opened: list[str] = []
    real_open = Image.open

    def slow_open(path: Any, **options: Any) -> Any:
        if sys._getframe(1).f_code.co_name == "decode":
            opened.append(str(path))
            time.sleep(0.02)  # a large file
        return real_open(path, **options)

    monkeypatch.setattr(Image, "open", slow_open)

    def check() -> None:
        if len(opened) > 10:
            raise Cancelled

    with pytest.raises(Cancelled):
        load(tmp_path, names(tmp_path), Outside(check_interrupted=check))
    assert len(opened) < 100
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("discomfort-images")]


def test_cancelling_is_possible_while_folders_are_looked_through(tmp_path: Path) -> None:
    save(tmp_path, "sub/a.png")

    def check() -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        find_files(Choice(tmp_path, "**/*"), check)


MANY = """
import json, sys, threading
from pathlib import Path
import psutil
from discomfort.editor_nodes.folder_files import Choice, find_files
from discomfort.editor_nodes.fitted_images import Fitting
from discomfort.editor_nodes.folder_images import Outside, load_batch

folder, told = Path(sys.argv[1]), []
names = find_files(Choice(folder)).names
load_batch(folder, names[:50], Fitting())  # everything is imported now
Path("/proc/self/clear_refs").write_text("5")  # the peak begins again
before = psutil.Process().memory_info().rss
loaded = load_batch(folder, names, Fitting(), Outside(lambda *step: told.append(step)))
(peak,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
extra = int(peak.split()[1]) * 1024 - before - loaded.images[0].nbytes
print(json.dumps([extra, list(loaded.images[0].shape), len(loaded.file_names), len(loaded.skipped), told]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process its peak")
def test_memory_stays_bounded_with_5000_images(tmp_path: Path) -> None:
    content = save(
        tmp_path, "0.jpg", np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    ).read_bytes()
    for number in range(1, 5000):
        write(tmp_path, f"{number}.jpg", content)
    write(tmp_path, "77.jpg", b"words")
    done = subprocess.run(
        [sys.executable, "-c", MANY, str(tmp_path)], capture_output=True, text=True, check=True, timeout=120
    )
    extra, shape, count, skipped, told = json.loads(done.stdout)
    assert (shape, count, skipped) == ([4999, 64, 64, 3], 4999, 1)
    assert extra < 30e6, "beside the 246 MB of the batch; masks of zeros take nothing of their 82 MB"
    dones = [step[0] for step in told]
    assert dones == sorted(set(dones)), "progress never goes back, nor is anything told twice"
    assert told[-1] == [5000, 5000]
    assert {step[1] for step in told} == {5000}


def test_progress_is_told_in_the_calling_thread(tmp_path: Path) -> None:
    save(tmp_path, "a.png")
    told: list[Any] = []
    outside = Outside(lambda *step: told.append((step, threading.current_thread())))
    batch(tmp_path, outside=outside)
    load_list(tmp_path, names(tmp_path), outside)
    assert told == [((1, 1), threading.current_thread())] * 2


# ---- the node ----


def run_node(**inputs: Any) -> dict[str, Any]:
    outputs = DiscomfortFolderImageLoader().load_folder(**inputs)
    return dict(zip(DiscomfortFolderImageLoader.RETURN_NAMES, outputs, strict=True))


def test_input_and_output_names_and_their_order_are_those_that_saved_workflows_hold() -> None:
    inputs = DiscomfortFolderImageLoader.INPUT_TYPES()
    assert list(inputs["required"]) == ["folder"]
    assert list(inputs["optional"]) == [
        "pattern", "sort_by", "descending", "shuffle_seed", "start", "every", "limit", "output", "size_policy", "width",
        "height", "resampling", "pad_colour",
    ]  # fmt: skip
    assert DiscomfortFolderImageLoader.RETURN_NAMES == ("images", "masks", "file_names", "count", "skipped")
    assert inputs["optional"]["sort_by"][0] == ["name", "name as text", "modified", "size", "random"]
    assert inputs["optional"]["output"][0] == ["batch", "list"]
    assert inputs["optional"]["size_policy"][0] == ["pad to fit", "crop to fill", "stretch", "error if they differ"]
    assert inputs["optional"]["resampling"][0] == ["lanczos", "bicubic", "bilinear", "nearest"]


def test_the_node_loads_a_folder_with_its_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save(tmp_path, "in/1.png")
    save(tmp_path, "in/2.png")
    write(tmp_path, "in/3.png")
    found = run_node(folder="in")
    assert [list(value.shape) for value in found["images"]] == [[2, 4, 6, 3]]
    assert [list(value.shape) for value in found["masks"]] == [[2, 4, 6]]
    assert found["file_names"] == ["1.png", "2.png"]
    assert found["count"] == [2]
    assert found["skipped"] == ["3.png: not an image that Pillow can read"]
    assert len(run_node(folder="in", output="list")["images"]) == 2
    assert run_node(folder="in", limit=2)["skipped"] == [""]


def test_is_changed_follows_the_chosen_files(tmp_path: Path) -> None:
    def state(**inputs: Any) -> Any:
        return DiscomfortFolderImageLoader.IS_CHANGED(**{"folder": str(tmp_path), "unique_id": "1", **inputs})

    for number in range(3):
        save(tmp_path, f"{number}.png")
    first, two = state(), state(limit=2)
    assert isinstance(first, str)
    assert first == state()
    write(tmp_path, "notes.txt")
    assert state() == first, "no image"
    save(tmp_path, "3.png")
    assert state() != first
    assert state(limit=2) == two, "it is not among the first two"
    (tmp_path / "3.png").unlink()
    assert state() == first
    os.utime(tmp_path / "1.png", ns=(0, 1))
    assert state() != first
    assert len({state(sort_by="random", shuffle_seed=seed) for seed in range(20)}) == 6, "all orders of three"


def test_is_changed_of_linked_inputs(tmp_path: Path) -> None:
    save(tmp_path, "1.png")
    save(tmp_path, "2.png")
    is_changed = DiscomfortFolderImageLoader.IS_CHANGED
    assert math.isnan(is_changed(folder=None))
    assert math.isnan(is_changed(folder=str(tmp_path), pattern=None))
    linked = is_changed(folder=str(tmp_path), start=None, limit=1)
    assert linked == is_changed(folder=str(tmp_path), start=None, limit=1)
    os.utime(tmp_path / "2.png", ns=(0, 1))
    assert linked != is_changed(folder=str(tmp_path), start=None, limit=1), "it may be the chosen one"
    assert math.isnan(is_changed(folder=str(tmp_path / "none"))), "the node says it"


def test_a_fingerprint_can_be_asked_for_where_a_name_is_no_text(tmp_path: Path) -> None:
    save(tmp_path, "a.png")
    if sys.platform == "linux":
        os.rename(tmp_path / "a.png", os.fsencode(tmp_path) + b"/caf\xe9.png")
    assert len(fingerprint(Choice(tmp_path))) == 32


def test_what_can_be_told_without_the_disk_is_told_before_the_prompt_runs() -> None:
    validate = DiscomfortFolderImageLoader.VALIDATE_INPUTS
    assert validate() is True
    assert validate(pattern=None, pad_colour=None) is True, "linked inputs"
    assert "leads out of the folder" in str(validate(pattern="../*"))
    assert "no colour" in str(validate(pad_colour="x"))


# ---- the benchmark ----


def test_the_benchmark_still_runs_and_compares_pixels(tmp_path: Path) -> None:
    script = Path(__file__).resolve().parent.parent / "benchmarks" / "folder_images.py"
    words = [sys.executable, str(script), "--quick", "--only", "small", "--json", "found.json"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert not done.stderr
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))["sets"]["small"]
    totals = {way: runs[0]["total"] for way, runs in found.items()}
    assert totals["loader"] == totals["usual loop"] > 0
    assert done.stdout.count("| loader | ") == 1
    assert done.returncode == 0  # whether goals are kept says nothing here


# ---- in a server ----


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=SERVERS)
async def connector(request: pytest.FixtureRequest, write_config: Callable[..., Path]) -> AsyncIterator[ComfyConnector]:
    path = server_path(request.param)
    connector = await ComfyConnector.create(write_config(COMFYUI_PATH=path, DEVICE="cpu"))
    yield connector
    await connector.kill_api()


on_server = pytest.mark.asyncio(loop_scope="module")


def prompt_of(folder: Path, **inputs: Any) -> dict[str, Any]:
    outputs = enumerate(DiscomfortFolderImageLoader.RETURN_NAMES, start=2)
    ports = {str(number): port(name, ["1", number - 2]) for number, name in outputs}
    return {"1": node("DiscomfortFolderImageLoader", folder=str(folder), **inputs), **ports}


@on_server
async def test_a_batch_through_a_whole_run_and_again_when_a_file_is_added(
    connector: ComfyConnector, tmp_path: Path
) -> None:
    for number in (1, 2, 10):
        save(tmp_path, f"{number}.png", WIDE + np.uint8(number))
    tools = DiscomfortWorkflowTools(connector)
    result = await tools.run_sequential([prompt_of(tmp_path)])
    assert np.array_equal(levels(result["images"]), np.stack([WIDE + np.uint8(n) for n in (1, 2, 10)]))
    assert result["masks"].shape == (3, 4, 6)
    assert (result["file_names"], result["count"], result["skipped"]) == (["1.png", "2.png", "10.png"], 3, "")
    assert "1" not in result.record.steps[0].cached_nodes
    same = await tools.run_sequential([prompt_of(tmp_path)])
    assert "1" in same.record.steps[0].cached_nodes
    save(tmp_path, "3.png")
    more = await tools.run_sequential([prompt_of(tmp_path)])
    assert more["file_names"] == ["1.png", "2.png", "3.png", "10.png"]


@on_server
async def test_a_list_is_worked_on_image_by_image(connector: ComfyConnector, tmp_path: Path) -> None:
    save(tmp_path, "1.png", WIDE)
    save(tmp_path, "2.png", plain("red", (9, 5)))
    prompt = prompt_of(tmp_path, output="list")
    prompt["9"] = node("ImageInvert", image=["1", 0])
    prompt["10"] = port("inverted", ["9", 0])
    result = await DiscomfortWorkflowTools(connector).run_sequential([prompt])
    assert [tuple(image.shape) for image in result["images"]] == [(1, 4, 6, 3), (1, 5, 9, 3)]
    assert [tuple(mask.shape) for mask in result["masks"]] == [(1, 4, 6), (1, 5, 9)]
    assert (result["file_names"], result["count"]) == (["1.png", "2.png"], 2)
    assert torch.equal(result["inverted"][1], 1 - result["images"][1])


@on_server
async def test_errors_in_a_server_name_what_is_wrong(connector: ComfyConnector, tmp_path: Path) -> None:
    with pytest.raises(NodeExecutionError, match=r"there is no folder .*nowhere"):
        await connector.run_workflow(prompt_of(tmp_path / "nowhere"), use_workflow_json=False)
    with pytest.raises(PromptRejectedError, match="leads out of the folder"):
        await connector.run_workflow(prompt_of(tmp_path, pattern="../*"), use_workflow_json=False)
    with pytest.raises(PromptRejectedError, match="size_policy"):
        await connector.run_workflow(prompt_of(tmp_path, size_policy="cut"), use_workflow_json=False)


@on_server
async def test_progress_is_shown_and_cancel_stops_it(connector: ComfyConnector, tmp_path: Path) -> None:
    content = save(tmp_path, "0.png", np.random.default_rng(0).integers(0, 256, (900, 900, 3), np.uint8)).read_bytes()
    for number in range(1, 400):  # seconds of work
        (tmp_path / f"{number}.png").write_bytes(content)
    events: list[ServerEvent] = []
    prompt = prompt_of(tmp_path, width=8, height=8)
    task = asyncio.create_task(connector.run_workflow(prompt, use_workflow_json=False, on_event=events.append))
    deadline = time.monotonic() + 30
    while not (steps := [event.data for event in events if event.type == "progress"]):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    assert steps[0]["max"] == 400
    assert 0 < steps[0]["value"] < 400
    assert steps[0]["node"] == "1"
    await connector.interrupt()
    with pytest.raises(PromptInterruptedError):
        await task
    assert max(event.data["value"] for event in events if event.type == "progress") < 400
