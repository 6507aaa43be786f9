"""Sound as the bytes of a file, by PyAV, which is optional."""

from __future__ import annotations

import importlib
import io
from collections.abc import Mapping
from typing import Any

# The sample rates Opus has, per second.
OPUS_RATES = (8000, 12000, 16000, 24000, 48000)
# Format -> codec.
_CODECS = {"opus": "libopus", "mp3": "libmp3lame", "flac": "flac"}
# Format -> quality -> bits per second.
_BIT_RATES = {
    "opus": {"64k": 64000, "96k": 96000, "128k": 128000, "192k": 192000, "320k": 320000},
    "mp3": {"128k": 128000, "320k": 320000},
}


def require(module: str, purpose: str) -> Any:
    """A module that need not be installed.

    Raises:
        RuntimeError: it is not; says what for and how to get it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as exc:
        package = module.partition(".")[0]
        raise RuntimeError(
            f"{purpose} needs {package}, which the embedded server does without: pip install {package}"
        ) from exc


def opus_rate(sample_rate: int) -> int:
    """The sample rate a sound gets in an Opus file: its own, the next higher one, or the highest."""
    return next((rate for rate in OPUS_RATES if rate >= sample_rate), OPUS_RATES[-1])


def encode(waveform: Any, sample_rate: int, format: str, quality: str, metadata: Mapping[str, str]) -> bytes:
    """A sound as a file.

    Args:
        waveform: float32 [channels, samples] in -1..1, of one or two channels.
        format: "flac", "mp3" or "opus".
        quality: a bit rate like "128k", "V0" for the best MP3; FLAC has none.
        metadata: written into the file.

    Raises:
        RuntimeError: PyAV is not installed, or torchaudio where the sample rate has to change.
    """
    av = require("av", f"Saving sound as {format}")
    rate = opus_rate(sample_rate) if format == "opus" else sample_rate
    if rate != sample_rate:
        functional = require("torchaudio.functional", f"Changing the sample rate from {sample_rate} to {rate}")
        waveform = functional.resample(waveform, sample_rate, rate)
    layout = "mono" if waveform.shape[0] == 1 else "stereo"
    buffer = io.BytesIO()
    with av.open(buffer, mode="w", format=format) as container:
        container.metadata.update(metadata)
        stream = container.add_stream(_CODECS.get(format, "flac"), rate=rate, layout=layout)
        bit_rate = _BIT_RATES.get(format, {}).get(quality)
        if bit_rate is not None:
            stream.bit_rate = bit_rate
        elif format == "mp3" and quality == "V0":
            stream.codec_context.qscale = 1
        samples = waveform.movedim(0, 1).reshape(1, -1).float().numpy()
        frame = av.AudioFrame.from_ndarray(samples, format="flt", layout=layout)
        frame.sample_rate, frame.pts = rate, 0
        for part in (frame, None):
            container.mux(stream.encode(part))
    return buffer.getvalue()
