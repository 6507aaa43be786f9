"""Videos: what nodes hand on, from frames in memory or from a file. Reading and writing files needs PyAV."""

from __future__ import annotations

import io
import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from typing import IO, Any

from .audio import require


class VideoCodec(str, Enum):
    """How frames are encoded."""

    AUTO = "auto"
    H264 = "h264"

    @classmethod
    def as_input(cls) -> list[str]:
        """The options of a combo."""
        return [member.value for member in cls]


class VideoContainer(str, Enum):
    """The format of files."""

    AUTO = "auto"
    MP4 = "mp4"

    @classmethod
    def as_input(cls) -> list[str]:
        """The options of a combo."""
        return [member.value for member in cls]

    @classmethod
    def get_extension(cls, value: str | VideoContainer) -> str:
        """The ending of a file's name.

        Raises:
            ValueError: there is no such format.
        """
        return "mp4" if cls(value) in (cls.MP4, cls.AUTO) else ""


@dataclass
class VideoComponents:
    """A video taken apart."""

    # float32 [B, H, W, 3] in 0..1
    images: Any
    frame_rate: Fraction
    # {"waveform", "sample_rate"}
    audio: Any = None
    metadata: dict[str, Any] | None = None
    # float32 [B, H, W]
    alpha: Any = None


class VideoInput(ABC):
    """A video."""

    @abstractmethod
    def get_components(self) -> VideoComponents:
        """Its frames and sound, all in memory."""

    @abstractmethod
    def save_to(
        self,
        path: str | IO[bytes],
        format: VideoContainer = VideoContainer.AUTO,
        codec: VideoCodec = VideoCodec.AUTO,
        metadata: dict[str, Any] | None = None,
        bit_depth: int | None = None,
    ) -> None:
        """Write it to a file; ``bit_depth`` None: its own."""

    @abstractmethod
    def as_trimmed(
        self, start_time: float | None = None, duration: float | None = None, strict_duration: bool = False
    ) -> VideoInput | None:
        """A part of it, in seconds; None if there is none, or with ``strict_duration`` none that long."""

    def get_stream_source(self) -> str | io.BytesIO:
        """A path, or a stream of its file."""
        buffer = io.BytesIO()
        self.save_to(buffer)
        buffer.seek(0)
        return buffer

    def get_active_trim_window(self) -> tuple[float, float]:
        """Where in its file it begins and how long it is, in seconds; a length of 0: to the end."""
        return 0.0, 0.0

    def get_dimensions(self) -> tuple[int, int]:
        """Width and height in pixels."""
        images = self.get_components().images
        return images.shape[2], images.shape[1]

    def get_bit_depth(self) -> int:
        """Bits per channel."""
        return 8

    def get_frame_count(self) -> int:
        """The number of frames."""
        return int(self.get_components().images.shape[0])

    def get_frame_rate(self) -> Fraction:
        """Frames a second."""
        return self.get_components().frame_rate

    def get_duration(self) -> float:
        """Its length in seconds."""
        components = self.get_components()
        return float(components.images.shape[0] / components.frame_rate)

    def get_container_format(self) -> str:
        """The format of its file, as FFmpeg calls it."""
        with _open(self.get_stream_source()) as container:
            return str(container.format.name)


class VideoFromComponents(VideoInput):
    """A video of frames in memory."""

    def __init__(self, components: VideoComponents) -> None:
        self.__components = components

    def get_components(self) -> VideoComponents:
        """Its frames and sound."""
        given = self.__components
        return VideoComponents(given.images, given.frame_rate, given.audio, alpha=given.alpha)

    def save_to(
        self,
        path: str | IO[bytes],
        format: VideoContainer = VideoContainer.AUTO,
        codec: VideoCodec = VideoCodec.AUTO,
        metadata: dict[str, Any] | None = None,
        bit_depth: int | None = None,
    ) -> None:
        """Write an MP4 file of H.264 frames with 8 bits per channel, without sound.

        Raises:
            ValueError: another format, codec or depth, or there is sound.
            RuntimeError: PyAV is not installed.
        """
        if VideoContainer(format) not in (VideoContainer.AUTO, VideoContainer.MP4):
            raise ValueError("Only MP4 format is supported for now")
        if VideoCodec(codec) not in (VideoCodec.AUTO, VideoCodec.H264):
            raise ValueError("Only H264 codec is supported for now")
        if bit_depth not in (None, 8):
            raise ValueError(f"a video of {bit_depth} bits cannot be written by the embedded server: only 8")
        if self.__components.audio is not None:
            raise ValueError("a video with sound cannot be written by the embedded server: leave the audio out")
        av = require("av", "Writing a video file")
        images, rate = self.__components.images, self.__components.frame_rate
        with av.open(path, mode="w", format="mp4", options={"movflags": "use_metadata_tags"}) as container:
            for name, value in (metadata or {}).items():
                container.metadata[name] = json.dumps(value)
            stream = container.add_stream("h264", rate=Fraction(round(rate * 1000), 1000))
            stream.width, stream.height, stream.pix_fmt = images.shape[2], images.shape[1], "yuv420p"
            for image in images:
                pixels = (image[..., :3] * 255).clamp(0, 255).byte().cpu().numpy()
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))

    def as_trimmed(
        self, start_time: float | None = None, duration: float | None = None, strict_duration: bool = False
    ) -> VideoInput | None:
        """The frames of a part; None if there are none, or with ``strict_duration`` fewer."""
        images, rate = self.__components.images, self.__components.frame_rate
        total = images.shape[0]
        first = round((start_time or 0) * rate)
        first = max(total + first, 0) if first < 0 else first
        wanted = round(duration * rate) if duration else total - first
        count = min(wanted, total - first)
        if count <= 0 or (strict_duration and count < wanted):
            return None
        audio = self.__components.audio
        if audio is not None:
            samples = [round(float(place / rate) * audio["sample_rate"]) for place in (first, first + count)]
            audio = {**audio, "waveform": audio["waveform"][..., samples[0] : samples[1]]}
        return VideoFromComponents(VideoComponents(images[first : first + count], rate, audio))


