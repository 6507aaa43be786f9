"""Where the embedded server's files are: the folders, their listings, and the names for saved images.

The server installs this module in ``sys.modules`` as ``folder_paths``, so node packages written for ComfyUI
find their paths here. Names and results are those of ComfyUI 0.3.64's module of that name, and what later
versions added is there, too. Three differences are deliberate: nothing is created or read at import; a listing
survives a folder that vanished between two calls; and a save prefix that ends in a slash counts up instead of
overwriting its first file.

The state is module-wide, as packages expect (``folder_paths.models_dir`` is read as an attribute, and
``folder_names_and_paths`` is changed in place by some). :func:`configure` sets all of it at once.
"""

from __future__ import annotations

import logging
import mimetypes
import os
import time
from collections.abc import Collection, Iterable
from types import TracebackType
from typing import NamedTuple

logger = logging.getLogger("discomfort.embedded.folder_paths")

# File name endings of model weights. One set object is shared by most model folders, so that a package which
# adds an ending to it reaches all of them, as in ComfyUI.
supported_pt_extensions: set[str] = {".ckpt", ".pt", ".pt2", ".bin", ".pth", ".safetensors", ".pkl", ".sft"}

# Folder names that were renamed once; workflows and packages may still use the old ones.
_RENAMED_FOLDERS = {"unet": "diffusion_models", "clip": "text_encoders"}

# Model folder name -> folders below models/, in search order; those that are None are not below it, or hold other
# files (see _lay_out_models). In ComfyUI's order, which clients see; what has no entry in 0.3.64 is of later versions.
_MODEL_FOLDERS: dict[str, tuple[str, ...] | None] = {
    "checkpoints": ("checkpoints",),
    "configs": None,
    "loras": ("loras",),
    "vae": ("vae",),
    "text_encoders": ("text_encoders", "clip"),
    "diffusion_models": ("unet", "diffusion_models"),
    "clip_vision": ("clip_vision",),
    "style_models": ("style_models",),
    "embeddings": ("embeddings",),
    "diffusers": None,
    "vae_approx": ("vae_approx",),
    "controlnet": ("controlnet", "t2i_adapter"),
    "gligen": ("gligen",),
    "upscale_models": ("upscale_models",),
    "latent_upscale_models": ("latent_upscale_models",),
    "custom_nodes": None,
    "datasets": None,
    "hypernetworks": ("hypernetworks",),
    "photomaker": ("photomaker",),
    "classifiers": None,
    "model_patches": ("model_patches",),
    "audio_encoders": ("audio_encoders",),
    "background_removal": ("background_removal",),
    "frame_interpolation": ("frame_interpolation",),
    "geometry_estimation": ("geometry_estimation",),
    "optical_flow": ("optical_flow",),
    "detection": ("detection",),
}

# Where nodes that save weights write them, below the output folder; ComfyUI offers those to its loaders too.
_SAVED_WEIGHT_FOLDERS = ("checkpoints", "clip", "vae", "diffusion_models", "loras")

# The base folder; every default below is relative to it. Absolute once configure() has run.
base_path: str = os.getcwd()
# Folder of all model folders.
models_dir: str = os.path.join(base_path, "models")
# Folder name -> (folders in search order, file name endings; an empty collection means every file).
folder_names_and_paths: dict[str, tuple[list[str], Collection[str]]] = {}
output_directory: str = os.path.join(base_path, "output")
temp_directory: str = os.path.join(base_path, "temp")
input_directory: str = os.path.join(base_path, "input")
user_directory: str = os.path.join(base_path, "user")


# What the folders of get_system_user_directory() begin with.
SYSTEM_USER_PREFIX = "__"

# Types of files a browser would run or render as a page of the server; so are all kinds of XML.
DANGEROUS_CONTENT_TYPES = {
    "text/html",
    "text/html-sandboxed",
    "application/xhtml+xml",
    "text/javascript",
    "application/javascript",
    "application/x-javascript",
    "application/ecmascript",
    "text/css",
    "image/svg+xml",
    "application/xml",
    "text/xml",
    "message/rfc822",
}


class Listing(NamedTuple):
    """The files of one folder name, with what is needed to see that the listing is stale."""

    # Sorted paths relative to the folder they are in.
    files: list[str]
    # Every folder visited -> its mtime at that moment, in seconds.
    folder_mtimes: dict[str, float]
    # time.perf_counter() when the listing was made, in seconds.
    made_at: float


