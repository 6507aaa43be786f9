"""image_files: pictures in, tensors out, and back."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from discomfort.image_files import open_image_as_mask, open_image_as_tensor, save_comfy_image_to_disk
from PIL import Image


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def levels_of(file: Path) -> np.ndarray:
    """The file's own 8-bit levels, as stored."""
    with Image.open(file) as picture:
        return np.array(picture)


def test_an_image_is_float32_bhwc_in_0_to_1(tmp_path: Path) -> None:
    pixels = noise(5, 7, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    tensor = open_image_as_tensor(tmp_path / "a.png")
    assert tensor.shape == (1, 5, 7, 3)
    assert tensor.dtype == torch.float32
    assert tensor.is_contiguous()
    assert np.array_equal(tensor[0].numpy(), pixels.astype(np.float32) / np.float32(255))
    tensor.mul_(0)  # the caller owns it


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".tiff", ".webp"])
def test_all_256_levels_come_back_exactly(tmp_path: Path, suffix: str) -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    levels[..., 1] = levels[..., 1].T
    Image.fromarray(levels).save(tmp_path / "a.png")
    tensor = open_image_as_tensor(tmp_path / "a.png")
    (file,) = save_comfy_image_to_disk(tensor, tmp_path / f"b{suffix}")
    assert np.array_equal(levels_of(file), levels)
    assert torch.equal(open_image_as_tensor(file), tensor)


def test_float_rounding_does_not_cost_a_level(tmp_path: Path) -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    tensor = 1 - (1 - torch.from_numpy(levels).float() / 255)
    (file,) = save_comfy_image_to_disk(tensor, tmp_path / "a.png")
    assert np.array_equal(levels_of(file), levels)


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    picture = Image.new("RGB", (4, 2), "red")
    picture.putpixel((0, 0), (0, 0, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned a quarter clockwise: top left goes to top right
    picture.save(tmp_path / "a.png", exif=exif)
    tensor = open_image_as_tensor(tmp_path / "a.png")
    assert tensor.shape == (1, 4, 2, 3)
    assert tensor[0, 0, 1].tolist() == [0, 0, 1]


def test_alpha_is_dropped_not_composited(tmp_path: Path) -> None:
    Image.new("RGBA", (2, 2), (255, 0, 51, 0)).save(tmp_path / "a.png")
    assert open_image_as_tensor(tmp_path / "a.png")[0, 0, 0].tolist() == pytest.approx([1, 0, 0.2])


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "CMYK", "RGBA"])
def test_other_modes_become_three_channels(tmp_path: Path, mode: str) -> None:
    suffix = ".tif" if mode == "CMYK" else ".png"
    Image.new("RGB", (3, 2), "white").convert(mode).save(tmp_path / f"a{suffix}")
    tensor = open_image_as_tensor(tmp_path / f"a{suffix}")
    assert tensor.shape == (1, 2, 3, 3)
    assert torch.equal(tensor, torch.ones(1, 2, 3, 3))


