"""Core nodes for boxes: rectangles in an image, as models that find things give them.

A box is ``{"x", "y", "width", "height"}`` in pixels, and may carry a ``label`` and a ``score`` in 0..1. A link carries
one box, a list of them for every image, or a list of such lists, one per image. Names, inputs and results are those
of ComfyUI 0.33.0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..node_registry import MAX_RESOLUTION
from .image_io import to_tensor
from .preview import preview_images
from .resize import common_upscale

if TYPE_CHECKING:
    from PIL import Image, ImageFont
    from torch import Tensor

Box = dict[str, Any]

_BOX_WIDGET = {"default": {"x": 0, "y": 0, "width": 512, "height": 512}, "socketless": True}

# The things the detection models know (the 80 classes of the data set COCO, in its order): only these are written
# beside a box, and their number decides its colour.
_KNOWN_LABEL_NAMES = (
    "person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop sign, "
    "parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella, "
    "handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard, "
    "surfboard, tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, "
    "broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop, "
    "mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors, "
    "teddy bear, hair drier, toothbrush"
)
_KNOWN_LABELS = _KNOWN_LABEL_NAMES.split(", ")
_COLORS = (
    (255, 0, 0),
    (0, 200, 0),
    (0, 0, 255),
    (255, 165, 0),
    (128, 0, 128),
    (0, 255, 255),
    (255, 20, 147),
    (100, 149, 237),
)
_LINE_WIDTH = 3
# The side of the picture that is made for boxes without one, if there are none.
_EMPTY_SIDE = 640


class PrimitiveBoundingBox:
    """One box."""

    RETURN_TYPES = ("BOUNDING_BOX",)
    FUNCTION = "execute"
    CATEGORY = "utilities/primitive"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        position = {"default": 0, "min": 0, "max": MAX_RESOLUTION}
        size = {"default": 512, "min": 1, "max": MAX_RESOLUTION}
        return {
            "required": {
                "x": ("INT", position),
                "y": ("INT", position),
                "width": ("INT", size),
                "height": ("INT", size),
            }
        }

    def execute(self, x: int, y: int, width: int, height: int) -> tuple[Box]:
        """A box of the four numbers."""
        return ({"x": x, "y": y, "width": width, "height": height},)


class ImageCropV2:
    """A box of the image, drawn in the editor."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "execute"
    CATEGORY = "image/transform"
    DESCRIPTION = "Crop an image to the specified dimensions."
    SEARCH_ALIASES = ("crop", "cut", "trim")
    ESSENTIALS_CATEGORY = "Image Tools"
    HAS_INTERMEDIATE_OUTPUT = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        region = {**_BOX_WIDGET, "component": "ImageCrop"}
        return {"required": {"image": ("IMAGE", {}), "crop_region": ("BOUNDING_BOX", region)}}

    def execute(self, image: Tensor, crop_region: Box) -> dict[str, Any]:
        """As much of the box as lies in the image, at least its last row and column; also shown on the node."""
        left, top = (
            min(crop_region.get(name, 0), side - 1) for name, side in (("x", image.shape[2]), ("y", image.shape[1]))
        )
        bottom, right = top + crop_region.get("height", 512), left + crop_region.get("width", 512)
        cropped = image[:, top:bottom, left:right, :]
        return {"ui": {"images": preview_images(cropped), "animated": (False,)}, "result": (cropped,)}


