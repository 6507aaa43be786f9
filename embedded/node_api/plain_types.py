"""Types with nothing but a name: what nodes hand to each other, and the editor has no widgets for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypedDict

from .declaration import ComfyTypeIO, comfytype
from .type_names import ANY, TENSOR, LazyClass


def _plain(name: str, io_type: str, doc: str, value_type: Any = Any) -> Any:
    """The description of a type.

    Args:
        name: of the class.
        io_type: of the type.
        value_type: the Python type of its values.
    """
    attributes = {"__doc__": doc, "__module__": __name__, "Type": value_type}
    return comfytype(io_type)(type(name, (ComfyTypeIO,), attributes))


# -- images and sound --------------------------------------------------------------------------------------------

Image = _plain("Image", "IMAGE", "float32 [B, H, W, C] in 0..1.", TENSOR)
Mask = _plain("Mask", "MASK", "float32 [B, H, W] in 0..1.", TENSOR)
Video = _plain("Video", "VIDEO", "A video.", LazyClass(f"{__package__}.video", "VideoInput"))
SVG = _plain("SVG", "SVG", "A list of SVG files.", LazyClass(f"{__package__}.geometry", "SVG"))
Histogram = _plain("Histogram", "HISTOGRAM", "The number of pixels in each bin.", list[int])


@comfytype(io_type="LAYERS")
class Layers(ComfyTypeIO):
    """Pictures on top of each other (ComfyUI 0.31)."""

    # How a layer is mixed with those below it.
    BlendMode = Literal[
        "normal",
        "multiply",
        "screen",
        "overlay",
        "darken",
        "lighten",
        "color-dodge",
        "color-burn",
        "hard-light",
        "soft-light",
        "difference",
        "exclusion",
        "linear-dodge",
        "linear-burn",
        "vivid-light",
        "pin-light",
        "linear-light",
        "hard-mix",
        "subtract",
        "divide",
        "grain-extract",
        "grain-merge",
        "hue",
        "saturation",
        "color",
        "luminosity",
    ]

    class LayerItem(TypedDict, total=False):
        """One of them: ``image`` ``[B, H, W, C]``, ``type`` "raster" and ``z_index`` are always there."""

        image: Any
        type: str
        x: int
        y: int
        mask: Any
        z_index: int
        name: str
        # 0..1
        opacity: float
        # one of BlendMode
        blend_mode: str
        visible: bool
        flip_h: bool
        flip_v: bool
        # degrees, clockwise
        rotation: float
        # the size it is shown at, in pixels
        w: int
        h: int

    class Document(TypedDict, total=False):
        """All of them: ``version`` and ``layers`` are always there; ``canvas`` is width and height in pixels."""

        version: int
        canvas: tuple[int, int]
        layers: list[Any]

    Type = Document


@comfytype(io_type="TRACKS")
class Tracks(ComfyTypeIO):
    """Points followed through a video."""

    class TrackDict(TypedDict):
        """Where each point is in each frame, and whether it can be seen there; tensors."""

        track_path: Any
        track_visibility: Any

    Type = TrackDict


@comfytype(io_type="AUDIO")
class Audio(ComfyTypeIO):
    """Sound."""

    class AudioDict(TypedDict):
        """``waveform`` float32 [B, channels, samples] in -1..1, and its samples per second."""

        waveform: Any
        sample_rate: int

    Type = AudioDict


# -- latents and conditioning ------------------------------------------------------------------------------------


@comfytype(io_type="LATENT")
class Latent(ComfyTypeIO):
    """An image as models see it."""

    class LatentDict(TypedDict, total=False):
        """``samples`` float32 [B, C, h, w], with what came with them."""

        samples: Any
        noise_mask: Any
        batch_index: list[int]
        type: str

    Type = LatentDict


@comfytype(io_type="CONDITIONING")
class Conditioning(ComfyTypeIO):
    """What a picture shall show: embeddings of a text, each with a dict of how it is used."""

    PooledDict = dict[str, Any]
    CondList = list[tuple[Any, dict[str, Any]]]
    Type = CondList


Sigmas = _plain("Sigmas", "SIGMAS", "Noise levels, falling.", TENSOR)
Noise = _plain("Noise", "NOISE", "Noise to begin with.", TENSOR)
WanCameraEmbedding = _plain("WanCameraEmbedding", "WAN_CAMERA_EMBEDDING", "The path of a camera.", TENSOR)
Sampler = _plain("Sampler", "SAMPLER", "A sampling method.")
Guider = _plain("Guider", "GUIDER", "How conditioning guides sampling.")
Hooks = _plain("Hooks", "HOOKS", "Changes to a model while it samples.")
HookKeyframes = _plain("HookKeyframes", "HOOK_KEYFRAMES", "When hooks act, and how strongly.")
TimestepsRange = _plain("TimestepsRange", "TIMESTEPS_RANGE", "Begin and end in 0..1.", tuple[int, int])
LatentOperation = _plain("LatentOperation", "LATENT_OPERATION", "A function of latents.", Callable[[Any], Any])

# -- models ------------------------------------------------------------------------------------------------------

Model = _plain("Model", "MODEL", "A diffusion model.")
Clip = _plain("Clip", "CLIP", "A text encoder.")
Vae = _plain("Vae", "VAE", "An image encoder and decoder.")
ControlNet = _plain("ControlNet", "CONTROL_NET", "A control net.")
ClipVision = _plain("ClipVision", "CLIP_VISION", "A vision encoder.")
ClipVisionOutput = _plain("ClipVisionOutput", "CLIP_VISION_OUTPUT", "What a vision encoder sees.")
BackgroundRemoval = _plain("BackgroundRemoval", "BACKGROUND_REMOVAL", "A model that cuts out the foreground.")
StyleModel = _plain("StyleModel", "STYLE_MODEL", "A style model.")
Gligen = _plain("Gligen", "GLIGEN", "A GLIGEN model.")
UpscaleModel = _plain("UpscaleModel", "UPSCALE_MODEL", "An upscaling model.")
LatentUpscaleModel = _plain("LatentUpscaleModel", "LATENT_UPSCALE_MODEL", "A model that upscales latents.")
ModelPatch = _plain("ModelPatch", "MODEL_PATCH", "An addition to a model.")
# Its name in 0.3.64.
MODEL_PATCH = ModelPatch
AudioEncoder = _plain("AudioEncoder", "AUDIO_ENCODER", "An audio encoder.")
AudioEncoderOutput = _plain("AudioEncoderOutput", "AUDIO_ENCODER_OUTPUT", "What an audio encoder hears.")
Photomaker = _plain("Photomaker", "PHOTOMAKER", "A Photomaker model.")
LoraModel = _plain("LoraModel", "LORA_MODEL", "The weights of a LoRA.", dict[str, Any])


@comfytype(io_type="LOSS_MAP")
class LossMap(ComfyTypeIO):
    """How a training went."""

    class LossMapDict(TypedDict):
        """The losses, one tensor per step."""

        loss: list[Any]

    Type = LossMapDict


# -- three dimensions --------------------------------------------------------------------------------------------


def _shape(name: str, io_type: str, doc: str, value: str) -> Any:
    """A type whose values are of a class of geometry.py."""
    return _plain(name, io_type, doc, LazyClass(f"{__package__}.geometry", value))


Voxel = _shape("Voxel", "VOXEL", "A grid of voxels.", "VOXEL")
Mesh = _shape("Mesh", "MESH", "Meshes.", "MESH")
Splat = _shape("Splat", "SPLAT", "Gaussian splats.", "SPLAT")
File3DAny = _shape("File3DAny", "FILE_3D", "A 3D file of any format.", "File3D")
File3DGLB = _shape("File3DGLB", "FILE_3D_GLB", "A binary glTF file.", "File3D")
File3DGLTF = _shape("File3DGLTF", "FILE_3D_GLTF", "A glTF file.", "File3D")
File3DFBX = _shape("File3DFBX", "FILE_3D_FBX", "An FBX file.", "File3D")
File3DOBJ = _shape("File3DOBJ", "FILE_3D_OBJ", "An OBJ file.", "File3D")
File3DSTL = _shape("File3DSTL", "FILE_3D_STL", "An STL file.", "File3D")
File3DUSDZ = _shape("File3DUSDZ", "FILE_3D_USDZ", "A USDZ file.", "File3D")
File3DPLY = _shape("File3DPLY", "FILE_3D_PLY", "A PLY file.", "File3D")
File3DSPLAT = _shape("File3DSPLAT", "FILE_3D_SPLAT", "A .splat file.", "File3D")
File3DSPZ = _shape("File3DSPZ", "FILE_3D_SPZ", "An SPZ file.", "File3D")
File3DKSPLAT = _shape("File3DKSPLAT", "FILE_3D_KSPLAT", "A .ksplat file.", "File3D")
File3DSplatAny = _shape("File3DSplatAny", "FILE_3D_SPLAT_ANY", "A file of Gaussian splats.", "File3D")
File3DPointCloudAny = _shape("File3DPointCloudAny", "FILE_3D_POINT_CLOUD_ANY", "A file of points.", "File3D")


@comfytype(io_type="LOAD3D_CAMERA")
class Load3DCamera(ComfyTypeIO):
    """Where the editor's camera is."""

    class CameraInfo(TypedDict, total=False):
        """Right-handed, Y up, looking down -Z; lengths in scene units, ``fov`` in degrees, ``zoom`` 1 is 100 %."""

        position: dict[str, float]
        target: dict[str, float]
        zoom: float
        cameraType: str
        quaternion: dict[str, float]
        fov: float
        aspect: float
        near: float
        far: float
        frustum: dict[str, float]

    Type = CameraInfo


