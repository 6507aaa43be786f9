"""Values as pictures: IMAGE, MASK and LATENT, and what is none of them."""

from __future__ import annotations

import io
import time
from typing import Any

import pytest
import torch
from discomfort.value_pictures import count, kind_of, to_picture
from PIL import Image

from discomfort import value_pictures as pictures


def pixel(picture: Image.Image | None, x: int, y: int) -> Any:
    assert picture is not None
    return picture.getpixel((x, y))


def test_an_image_is_shown_as_it_is_clamped_and_without_nan() -> None:
    image = torch.zeros(2, 3, 4, 3)
    image[1, 2, 3] = torch.tensor([1.0, 0.5, -7.0])
    image[1, 0, 0] = torch.tensor([float("nan"), 9.0, 0.0])
    picture = to_picture(image, 1)
    assert picture is not None
    assert (picture.mode, picture.size) == ("RGB", (4, 3))
    assert pixel(picture, 3, 2) == (255, 128, 0)
    assert pixel(picture, 0, 0) == (0, 255, 0)
    assert pixel(to_picture(image, 0), 3, 2) == (0, 0, 0)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_channels_and_types_of_numbers(channels: int, mode: str, dtype: torch.dtype) -> None:
    picture = to_picture(torch.full((1, 8, 8, channels), 0.5, dtype=dtype))
    assert picture is not None
    assert picture.mode == mode


@pytest.mark.parametrize("shape", [(8, 9), (1, 8, 9), (3, 8, 9)])
def test_a_mask_is_grey(shape: tuple[int, ...]) -> None:
    picture = to_picture(torch.ones(shape), item=0)
    assert picture is not None
    assert (picture.mode, picture.size) == ("L", (9, 8))
    assert pixel(picture, 0, 0) == 255
    assert count(torch.ones(shape)) == (1 if len(shape) == 2 else shape[0])


@pytest.mark.parametrize("shape", [(2, 4, 16, 24), (2, 16, 16, 24), (2, 16, 5, 16, 24), (2, 1, 16, 24)])
def test_a_latent_is_shown_in_colours_of_its_own(shape: tuple[int, ...]) -> None:
    samples = torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 40
    samples[0, 0, ..., 0, 0] = float("nan")
    picture = to_picture({"samples": samples}, 1, size=96)
    assert picture is not None
    assert picture.width / picture.height == pytest.approx(24 / 16)
    low, high = picture.convert("L").getextrema()
    assert isinstance(low, int)
    assert isinstance(high, int)
    assert low < 64
    assert high > 192
    assert to_picture({"samples": samples}, 0, size=96) is not None


def test_a_latent_of_one_value_is_no_division_by_zero() -> None:
    assert to_picture({"samples": torch.full((1, 4, 8, 8), 3.0)}) is not None


@pytest.mark.parametrize(
    "value",
    [
        None,
        "text",
        {"samples": "text"},
        {"waveform": torch.zeros(1, 2, 100), "sample_rate": 44100},
        torch.zeros(5),
        torch.zeros(2, 3),
        torch.zeros(1, 8, 8, 2),
        torch.zeros(0, 8, 8, 3),
        torch.zeros(1, 8, 8, 3, dtype=torch.int32),
        torch.zeros(3, 3).to_sparse(),
    ],
    ids=str,
)
def test_what_is_no_picture(value: Any) -> None:
    assert to_picture(value) is None
    assert count(value) == 0


@pytest.mark.parametrize("item", [-1, 2, 99])
def test_an_item_that_is_not_there(item: int) -> None:
    assert to_picture(torch.zeros(2, 8, 8, 3), item) is None
    assert to_picture({"samples": torch.zeros(2, 4, 8, 8)}, item) is None


def test_the_longer_side_has_the_size_that_was_asked_for_and_small_ones_stay() -> None:
    tall = to_picture(torch.rand(1, 900, 301, 3), size=100)
    assert tall is not None
    assert tall.size[1] == 100
    assert 30 <= tall.size[0] <= 36
    small = to_picture(torch.rand(1, 20, 10, 3), size=100)
    assert small is not None
    assert small.size == (10, 20)


def test_a_large_value_costs_little_time_and_memory() -> None:
    # Five gigabytes that take four kilobytes of memory; written out, they would not fit.
    large = torch.ones(1).expand(400, 2048, 2048, 3)
    start = time.perf_counter()
    picture = to_picture(large, 399, 256)
    assert picture is not None
    assert max(picture.size) == 256
    assert time.perf_counter() - start < 1.0


def test_kinds() -> None:
    assert kind_of(torch.zeros(1, 8, 8, 3)) == "image"
    assert kind_of(torch.zeros(8, 8)) == "mask"
    assert kind_of({"samples": torch.zeros(1, 4, 8, 8)}) == "latent"
    assert kind_of(torch.zeros(77, 768, dtype=torch.int64)) == "tensor"
    assert kind_of([1]) == "other"


def test_files_can_be_read_again_and_what_is_transparent_is_on_grey() -> None:
    clear = to_picture(torch.zeros(1, 8, 8, 4))
    assert clear is not None
    with Image.open(io.BytesIO(pictures.as_jpeg(clear))) as jpeg:
        assert jpeg.mode == "RGB"
        assert all(abs(level - 128) < 4 for level in pixel(jpeg, 4, 4))
    with Image.open(io.BytesIO(pictures.as_png(clear))) as png:
        assert png.mode == "RGBA"
        assert pixel(png, 4, 4) == (0, 0, 0, 0)


def test_nothing_of_the_value_is_changed() -> None:
    image = torch.tensor([[[[2.0, -1.0, float("nan")]] * 8] * 8])
    before = image.clone()
    to_picture(image)
    torch.testing.assert_close(image, before, equal_nan=True)