# Folder name -> its last listing.
filename_list_cache: dict[str, Listing] = {}


class CacheHelper:
    """While entered (``with cache_helper:``), each folder is listed at most once; mtimes are not looked at.

    The server enters it while it answers GET /object_info, where many nodes ask for the same few folders.
    """

    def __init__(self) -> None:
        # Folder name -> listing made or confirmed since entering; empty when inactive.
        self.cache: dict[str, Listing] = {}
        self.active = False

    def get(self, key: str, default: Listing | None = None) -> Listing | None:
        """The listing seen since entering, or ``default``."""
        return self.cache.get(key, default) if self.active else default

    def set(self, key: str, value: Listing) -> None:
        """Remember a listing until exit; does nothing when not entered."""
        if self.active:
            self.cache[key] = value

    def clear(self) -> None:
        """Forget everything."""
        self.cache.clear()

    def __enter__(self) -> CacheHelper:
        self.active = True
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.active = False
        self.clear()


cache_helper = CacheHelper()

# File name ending -> first part of its MIME type. These two differ between the systems' tables.
extension_mimetypes_cache: dict[str, str] = {"webp": "image", "fbx": "model"}


# -- configuration -------------------------------------------------------------------------------------------


def configure(
    base_directory: str | os.PathLike[str],
    *,
    models_directory: str | os.PathLike[str] | None = None,
    output_directory: str | os.PathLike[str] | None = None,
    input_directory: str | os.PathLike[str] | None = None,
    temp_directory: str | os.PathLike[str] | None = None,
    user_directory: str | os.PathLike[str] | None = None,
) -> None:
    """Lay out all folders below one base folder and forget every listing.

    Args:
        base_directory: gets ``models``, ``custom_nodes``, ``input``, ``output``, ``temp`` and ``user``.
        models_directory, output_directory, input_directory, temp_directory, user_directory: that exact folder in
            place of the default one.

    The four working folders are created; ``models`` and ``custom_nodes`` are not, as both may be absent.
    Nothing is emptied: whether an old temp folder may go is for the server to decide.

    Raises:
        OSError: a working folder cannot be created.
    """
    global base_path, models_dir
    base_path = os.path.abspath(base_directory)
    models_dir = _absolute_or(models_directory, "models")
    set_output_directory(_absolute_or(output_directory, "output"))
    set_input_directory(_absolute_or(input_directory, "input"))
    set_temp_directory(_absolute_or(temp_directory, "temp"))
    set_user_directory(_absolute_or(user_directory, "user"))
    _lay_out_models()
    for name in _SAVED_WEIGHT_FOLDERS:
        add_model_folder_path(name, os.path.join(get_output_directory(), name))
    filename_list_cache.clear()
    cache_helper.clear()
    for folder in (get_output_directory(), get_input_directory(), get_temp_directory(), get_user_directory()):
        os.makedirs(folder, exist_ok=True)


def _absolute_or(given: str | os.PathLike[str] | None, default_name: str) -> str:
    """``given`` as an absolute path, or the folder ``default_name`` of the base folder."""
    return os.path.join(base_path, default_name) if given is None else os.path.abspath(given)


def _lay_out_models() -> None:
    """Fill ``folder_names_and_paths`` with the defaults, in place: packages may hold a reference to it."""
    others: dict[str, tuple[list[str], Collection[str]]] = {
        "configs": ([os.path.join(models_dir, "configs")], [".yaml"]),
        # The word "folder" matches no file name ending: diffusers models are folders, found by their loader.
        "diffusers": ([os.path.join(models_dir, "diffusers")], ["folder"]),
        # Files without any ending.
        "classifiers": ([os.path.join(models_dir, "classifiers")], {""}),
        "custom_nodes": ([os.path.join(base_path, "custom_nodes")], set()),
        "datasets": ([os.path.join(base_path, "datasets")], set()),
    }
    table = folder_names_and_paths
    table.clear()
    for name, folders in _MODEL_FOLDERS.items():
        if folders is None:
            table[name] = others[name]
        else:
            table[name] = ([os.path.join(models_dir, folder) for folder in folders], supported_pt_extensions)


def map_legacy(folder_name: str) -> str:
    """The present name of a model folder that was renamed (``unet``, ``clip``); other names as they are."""
    return _RENAMED_FOLDERS.get(folder_name, folder_name)


# -- the working folders -------------------------------------------------------------------------------------


