"""The command line (``comfy.cli_args`` for node packages).

ComfyUI's flags are accepted, so that a command line written for it starts this server too. Those that
concern models have nothing to act on in the server itself; packages find them in ``args``, and in what
``comfy.model_management`` and ``latent_preview`` answer them. Flags this server does not know are reported
once and ignored, never a reason to exit: ComfyUI gets new ones every month.
"""

from __future__ import annotations

import argparse
import enum
import ipaddress
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# Flags for packages alone that are switches.
# fmt: off
_PACKAGES_SWITCHES = [
    "async-offload", "bf16-unet", "bf16-vae", "bf16-text-enc", "cuda-malloc", "disable-api-nodes",
    "disable-cuda-malloc", "disable-ipex-optimize", "disable-mmap", "disable-smart-memory",
    "disable-xformers", "dont-upcast-attention", "force-channels-last", "force-fp16", "force-fp32",
    "force-non-blocking", "force-upcast-attention", "fp16-text-enc", "fp16-unet", "fp16-vae",
    "fp32-text-enc", "fp32-unet", "fp32-vae", "fp64-unet", "fp8_e4m3fn-text-enc", "fp8_e4m3fn-unet",
    "fp8_e5m2-text-enc", "fp8_e5m2-unet", "fp8_e8m0fnu-unet", "highvram", "lowvram", "mmap-torch-files",
    "normalvram", "novram", "supports-fp8-compute", "use-flash-attention", "use-pytorch-cross-attention",
    "use-quad-cross-attention", "use-sage-attention", "use-split-cross-attention",
    "windows-standalone-build", "enable-manager", "disable-manager-ui", "enable-manager-legacy-ui",
    "disable-assets-autoscan", "disable-dynamic-vram",
]
# fmt: on


class LatentPreviewMethod(enum.Enum):
    """The values of ``--preview-method``, as packages read it."""

    NoPreviews = "none"
    Auto = "auto"
    Latent2RGB = "latent2rgb"
    TAESD = "taesd"


class PerformanceFeature(enum.Enum):
    """The values of ``--fast``, as packages read it."""

    Fp16Accumulation = "fp16_accumulation"
    Fp8MatrixMultiplication = "fp8_matrix_mult"
    CublasOps = "cublas_ops"
    AutoTune = "autotune"


# From the one that says most; DETAIL is of ComfyUI 0.30.
LOG_LEVELS = ("DEBUG", "DETAIL", "INFO", "WARNING", "ERROR", "CRITICAL")


class _Verbosity(argparse.Action):
    """``--verbose``, ``--verbose LEVEL`` and ``--verbose LEVEL FILE`` (ComfyUI 0.30), as often as wanted.

    ``verbose`` has the levels without a file, of which the one that says most counts; ``log_files`` has the others,
    (level, path).
    """

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        level, *file = values or ["DEBUG"]
        if level not in LOG_LEVELS or len(file) > 1:
            parser.error(f"{option} {' '.join(values)}: takes a level ({', '.join(LOG_LEVELS)}), and perhaps a file")
        if file:
            namespace.log_files = [*namespace.log_files, (level, file[0])]
        else:
            namespace.verbose = [*(namespace.verbose or ()), level]


def _number_or_text(value: str) -> int | str:
    """A number where it is one."""
    return int(value) if value.isdecimal() else value


def _known_in(choices: type[enum.Enum]) -> Callable[[str], enum.Enum | str]:
    """A converter to a choice; a value of a newer ComfyUI stays a text."""

    def convert(value: str) -> enum.Enum | str:
        try:
            return choices(value)
        except ValueError:
            return value

    return convert


# Flags for packages alone that take a value: name -> (default, further argparse settings).
_PACKAGES_VALUES: dict[str, tuple[Any, dict[str, Any]]] = {
    "comfy-api-base": ("https://api.comfy.org", {}),
    "database-url": ("sqlite:///:memory:", {}),
    "directml": (None, {"type": int, "nargs": "?", "const": -1}),
    "fast": (None, {"nargs": "*", "type": _known_in(PerformanceFeature)}),
    "front-end-version": (None, {}),
    "oneapi-device-selector": (None, {}),
    "preview-method": (LatentPreviewMethod.NoPreviews, {"type": _known_in(LatentPreviewMethod)}),
    "preview-size": (512, {"type": int}),
    "reserve-vram": (None, {"type": float}),
    "vram-headroom": (None, {"type": float}),
}

