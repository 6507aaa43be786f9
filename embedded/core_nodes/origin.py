"""Where each core node comes from in ComfyUI: the version, the module and the kind of declaration.

ComfyUI has nodes of two kinds. The older declare themselves by class attributes, as all of this package's do that are
named here; the newer by a schema, as this package's with dynamic inputs do: they describe themselves and need no
entry. GET /object_info describes a schema's node with more keys, and with null where the older kind has a default.
Clients see the difference (the editor shows a node's source by its ``python_module``), so the nodes that have a schema
in ComfyUI are described in that form here too.
"""

from __future__ import annotations

from typing import Any, NamedTuple

BASELINE, LATER = "0.3.64", "0.33.0"


class Origin(NamedTuple):
    """Where a node's definition is from."""

    # The ComfyUI version whose inputs and results the node has.
    version: str
    # ``python_module`` in its /object_info.
    module: str
    # Whether it has a schema there.
    has_schema: bool

    def describe(self, info: dict[str, Any], node_class: Any, has_title: bool) -> dict[str, Any]:
        """What /object_info says of a core node.

        Args:
            info: what it says of a class of the older kind.
            node_class: the class.
            has_title: whether it has a display name.
        """
        if not self.has_schema:
            return info
        described = {**info, "input": _with_lists(info["input"])}
        described.setdefault("output_tooltips", [None] * len(info["output"]))
        if not has_title:
            described["display_name"] = None
        for key in ("deprecated", "experimental", "api_node"):
            described.setdefault(key, False)
        if self.version == BASELINE:
            return described
        return {
            **described,
            "is_input_list": getattr(node_class, "INPUT_IS_LIST", False),
            "output_matchtypes": None,
            "dev_only": False,
            "price_badge": None,
            "search_aliases": getattr(node_class, "SEARCH_ALIASES", None),
            "essentials_category": getattr(node_class, "ESSENTIALS_CATEGORY", None),
            "has_intermediate_output": getattr(node_class, "HAS_INTERMEDIATE_OUTPUT", False),
        }


def _with_lists(inputs: dict[str, Any]) -> dict[str, Any]:
    """A schema's hidden inputs are lists of one type."""
    hidden = inputs.get("hidden")
    return inputs if hidden is None else {**inputs, "hidden": {name: [kind] for name, kind in hidden.items()}}