def test_16_bit_greyscale_keeps_its_precision(tmp_path: Path) -> None:
    values = np.array([[0, 1, 256, 32768, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    tensor = open_image_as_tensor(tmp_path / "a.png")
    assert tensor[0, 0, :, 0].tolist() == pytest.approx([0, 1 / 65535, 256 / 65535, 32768 / 65535, 1.0])
    assert tensor[0, 0, 1].unique().numel() == 1


def test_float_tiffs_are_clamped(tmp_path: Path) -> None:
    Image.fromarray(np.array([[-1.0, 0.25, 7.0]], dtype=np.float32)).save(tmp_path / "a.tif")
    assert open_image_as_tensor(tmp_path / "a.tif")[0, 0, :, 0].tolist() == [0.0, 0.25, 1.0]


def test_frames_become_a_batch(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 3), colour) for colour in ("red", "lime", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=10)
    tensor = open_image_as_tensor(tmp_path / "a.gif")
    assert tensor.shape == (3, 3, 4, 3)
    assert torch.equal(tensor[:, 0, 0], torch.eye(3))


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n broken"])
def test_what_is_no_image_is_said(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.png"):
        open_image_as_tensor(tmp_path / "a.png")


def test_a_cut_off_image_is_an_error(tmp_path: Path) -> None:
    Image.fromarray(noise(64, 64, 3)).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"a\.png.*cannot be read"):
        open_image_as_tensor(tmp_path / "a.png")


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no image file.*current directory"):
        open_image_as_tensor(tmp_path / "a.png")
    with pytest.raises(ValueError, match="is a folder"):
        open_image_as_tensor(tmp_path)


def test_a_mask_is_1_minus_alpha_or_else_brightness(tmp_path: Path) -> None:
    pixels = noise(5, 7, 4)
    Image.fromarray(pixels).save(tmp_path / "alpha.png")
    mask = open_image_as_mask(tmp_path / "alpha.png")
    assert (mask.shape, mask.dtype) == ((1, 5, 7), torch.float32)
    assert np.array_equal(mask[0].numpy(), 1 - pixels[..., 3].astype(np.float32) / np.float32(255))
    Image.fromarray(pixels[..., 0]).save(tmp_path / "grey.png")
    grey = open_image_as_mask(tmp_path / "grey.png")
    assert np.array_equal(grey[0].numpy(), pixels[..., 0].astype(np.float32) / np.float32(255))
    with pytest.raises(FileNotFoundError, match="There is no image file"):
        open_image_as_mask(tmp_path / "none.png")
    with pytest.raises(ValueError, match="is a folder"):
        open_image_as_mask(tmp_path)


def test_the_frames_of_a_mask_are_turned_and_counted(tmp_path: Path) -> None:
    frames = [Image.fromarray(noise(4, 6, 4)), Image.new("RGBA", (6, 4), (1, 2, 3, 51))]
    frames[0].save(tmp_path / "two.png", save_all=True, append_images=frames[1:])
    mask = open_image_as_mask(tmp_path / "two.png")
    assert mask.shape == (2, 4, 6)
    assert torch.equal(mask[1], torch.full((4, 6), 0.8))
    exif = Image.Exif()
    exif[0x0112] = 6
    frames[1].save(tmp_path / "turned.png", exif=exif)
    assert open_image_as_mask(tmp_path / "turned.png").shape == (1, 6, 4)


def test_saving_clamps_and_makes_folders(tmp_path: Path) -> None:
    tensor = torch.tensor([[-1.0, 0.5, 2.0, float("nan"), float("inf"), -float("inf")]])
    files = save_comfy_image_to_disk(tensor, tmp_path / "new" / "deep" / "a.png")
    assert files == [tmp_path / "new" / "deep" / "a.png"]
    assert levels_of(files[0]).tolist() == [[0, 128, 255, 0, 255, 0]]


def test_a_batch_gives_one_file_each(tmp_path: Path) -> None:
    batch = torch.stack([torch.full((2, 2, 3), i / 255) for i in range(3)])
    files = save_comfy_image_to_disk(batch, tmp_path / "a.png")
    assert [f.name for f in files] == ["a_00001.png", "a_00002.png", "a_00003.png"]
    assert [levels_of(f)[0, 0, 0] for f in files] == [0, 1, 2]
    assert sorted(tmp_path.iterdir()) == files, "and nothing else is left behind"


@pytest.mark.parametrize(
    ("shape", "mode"),
    [((1, 4, 5, 3), "RGB"), ((4, 5, 3), "RGB"), ((4, 5, 4), "RGBA"), ((4, 5, 1), "L"), ((4, 5), "L")],
)
def test_shapes_that_are_images(tmp_path: Path, shape: tuple[int, ...], mode: str) -> None:
    (file,) = save_comfy_image_to_disk(torch.rand(shape), tmp_path / "a.png")
    with Image.open(file) as picture:
        assert (picture.size, picture.mode) == ((5, 4), mode)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes_and_views_can_be_saved(tmp_path: Path, dtype: torch.dtype) -> None:
    tensor = torch.ones(3, 5, 4, dtype=dtype, requires_grad=True).permute(2, 1, 0)
    (file,) = save_comfy_image_to_disk(tensor, tmp_path / "a.png")
    assert open_image_as_tensor(file).shape == (1, 4, 5, 3)


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".bmp"])
def test_formats_without_alpha_drop_it(tmp_path: Path, suffix: str) -> None:
    (file,) = save_comfy_image_to_disk(torch.full((8, 8, 4), 0.5), tmp_path / f"a{suffix}")
    with Image.open(file) as picture:
        assert picture.mode == "RGB"
        assert abs(int(np.asarray(picture)[0, 0, 0]) - 128) <= 1


@pytest.mark.parametrize("shape", [(3,), (2, 3, 4, 5, 3), (4, 5, 2), (2, 3, 4, 5), (0, 4, 5, 3)])
def test_shapes_that_are_not(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\[B,H,W,C\]"):
        save_comfy_image_to_disk(torch.zeros(shape), tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"suffix must be one of \.png"):
        save_comfy_image_to_disk(torch.zeros(2, 2, 3), tmp_path / "a.xyz")
    with pytest.raises(TypeError, match="not list"):
        save_comfy_image_to_disk([1, 2], tmp_path / "a.png")  # type: ignore[arg-type]


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (file,) = save_comfy_image_to_disk(torch.zeros(2, 2, 3), tmp_path / "a.png")
    before = file.read_bytes()

    def fail(self: Image.Image, stream: object, **options: object) -> None:
        stream.write(b"half")  # type: ignore[attr-defined]
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        save_comfy_image_to_disk(torch.ones(2, 2, 3), file)
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no permission bits")
def test_files_get_the_usual_rights(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    (file,) = save_comfy_image_to_disk(torch.zeros(2, 2, 3), tmp_path / "a.png")
    assert stat.S_IMODE(file.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)