_FOR_PACKAGES = "as in ComfyUI; here for node packages that ask for it"


def default_base_directory() -> Path:
    """The folder of a server that was given none: per user, where the platform keeps application data."""
    if sys.platform == "win32":
        root = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        root = Path.home() / "Library" / "Application Support"
    else:
        root = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return root / "discomfort" / "embedded"


def _build_parser() -> argparse.ArgumentParser:
    """The parser of all flags; abbreviations are off, so a new ComfyUI flag cannot become ambiguous."""
    parser = argparse.ArgumentParser(
        prog="python -m discomfort.embedded",
        description="A small server that speaks ComfyUI's protocol and runs no models.",
        allow_abbrev=False,
    )
    _add_network(parser.add_argument_group("network"))
    _add_folders(parser.add_argument_group("folders"))
    _add_execution(parser.add_argument_group("execution"))
    _add_behaviour(parser.add_argument_group("behaviour"))
    group = parser.add_argument_group("ComfyUI flags without effect on the server itself")
    for name in _PACKAGES_SWITCHES:
        group.add_argument(f"--{name}", action="store_true", help=_FOR_PACKAGES)
    for name, (default, settings) in _PACKAGES_VALUES.items():
        group.add_argument(f"--{name}", default=default, help=_FOR_PACKAGES, **settings)
    return parser


def _add_network(group: argparse._ArgumentGroup) -> None:
    """Flags about who can connect."""
    group.add_argument(
        "--listen",
        default="127.0.0.1",
        nargs="?",
        const="0.0.0.0,::",
        metavar="IP",
        help="addresses to listen on, separated by commas (default 127.0.0.1; without a value: all)",
    )
    group.add_argument(
        "--allow-remote",
        action="store_true",
        help="let --listen name addresses other machines can reach, and accept any Host header; "
        "whoever can connect can then run prompts and read the output folder",
    )
    group.add_argument("--port", type=int, default=8188, help="port to listen on (default 8188)")
    group.add_argument("--tls-keyfile", default=None, help="TLS key file; with --tls-certfile: https")
    group.add_argument("--tls-certfile", default=None, help="TLS certificate file")
    group.add_argument(
        "--enable-cors-header",
        default=None,
        nargs="?",
        const="*",
        metavar="ORIGIN",
        help="answer requests of web pages of this origin (without a value: of any)",
    )
    group.add_argument(
        "--max-upload-size", type=float, default=100, metavar="MiB", help="largest request body (default 100)"
    )
    group.add_argument("--enable-compress-response-body", action="store_true", help="gzip JSON answers")


def _add_folders(group: argparse._ArgumentGroup) -> None:
    """Flags about where files are."""
    group.add_argument(
        "--base-directory",
        default=None,
        help=f"folder of models, custom_nodes, input, output, temp and user (default: {default_base_directory()})",
    )
    group.add_argument("--models-directory", default=None, help="folder of all model folders")
    group.add_argument("--output-directory", default=None, help="folder of saved results")
    group.add_argument(
        "--temp-directory",
        default=None,
        help="previews go into the folder 'temp' inside this one, which is EMPTIED at every start",
    )
    group.add_argument("--input-directory", default=None, help="folder of uploaded files")
    group.add_argument("--user-directory", default=None, help="folder of settings and stored workflows")
    group.add_argument(
        "--extra-model-paths-config",
        default=None,
        nargs="+",
        action="append",
        metavar="YAML",
        help="files that name further model and custom_nodes folders, in ComfyUI's format",
    )
    group.add_argument(
        "--front-end-root", default=None, help="folder of the editor's files (default: the installed package)"
    )