# The modules of ComfyUI and their nodes here, those of comfy_extras without their "nodes_".
_OLDER_KIND: dict[str, str] = {
    "audio": "EmptyLatentAudio",
    "hunyuan": "EmptyHunyuanImageLatent EmptyHunyuanLatentVideo",
    "hunyuan3d": "EmptyLatentHunyuan3Dv2",
    "images": (
        "SaveAnimatedWEBP SaveAnimatedPNG SaveSVGNode ImageFromBatch RepeatImageBatch "
        "ImageScaleToMaxDimension ResizeAndPadImage ImageCrop ImageFlip ImageRotate ImageStitch ImageAddNoise "
        "GetImageSize"
    ),
    "mask": (
        "SolidMask MaskToImage ImageToMask ImageColorToMask InvertMask CropMask FeatherMask GrowMask "
        "ThresholdMask MaskComposite ImageCompositeMasked MaskPreview LatentCompositeMasked"
    ),
    "nodes": (
        "SaveImage PreviewImage LoadImage LoadImageMask LoadImageOutput EmptyImage ImageBatch ImageScale "
        "ImageScaleBy ImageInvert ImagePadForOutpaint EmptyLatentImage LatentFromBatch RepeatLatentBatch "
        "SetLatentNoiseMask LatentUpscale LatentUpscaleBy LatentRotate LatentFlip LatentCrop LatentComposite "
        "LatentBlend SaveLatent LoadLatent"
    ),
    "preview_any": "PreviewAny",
    "train": "LoadImageSetFromFolderNode",
    "webcam": "WebcamCapture",
}
_WITH_SCHEMA: dict[str, str] = {
    "ace": "EmptyAceStepLatentAudio",
    "canny": "Canny",
    "chroma_radiance": "EmptyChromaRadianceLatentImage",
    "compositing": "SplitImageWithAlpha JoinImageWithAlpha PorterDuffImageComposite",
    "cosmos": "EmptyCosmosLatentVideo",
    "flux": "FluxKontextImageScale",
    "latent": (
        "LatentBatch LatentBatchSeedBehavior LatentCut LatentConcat LatentAdd LatentSubtract LatentMultiply "
        "LatentInterpolate LatentApplyOperation LatentOperationTonemapReinhard LatentOperationSharpen"
    ),
    "lt": "EmptyLTXVLatentVideo",
    "mochi": "EmptyMochiLatentVideo",
    "morphology": "Morphology ImageRGBToYUV ImageYUVToRGB",
    "post_processing": "ImageScaleToTotalPixels ImageBlend ImageBlur ImageSharpen ImageQuantize",
    "primitive": "PrimitiveString PrimitiveStringMultiline PrimitiveInt PrimitiveFloat PrimitiveBoolean",
    "rebatch": "RebatchImages RebatchLatents",
    "sd3": "EmptySD3LatentImage",
    "stable_cascade": "StableCascade_EmptyLatentImage",
    "string": (
        "StringConcatenate StringSubstring StringLength CaseConverter StringTrim StringReplace StringContains "
        "StringCompare RegexMatch RegexExtract RegexReplace"
    ),
    "wan": "TrimVideoLatent",
}
_ADDED_LATER: dict[str, str] = {
    "ace": "EmptyAceStep1.5LatentAudio",
    "ar_video": "EmptyARVideoLatent",
    "curve": "ImageHistogram",
    "dataset": (
        "ResizeImagesByShorterEdge ResizeImagesByLongerEdge CenterCropImages RandomCropImages NormalizeImages "
        "AdjustBrightness AdjustContrast ShuffleDataset ShuffleImageTextDataset ImageDeduplication ImageGrid "
        "MergeImageLists LoadImageDataSetFromFolder LoadImageTextDataSetFromFolder SaveImageDataSetToFolder "
        "SaveImageTextDataSetToFolder TextToLowercase TextToUppercase TruncateText AddTextPrefix "
        "AddTextSuffix ReplaceText StripWhitespace MergeTextLists"
    ),
    "flux": "EmptyFlux2LatentImage",
    "hidream_o1": "EmptyHiDreamO1LatentImage",
    "hunyuan": "EmptyHunyuanVideo15Latent",
    "image_compare": "ImageCompare",
    "images": "SplitImageToTileList ImageMergeTileList PrimitiveBoundingBox ImageCropV2 ImageCropToMask",
    "kandinsky5": "NormalizeVideoLatentStart",
    "latent": "LatentCutToBatch ReplaceVideoLatentFrames",
    "minimax_music": "EmptyMiniMaxMusic3LatentAudio",
    "painter": "Painter",
    "qwen": "EmptyQwenImageLayeredLatentImage",
    "rtdetr": "DrawBBoxes",
    "sdpose": "CropByBBoxes",
    "string": "JsonExtractString ConvertDictionaryToString ConvertArrayToString",
    "text": "SaveText",
    "text_overlay": "TextOverlay",
    "trellis2": "EmptyTrellis2LatentStructure",
    "void": "VOIDQuadmaskPreprocess",
}


def _origins(version: str, has_schema: bool, modules: dict[str, str]) -> dict[str, Origin]:
    """class_type -> origin, of one of the tables."""
    return {
        class_type: Origin(version, module if module == "nodes" else f"comfy_extras.nodes_{module}", has_schema)
        for module, class_types in modules.items()
        for class_type in class_types.split()
    }


ORIGINS: dict[str, Origin] = {
    **_origins(BASELINE, False, _OLDER_KIND),
    **_origins(BASELINE, True, _WITH_SCHEMA),
    **_origins(LATER, True, _ADDED_LATER),
}