class DrawBBoxes:
    """Boxes drawn onto an image."""

    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("out_image",)
    FUNCTION = "execute"
    CATEGORY = "image/detection"
    SEARCH_ALIASES = ("bbox", "bounding box", "object detection", "rt_detr", "visualize detections", "coco")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"bboxes": ("BOUNDING_BOX", {**_BOX_WIDGET, "forceInput": True})},
            "optional": {"image": ("IMAGE", {})},
        }

    def execute(self, bboxes: Box | list[Any], image: Tensor | None = None) -> tuple[Tensor]:
        """Each image with its boxes, those of high scores on top; black ones that hold them if there is no image.

        A label is written only where it is one of the classes of COCO, with the score.

        Returns:
            ``[B, H, W, C]`` in steps of 1/255.
        """
        import torch
        from PIL import ImageFont

        per_image = _per_image(bboxes, 1 if image is None else len(image))
        if image is None:
            image = torch.zeros((len(per_image), *_size_around(per_image), 3))
        # ComfyUI tries Arial first, which only Windows has under that name.
        try:
            font: Any = ImageFont.truetype("arial.ttf", 16)
        except OSError:
            font = ImageFont.load_default()
        drawn = [
            to_tensor(_drawn(_exact_picture(one), boxes, font)) for one, boxes in zip(image, per_image, strict=True)
        ]
        return (torch.stack([one if one.ndim == 3 else one[..., None] for one in drawn]),)


def _per_image(bboxes: Any, count: int) -> list[list[Box]]:
    """The boxes of each of ``count`` images."""
    lists: list[list[Box]] = [[]]
    if isinstance(bboxes, dict):
        lists = [[bboxes]]
    elif isinstance(bboxes, list) and bboxes:
        lists = [bboxes] if isinstance(bboxes[0], dict) else bboxes
    if len(lists) == 1:
        return lists * count
    return (lists + [[]] * count)[:count]


def _size_around(per_image: list[list[Box]]) -> tuple[int, int]:
    """Height and width of an image that holds all boxes."""
    boxes = [box for boxes in per_image for box in boxes]
    height = max((int(box["y"] + box["height"]) for box in boxes), default=_EMPTY_SIDE)
    return height, max((int(box["x"] + box["width"]) for box in boxes), default=_EMPTY_SIDE)


def _exact_picture(image: Tensor) -> Image.Image:
    """One image ``[H, W, C]`` as 8-bit pixels, rounded down; values outside 0..1 wrap round, as in ComfyUI."""
    import torch
    from PIL import Image

    pixels = image.mul(255).to(torch.uint8).cpu().numpy()
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def _drawn(picture: Image.Image, boxes: list[Box], font: ImageFont.FreeTypeFont) -> Image.Image:
    """A picture with boxes drawn onto it, lowest score first."""
    from PIL import ImageDraw

    draw = ImageDraw.Draw(picture)
    for box in sorted(boxes, key=lambda box: float(box.get("score", 1.0))):
        corners = _corners(box)
        label = box.get("label")
        number = _KNOWN_LABELS.index(label) if label in _KNOWN_LABELS else None
        color = _COLORS[(number or 0) % len(_COLORS)]
        draw.rectangle(corners, outline=color, width=_LINE_WIDTH)
        if number is not None:
            text = f"{label} {box.get('score', 1.0):.2f}"
            draw.text((corners[0] + 2, corners[1] + 2), text, fill=color, font=font)
    return picture


def _corners(box: Box) -> list[float]:
    """Left, top, right and bottom of a box."""
    left, top = box["x"], box["y"]
    return [left, top, left + box["width"], top + box["height"]]