def _add_execution(group: argparse._ArgumentGroup) -> None:
    """Flags about how prompts are run."""
    cache = group.add_mutually_exclusive_group()
    cache.add_argument("--cache-classic", action="store_true", help="keep the last prompt's results (default)")
    cache.add_argument("--cache-lru", type=int, default=0, metavar="N", help="keep the last N node results")
    cache.add_argument("--cache-none", action="store_true", help="keep nothing between prompts")
    cache.add_argument(
        "--cache-ram",
        nargs="*",
        type=float,
        default=None,
        metavar="GiB",
        help="keep results while so much memory is free: those of this prompt (default: a tenth of all memory, 2 to "
        "10), and those of other prompts (default: all memory, so they are kept for one prompt)",
    )
    group.add_argument("--cpu", action="store_true", help="compute on the CPU even where there is a GPU")
    group.add_argument("--gpu-only", action="store_true", help="leave results on the GPU between nodes")
    group.add_argument("--cpu-vae", action="store_true", help="what packages run as a VAE runs on the CPU")
    group.add_argument(
        "--cuda-device", type=_number_or_text, metavar="N", help="the GPUs to be seen (0 or 0,1), or all"
    )
    group.add_argument("--default-device", type=int, default=None, metavar="N", help="the GPU that is first")
    group.add_argument("--deterministic", action="store_true", help="torch prefers deterministic algorithms")
    group.add_argument("--disable-metadata", action="store_true", help="saved images carry no workflow")
    group.add_argument(
        "--default-hashing-function",
        default="sha256",
        choices=("md5", "sha1", "sha256", "sha512"),
        help="how node packages compare files' contents",
    )


def _add_behaviour(group: argparse._ArgumentGroup) -> None:
    """Flags about start-up, packages and logging."""
    group.add_argument("--auto-launch", action="store_true", help="open the editor in a browser at start")
    group.add_argument("--disable-auto-launch", action="store_true", help="do not")
    group.add_argument("--disable-all-custom-nodes", action="store_true", help="load no node packages")
    group.add_argument(
        "--whitelist-custom-nodes",
        nargs="+",
        default=[],
        metavar="NAME",
        help="folders to load even with --disable-all-custom-nodes",
    )
    group.add_argument("--multi-user", action="store_true", help="settings per user of the editor")
    group.add_argument("--dont-print-server", action="store_true", help="do not log the address")
    group.add_argument(
        "--verbose",
        action=_Verbosity,
        nargs="*",
        metavar=("LEVEL", "FILE"),
        help="what to log, and into which file beside (may be repeated)",
    )
    group.set_defaults(log_files=())
    group.add_argument("--log-stdout", action="store_true", help="log to stdout, only errors to stderr")
    group.add_argument("--quick-test-for-ci", action="store_true", help="load everything, then exit")


def _settled(known: argparse.Namespace) -> argparse.Namespace:
    """The flags as packages read them: with what one says about another."""
    known.verbose = min(known.verbose or ("INFO",), key=LOG_LEVELS.index)
    known.auto_launch = (known.auto_launch or known.windows_standalone_build) and not known.disable_auto_launch
    known.fp16_unet = known.fp16_unet or known.force_fp16
    # None: not given; an empty list: everything.
    known.fast = set(PerformanceFeature) if known.fast == [] else set(known.fast or ())
    return known


parser = _build_parser()
# The flags in force: defaults until parse_arguments() has run. One object for the life of the process,
# because packages import it by name.
args: argparse.Namespace = _settled(parser.parse_args([]))


def parse_arguments(argv: Sequence[str]) -> list[str]:
    """Fill :data:`args` from a command line.

    Args:
        argv: without the program's name.

    Returns:
        What was not understood, for one warning.

    Raises:
        SystemExit: 2 for a known flag with a bad value, or a ``--listen`` that is not allowed (see
            :func:`check_listen`); 0 for ``--help``. The reason is on stderr.
    """
    known, unknown = parser.parse_known_args(argv)
    problem = check_listen(known.listen, known.allow_remote)
    if problem:
        parser.error(problem)
    if len(known.cache_ram or ()) > 2:
        parser.error(f"--cache-ram {known.cache_ram}: takes at most two values, in GiB: for this prompt and for others")
    vars(args).update(vars(_settled(known)))
    return unknown


def check_listen(listen: str, allow_remote: bool) -> str | None:
    """Why these addresses may not be listened on, None when they may.

    A prompt can run any installed node and read and write files, and there is no password, so an address
    other machines can reach needs two flags.
    """
    beyond = [address for address in listen.split(",") if not is_loopback(address)]
    if not beyond or allow_remote:
        return None
    return (
        f"--listen {listen}: other machines can reach {', '.join(beyond)}, and whoever reaches this server "
        "can run prompts and read its folders. Add --allow-remote if that is what you want, or leave "
        "--listen out to listen on 127.0.0.1 only."
    )


def is_loopback(host: str | None) -> bool:
    """Whether a host name or address means this machine alone. Names other than localhost do not count."""
    if not host:
        return False
    name = host.strip().strip("[]").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