def set_output_directory(output_dir: str) -> None:
    """Set the folder of saved results."""
    global output_directory
    output_directory = output_dir


def set_temp_directory(temp_dir: str) -> None:
    """Set the folder of previews."""
    global temp_directory
    temp_directory = temp_dir


def set_input_directory(input_dir: str) -> None:
    """Set the folder of uploaded and loaded files."""
    global input_directory
    input_directory = input_dir


def set_user_directory(user_dir: str) -> None:
    """Set the folder of settings and stored workflows."""
    global user_directory
    user_directory = user_dir


def get_output_directory() -> str:
    """The folder of saved results."""
    return output_directory


def get_temp_directory() -> str:
    """The folder of previews."""
    return temp_directory


def get_input_directory() -> str:
    """The folder of uploaded and loaded files."""
    return input_directory


def get_user_directory() -> str:
    """The folder of settings and stored workflows."""
    return user_directory


def get_system_user_directory(name: str = "system") -> str:
    """A folder of the user folder that packages keep to themselves: no client's request reaches it.

    Args:
        name: letters, digits and underscores, not beginning with one.

    Raises:
        ValueError: another name.
    """
    if not isinstance(name, str) or not name:
        raise ValueError("System user name cannot be empty")
    if not name.replace("_", "").isalnum():
        raise ValueError(f"Invalid system user name: {name!r}")
    if name.startswith("_"):
        raise ValueError("System user name should not start with underscore")
    return os.path.join(get_user_directory(), SYSTEM_USER_PREFIX + name)


def get_public_user_directory(user_id: str) -> str | None:
    """The folder of a user who sends requests; None for what is no user's (see get_system_user_directory)."""
    if not isinstance(user_id, str) or not user_id or user_id.startswith(SYSTEM_USER_PREFIX):
        return None
    return os.path.join(get_user_directory(), user_id)


def get_directory_by_type(type_name: str) -> str | None:
    """The folder that ``"output"``, ``"temp"`` or ``"input"`` names; None for any other word.

    GET /view answers with files of these folders, so no other folder is ever named here.
    """
    by_type = {"output": output_directory, "temp": temp_directory, "input": input_directory}
    return by_type.get(type_name)


def annotated_filepath(name: str) -> tuple[str, str | None]:
    """Split ``"picture.png [output]"`` into the file name and the folder its annotation names.

    Returns:
        ``(name, folder)``; without an annotation, ``(name, None)``.
    """
    for type_name in ("output", "input", "temp"):
        annotation = f"[{type_name}]"
        if name.endswith(annotation):
            # One more character goes: the space in front of the annotation.
            return name[: -len(annotation) - 1], get_directory_by_type(type_name)
    return name, None


def is_dangerous_content_type(content_type: str | None) -> bool:
    """Whether a browser may run or render a file of this type, whatever its parameters and case."""
    name = (content_type or "").split(";", 1)[0].strip().lower()
    return name in DANGEROUS_CONTENT_TYPES or name.endswith(("+xml", "/xml"))


def is_within_directory(directory: str, target: str) -> bool:
    """Whether a path is in a folder, after following all links."""
    try:
        folder = os.path.realpath(directory)
        return os.path.commonpath((folder, os.path.realpath(target))) == folder
    except ValueError:  # different drives on Windows, or a NUL character
        return False


def get_annotated_filepath(name: str, default_dir: str | None = None) -> str:
    """The path of a possibly annotated file name; if it is not, in ``default_dir`` or the input folder."""
    file_name, folder = annotated_filepath(name)
    return os.path.join(folder or default_dir or input_directory, file_name)


def exists_annotated_filepath(name: str) -> bool:
    """Whether the file of a possibly annotated name exists."""
    return os.path.exists(get_annotated_filepath(name))


def get_input_subfolders() -> list[str]:
    """All folders below the input folder, sorted, relative to it, with forward slashes."""
    found = []
    for folder, _, _ in os.walk(input_directory):
        relative = os.path.relpath(folder, input_directory)
        if relative != ".":
            found.append(relative.replace(os.sep, "/"))
    return sorted(found)


# -- model folders and listings ------------------------------------------------------------------------------


