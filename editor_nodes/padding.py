"""A picture with room for more of it on one side, and the mask of that room: what outpainting workflows begin with."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

DIRECTIONS = ("none", "left", "right", "up", "down")

# What new room is filled with: the grey from which samplers are the freest, as ComfyUI's own padding node has it.
_FILL = 0.5


def pad_image(image: torch.Tensor, direction: str, pixels: int, feathering: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Make room on one side.

    Args:
        image: [B,H,W,C] in 0..1.
        direction: one of DIRECTIONS; "none" adds nothing.
        pixels: width or height of the room.
        feathering: pixels of the old picture, next to the room, over which the mask goes from 1 down to 0. Where the
            picture is smaller, it goes to the other side.

    Returns:
        (image with the room in grey, mask [B,H,W]: 1 in the room, 0 in what is to be kept).
    """
    import torch

    if image.dim() != 4:
        raise ValueError(f"The image has the shape {tuple(image.shape)}; an image is [batch, height, width, channels].")
    if direction not in DIRECTIONS:
        raise ValueError(f"direction is {direction!r}; it must be one of {', '.join(DIRECTIONS)}.")
    batch, height, width, channels = image.shape
    if direction == "none":
        return image, torch.zeros(batch, height, width, dtype=image.dtype)
    # Seen from the side of the room: what goes to the left or up is turned around for that, and back.
    axis = 2 if direction in ("left", "right") else 1
    is_before = direction in ("left", "up")
    size = image.shape[axis]
    shape = [batch, height, width, channels]
    shape[axis] = pixels
    room = torch.full(shape, _FILL, dtype=image.dtype, device=image.device)
    padded = torch.cat((room, image) if is_before else (image, room), dim=axis)
    profile = torch.cat((_ramp(size, feathering), torch.ones(pixels)))
    if is_before:
        profile = profile.flip(0)
    profile = profile.to(image.dtype)
    mask = profile.view(1, 1, -1) if axis == 2 else profile.view(1, -1, 1)
    return padded, mask.expand(batch, padded.shape[1], padded.shape[2]).clone()


def _ramp(size: int, feathering: int) -> torch.Tensor:
    """Mask of the old picture along the axis: 0, then up to the room, slowly at first (squared)."""
    import torch

    ramp = torch.zeros(size)
    length = min(size, feathering)
    if length:
        ramp[size - length :] = (torch.arange(1, length + 1) / (length + 1)) ** 2
    return ramp