@comfytype(io_type="LOAD3D_MODEL_INFO")
class Load3DModelInfo(ComfyTypeIO):
    """Where the editor has models."""

    class Model3DTransform(TypedDict):
        """One model: scene units, a normalised quaternion, and a factor per axis."""

        position: dict[str, float]
        quaternion: dict[str, float]
        scale: dict[str, float]

    Type = list[Model3DTransform]


@comfytype(io_type="LOAD_3D")
class Load3D(ComfyTypeIO):
    """The editor's view of a model."""

    class Model3DDict(TypedDict, total=False):
        """Names of files, and the camera."""

        image: str
        mask: str
        normal: str
        camera_info: dict[str, Any]
        recording: str
        model_3d_info: list[dict[str, Any]]

    Type = Model3DDict


@comfytype(io_type="LOAD_3D_ANIMATION")
class Load3DAnimation(Load3D):
    """The editor's view of a moving model."""


# -- others ------------------------------------------------------------------------------------------------------

AnyType = _plain("AnyType", ANY, "Anything.")
Dict = _plain("Dict", "DICT", "A dict.", dict)
Array = _plain("Array", "ARRAY", "A list.", list)
Point = _plain("Point", "POINT", "A point.")
FaceAnalysis = _plain("FaceAnalysis", "FACE_ANALYSIS", "A face analysis model.")
BBOX = _plain("BBOX", "BBOX", "A box around something.")
SEGS = _plain("SEGS", "SEGS", "Segments of an image.")
FlowControl = _plain("FlowControl", "FLOW_CONTROL", "The other end of a loop.", tuple[str, Any])


@comfytype(io_type="ACCUMULATION")
class Accumulation(ComfyTypeIO):
    """Values gathered by a loop."""

    class AccumulationDict(TypedDict):
        """The values, in order."""

        accum: list[Any]

    Type = AccumulationDict