class VideoFromFile(VideoInput):
    """A video in a file.

    Args:
        file: its path, or a stream.
        start_time, duration: the part that is meant, in seconds; a negative start counts from the end, a duration of
            0 is all the rest.
    """

    def __init__(self, file: str | io.BytesIO, *, start_time: float = 0, duration: float = 0) -> None:
        self.__file = file
        self.__start_time = start_time
        self.__duration = duration

    def get_stream_source(self) -> str | io.BytesIO:
        """The path, or the stream at its beginning; always the whole file."""
        if isinstance(self.__file, io.BytesIO):
            self.__file.seek(0)
        return self.__file

    def get_active_trim_window(self) -> tuple[float, float]:
        """Where in its file it begins and how long it is, in seconds; a length of 0: to the end."""
        start = self.__start_time
        return (max(self._raw_duration() + start, 0.0) if start < 0 else start), self.__duration

    def _raw_duration(self) -> float:
        """The whole file's length in seconds."""
        with _open(self.get_stream_source()) as container:
            if container.duration is not None:
                return float(container.duration / 1_000_000)
            stream = _video_stream(container, self.__file)
            return float(sum(1 for _ in container.decode(stream)) / stream.average_rate)

    def get_duration(self) -> float:
        """Its length in seconds."""
        start, duration = self.get_active_trim_window()
        left = max(self._raw_duration() - start, 0.0)
        return min(duration, left) if duration else left

    def get_dimensions(self) -> tuple[int, int]:
        """Width and height in pixels."""
        with _open(self.get_stream_source()) as container:
            stream = _video_stream(container, self.__file)
            return stream.width, stream.height

    def get_frame_rate(self) -> Fraction:
        """Frames a second."""
        with _open(self.get_stream_source()) as container:
            stream = _video_stream(container, self.__file)
            return Fraction(stream.average_rate) if stream.average_rate else Fraction(1)

    def get_components(self) -> VideoComponents:
        """Its frames, all in memory; its sound is left out."""
        import numpy as np
        import torch

        start, duration = self.get_active_trim_window()
        frames = []
        with _open(self.get_stream_source()) as container:
            stream = _video_stream(container, self.__file)
            rate = Fraction(stream.average_rate) if stream.average_rate else Fraction(1)
            for frame in container.decode(stream):
                time = float(frame.time or 0.0)
                if duration and time >= start + duration:
                    break
                if time >= start:
                    frames.append(torch.from_numpy(frame.to_ndarray(format="rgb24").astype(np.float32) / 255))
            metadata = dict(container.metadata)
        images = torch.stack(frames) if frames else torch.zeros(0, 0, 0, 3)
        return VideoComponents(images, rate, None, metadata)

    def save_to(
        self,
        path: str | IO[bytes],
        format: VideoContainer = VideoContainer.AUTO,
        codec: VideoCodec = VideoCodec.AUTO,
        metadata: dict[str, Any] | None = None,
        bit_depth: int | None = None,
    ) -> None:
        """Write it to a file: frames decoded and encoded anew as MP4, without sound; see VideoFromComponents."""
        components = self.get_components()
        tags = {**(components.metadata or {}), **(metadata or {})}
        VideoFromComponents(components).save_to(path, format, codec, tags, bit_depth)

    def as_trimmed(
        self, start_time: float | None = None, duration: float | None = None, strict_duration: bool = False
    ) -> VideoInput | None:
        """A part of it; None if there is none, or with ``strict_duration`` none that long."""
        start, length = self.get_active_trim_window()
        part = VideoFromFile(self.__file, start_time=start + (start_time or 0), duration=duration or length)
        available = part.get_duration()
        if available <= 0 or (strict_duration and duration and available < duration):
            return None
        return part


def container_to_output_format(container_format: str | None) -> str | None:
    """The first of the formats FFmpeg names for a file ("mov,mp4,m4a"): files are written in one. None: any."""
    return container_format.split(",")[0] if container_format else None


def get_open_write_kwargs(dest: str | io.BytesIO, container_format: str, to_format: str | None) -> dict[str, Any]:
    """Arguments for ``av.open`` to write a video.

    Args:
        dest: a path, whose ending says the format, or a stream, for which it is given.
        container_format: the format it was read from.
        to_format: the format to write; "auto": the same.
    """
    options: dict[str, Any] = {"mode": "w", "options": {"movflags": "use_metadata_tags"}}
    if isinstance(dest, io.BytesIO):
        wanted = container_format if to_format == VideoContainer.AUTO else to_format
        options["format"] = container_to_output_format(wanted.lower() if isinstance(wanted, str) else wanted)
    return options


def _open(source: str | io.BytesIO) -> Any:
    """A video file to read from.

    Raises:
        RuntimeError: PyAV is not installed.
    """
    return require("av", "Reading a video file").open(source, mode="r")


def _video_stream(container: Any, file: str | io.BytesIO) -> Any:
    """The file's frames.

    Raises:
        ValueError: it has none.
    """
    stream = next(iter(container.streams.video), None)
    if stream is None:
        raise ValueError(f"No video stream found in file '{file}'")
    return stream