def add_model_folder_path(folder_name: str, full_folder_path: str, is_default: bool = False) -> None:
    """Add a folder to a folder name, which is created (for every kind of file) when it is new.

    Args:
        folder_name: such as ``"checkpoints"``; renamed ones are mapped.
        full_folder_path: an absolute path; it need not exist.
        is_default: search it first, also when it is in the list already.
    """
    paths, _ = folder_names_and_paths.setdefault(map_legacy(folder_name), ([], set()))
    if full_folder_path in paths:
        if not is_default:
            return
        paths.remove(full_folder_path)
    paths.insert(0 if is_default else len(paths), full_folder_path)


def get_folder_paths(folder_name: str) -> list[str]:
    """The folders of a folder name, in search order.

    Raises:
        KeyError: no such folder name.
    """
    return list(folder_names_and_paths[map_legacy(folder_name)][0])


def recursive_search(directory: str, excluded_dir_names: list[str] | None = None) -> tuple[list[str], dict[str, float]]:
    """All files below a folder, following links.

    Args:
        directory: where to start; a missing one has no files.
        excluded_dir_names: folders of these names are not entered.

    Returns:
        The files' paths relative to ``directory``, and every folder visited with its mtime in seconds.
    """
    files: list[str] = []
    mtimes: dict[str, float] = {}
    if not os.path.isdir(directory):
        return files, mtimes
    excluded = set(excluded_dir_names or ())
    _note_mtime(directory, mtimes)
    for folder, subfolders, names in os.walk(directory, followlinks=True):
        # In place: os.walk enters what is left in the list.
        subfolders[:] = [name for name in subfolders if name not in excluded]
        files.extend(os.path.relpath(os.path.join(folder, name), directory) for name in names)
        for name in subfolders:
            _note_mtime(os.path.join(folder, name), mtimes)
    return files, mtimes


def _note_mtime(folder: str, mtimes: dict[str, float]) -> None:
    """Write down a folder's mtime; one that has just vanished, or a link to nowhere, is left out."""
    try:
        mtimes[folder] = os.path.getmtime(folder)
    except FileNotFoundError:
        logger.warning("Folder %s cannot be read, so its files are not listed", folder)


def filter_files_extensions(files: Collection[str], extensions: Collection[str]) -> list[str]:
    """The files with one of these endings (lower case, with the dot), sorted; all if no ending is given."""
    return sorted(f for f in files if not extensions or os.path.splitext(f)[-1].lower() in extensions)


def filter_files_content_types(files: Iterable[str], content_types: Collection[str]) -> list[str]:
    """The files of some kinds, in the given order.

    Args:
        files: file names; only their endings are looked at.
        content_types: of ``"image"``, ``"video"``, ``"audio"``, ``"model"`` (3D models, not weights).
    """
    return [file for file in files if _content_type(file) in content_types]


def _content_type(file: str) -> str | None:
    """The first part of a file's MIME type, None when its ending says nothing."""
    extension = file.split(".")[-1]
    if extension not in extension_mimetypes_cache:
        mime_type, _ = mimetypes.guess_type(file, strict=False)
        if not mime_type:
            return None
        extension_mimetypes_cache[extension] = mime_type.split("/")[0]
    return extension_mimetypes_cache[extension]


def get_full_path(folder_name: str, filename: str) -> str | None:
    """The path of a file in the first folder that has it, None when none has (or the folder name is unknown).

    The name cannot leave the folder: ``"../x"`` and ``"/x"`` are looked for as ``"x"``.
    """
    folders, _ = folder_names_and_paths.get(map_legacy(folder_name), ([], ()))
    inside = os.path.relpath(os.path.join("/", filename), "/")
    for folder in folders:
        path = os.path.join(folder, inside)
        if os.path.isfile(path):
            return path
        if os.path.islink(path):
            logger.warning("Link %s leads nowhere, so it is skipped", path)
    return None


def get_full_path_or_raise(folder_name: str, filename: str) -> str:
    """As :func:`get_full_path`, but a file must be found.

    Raises:
        FileNotFoundError: no folder of this name has the file.
    """
    path = get_full_path(folder_name, filename)
    if path is None:
        raise FileNotFoundError(f"Model in folder '{folder_name}' with filename '{filename}' not found.")
    return path


def get_filename_list(folder_name: str) -> list[str]:
    """The files of a folder name, sorted, relative to the folder they are in.

    The listing is made anew when a folder's mtime has changed, a folder vanished or a new one appeared.

    Raises:
        KeyError: no such folder name.
    """
    name = map_legacy(folder_name)
    listing = cached_filename_list_(name)
    if listing is None:
        listing = filename_list_cache[name] = get_filename_list_(name)
    cache_helper.set(name, listing)
    return list(listing.files)