class CropByBBoxes:
    """The part of each image that its boxes cover, in one size."""

    RETURN_TYPES = ("IMAGE",)
    OUTPUT_TOOLTIPS = ("All crops stacked into a single image batch.",)
    FUNCTION = "execute"
    CATEGORY = "image/transform"
    DESCRIPTION = "Crop and resize regions from the input image batch based on provided bounding boxes."
    SEARCH_ALIASES = ("crop", "face crop", "bbox crop", "pose", "bounding box")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        def side(tooltip: str) -> tuple[str, dict[str, Any]]:
            return ("INT", {"tooltip": tooltip, "default": 512, "min": 64, "max": 4096, "step": 8})

        padding_tooltip = "Extra padding in pixels added on each side of the bbox before cropping."
        aspect_tooltip = (
            "Whether to stretch the crop to fit the output size, or pad with black pixels to preserve aspect ratio."
        )
        return {
            "required": {
                "image": ("IMAGE", {}),
                "bboxes": ("BOUNDING_BOX", {**_BOX_WIDGET, "forceInput": True}),
                "output_width": side("Width each crop is resized to."),
                "output_height": side("Height each crop is resized to."),
                "padding": ("INT", {"tooltip": padding_tooltip, "default": 0, "min": 0, "max": 1024, "step": 1}),
                "keep_aspect": (
                    "COMBO",
                    {
                        "tooltip": aspect_tooltip,
                        "default": "stretch",
                        "multiselect": False,
                        "options": ["stretch", "pad"],
                    },
                ),
            }
        }

    def execute(
        self,
        image: Tensor,
        bboxes: Box | list[Any],
        output_width: int,
        output_height: int,
        padding: int,
        keep_aspect: str = "stretch",
    ) -> tuple[Tensor]:
        """One crop ``[1, output_height, output_width, C]`` per image with boxes, around all of them; as a batch.

        Images beyond the lists use the last one. Without any boxes the images are returned as they are. Boxes that
        lie outside give a piece of the middle instead.

        Raises:
            TypeError: ``bboxes`` is one list of boxes, which ComfyUI 0.33.0 does not take here either.
        """
        import torch

        if not isinstance(bboxes, list):
            bboxes = [[bboxes]]
        elif not bboxes:
            return (image,)
        size = (output_width, output_height)
        crops = []
        for index in range(len(image)):
            boxes = bboxes[min(index, len(bboxes) - 1)]
            if boxes:
                crops.append(_crop_of(image[index : index + 1], boxes, padding, size, keep_aspect))
        return (torch.cat(crops) if crops else image,)


def _crop_of(image: Tensor, boxes: list[Box], padding: int, size: tuple[int, int], keep_aspect: str) -> Tensor:
    """The rectangle around all boxes of ``[1, H, W, C]``, scaled to ``size`` (width, height)."""
    width, height = size
    result = image.new_zeros((1, height, width, image.shape[-1]))
    rectangle = _rectangle(boxes, padding, image.shape[2], image.shape[1])
    if rectangle is None:
        return result
    left, top, right, bottom = rectangle
    crop = image[:, top:bottom, left:right].movedim(-1, 1)
    if keep_aspect != "pad":
        return common_upscale(crop, width, height, "area", "disabled").movedim(1, -1)
    scale = min(width / (right - left), height / (bottom - top))
    inner_width, inner_height = round((right - left) * scale), round((bottom - top) * scale)
    x, y = (width - inner_width) // 2, (height - inner_height) // 2
    scaled = common_upscale(crop, inner_width, inner_height, "area", "disabled")
    result[:, y : y + inner_height, x : x + inner_width] = scaled.movedim(1, -1)
    return result


def _rectangle(boxes: list[Box], padding: int, width: int, height: int) -> tuple[int, int, int, int] | None:
    """Left, top, right and bottom around all boxes, within the image; a part of the middle if nothing is left.

    None for an image too small for that.
    """
    left, top = (max(0, min(int(box[name]) for box in boxes) - padding) for name in ("x", "y"))
    right = min(width, max(int(box["x"] + box["width"]) for box in boxes) + padding)
    bottom = min(height, max(int(box["y"] + box["height"]) for box in boxes) + padding)
    if right > left and bottom > top:
        return left, top, right, bottom
    side = int(min(height, width) * 0.3)
    left, top = max(0, (width - side) // 2), int(height * 0.1)
    right, bottom = min(width, left + side), min(height, top + side)
    return (left, top, right, bottom) if right > left and bottom > top else None


NODE_CLASS_MAPPINGS: dict[str, type] = {
    "PrimitiveBoundingBox": PrimitiveBoundingBox,
    "ImageCropV2": ImageCropV2,
    "DrawBBoxes": DrawBBoxes,
    "CropByBBoxes": CropByBBoxes,
}

NODE_DISPLAY_NAME_MAPPINGS = {
    "PrimitiveBoundingBox": "Bounding Box",
    "ImageCropV2": "Crop Image",
    "DrawBBoxes": "Draw BBoxes",
    "CropByBBoxes": "Crop By Bounding Boxes",
}