def get_filename_list_(folder_name: str) -> Listing:
    """List the files of a folder name now, whatever is cached."""
    folders, extensions = folder_names_and_paths[map_legacy(folder_name)]
    files: set[str] = set()
    mtimes: dict[str, float] = {}
    for folder in folders:
        found, visited = recursive_search(folder, excluded_dir_names=[".git"])
        files.update(filter_files_extensions(found, extensions))
        mtimes.update(visited)
    return Listing(sorted(files), mtimes, time.perf_counter())


def cached_filename_list_(folder_name: str) -> Listing | None:
    """The cached listing of a folder name while it is still true, else None."""
    name = map_legacy(folder_name)
    confirmed = cache_helper.get(name)
    if confirmed is not None:
        return confirmed
    listing = filename_list_cache.get(name)
    return listing if listing is not None and _is_fresh(name, listing) else None


def _is_fresh(folder_name: str, listing: Listing) -> bool:
    """Whether no folder of the listing has changed and no folder was added since."""
    try:
        if any(os.path.getmtime(folder) != mtime for folder, mtime in listing.folder_mtimes.items()):
            return False
    except OSError:
        return False
    folders, _ = folder_names_and_paths[folder_name]
    return all(folder in listing.folder_mtimes for folder in folders if os.path.isdir(folder))


# -- names of saved images -----------------------------------------------------------------------------------


def get_save_image_path(
    filename_prefix: str, output_dir: str, image_width: int = 0, image_height: int = 0
) -> tuple[str, str, int, str, str]:
    """Where the next images of a prefix are saved.

    Files are to be named ``<filename>_<counter:05>_.<ending>`` by the caller.

    Args:
        filename_prefix: a name, or a path relative to ``output_dir``. ``%width%``, ``%height%``, ``%year%``,
            ``%month%``, ``%day%``, ``%hour%``, ``%minute%`` and ``%second%`` are filled in.
        output_dir: the folder everything must stay in.
        image_width, image_height: pixels, for ``%width%`` and ``%height%``.

    Returns:
        ``(folder, filename, counter, subfolder, filename_prefix)``: the absolute folder, which exists
        afterwards; the name without counter; the first free counter (the highest one in use plus 1); the
        folder relative to ``output_dir``; the prefix with its variables filled in.

    Raises:
        ValueError: the prefix leads out of ``output_dir``.
    """
    if "%" in filename_prefix:
        filename_prefix = _fill_in_variables(filename_prefix, image_width, image_height)
    subfolder, filename = os.path.split(os.path.normpath(filename_prefix))
    folder = os.path.join(output_dir, subfolder)
    if not _is_inside(folder, output_dir):
        raise ValueError(
            f"Saving image outside the output folder is not allowed: the prefix {filename_prefix!r} leads to "
            f"{os.path.abspath(folder)}, the output folder is {output_dir}"
        )
    os.makedirs(folder, exist_ok=True)
    return folder, filename, _next_counter(folder, filename), subfolder, filename_prefix


def _fill_in_variables(prefix: str, image_width: int, image_height: int) -> str:
    """Replace the ``%...%`` variables of a save prefix by sizes and the local time."""
    now = time.localtime()
    values = {
        "width": str(image_width),
        "height": str(image_height),
        "year": str(now.tm_year),
        "month": f"{now.tm_mon:02}",
        "day": f"{now.tm_mday:02}",
        "hour": f"{now.tm_hour:02}",
        "minute": f"{now.tm_min:02}",
        "second": f"{now.tm_sec:02}",
    }
    for name, value in values.items():
        prefix = prefix.replace(f"%{name}%", value)
    return prefix


def _is_inside(folder: str, container: str) -> bool:
    """Whether ``folder`` is ``container`` or below it, after resolving ``..`` but not links."""
    container = os.path.abspath(container)
    try:
        return os.path.commonpath((container, os.path.abspath(folder))) == container
    except ValueError:  # different drives on Windows
        return False


def _next_counter(folder: str, filename: str) -> int:
    """One more than the highest counter of the files ``<filename>_<counter>_...`` of a folder, or 1."""
    start = os.path.normcase(f"{filename}_")
    highest = 0
    for name in os.listdir(folder):
        if os.path.normcase(name[: len(start)]) == start:
            digits = name[len(start) :].split("_")[0]
            if digits.isdecimal():
                highest = max(highest, int(digits))
    return highest + 1


_lay_out_models()
