"""Videos: what nodes hand on, from frames in memory or from a file. Reading and writing files needs PyAV."""

from __future__ import annotations

import io
import json
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from typing import IO, Any

from .audio import require

# Number of channels -> what FFmpeg calls them.
_LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}


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
    """A video of frames in memory; ``bit_depth`` is what it is written with, 8 or 10."""

    def __init__(self, components: VideoComponents, bit_depth: int = 8) -> None:
        self.__components = components
        self.__bit_depth = bit_depth

    def get_components(self) -> VideoComponents:
        """Its frames and sound."""
        given = self.__components
        return VideoComponents(given.images, given.frame_rate, given.audio)

    def get_bit_depth(self) -> int:
        """Bits per channel."""
        return self.__bit_depth

    def save_to(
        self,
        path: str | IO[bytes],
        format: VideoContainer = VideoContainer.AUTO,
        codec: VideoCodec = VideoCodec.AUTO,
        metadata: dict[str, Any] | None = None,
        bit_depth: int | None = None,
    ) -> None:
        """Write a file of H.264 frames and AAC sound: MP4, or what the path's ending says if no format is given.

        Raises:
            ValueError: another format or codec, or there are no frames.
            RuntimeError: PyAV is not installed.
        """
        written = _written_format(path, format, codec)
        tags = {name: json.dumps(value) for name, value in (metadata or {}).items()}
        _write(path, written, self.__components, tags, bit_depth or self.__bit_depth)

    def as_trimmed(
        self, start_time: float | None = None, duration: float | None = None, strict_duration: bool = True
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

    def get_frame_count(self) -> int:
        """The number of frames, counted one by one: what files say of it is not always true."""
        start, duration = self.get_active_trim_window()
        with _open(self.get_stream_source()) as container:
            return sum(1 for _ in _frames(container, _video_stream(container, self.__file), start, duration))

    def get_bit_depth(self) -> int:
        """Bits per channel."""
        with _open(self.get_stream_source()) as container:
            return _bit_depth(_video_stream(container, self.__file))

    def get_components(self) -> VideoComponents:
        """Its frames and sound, all in memory."""
        import numpy as np
        import torch

        start, duration = self.get_active_trim_window()
        with _open(self.get_stream_source()) as container:
            stream = _video_stream(container, self.__file)
            rate = Fraction(stream.average_rate) if stream.average_rate else Fraction(1)
            frames = [
                torch.from_numpy(frame.to_ndarray(format="rgb24").astype(np.float32) / 255)
                for frame in _frames(container, stream, start, duration)
            ]
            metadata = dict(container.metadata)
        images = torch.stack(frames) if frames else torch.zeros(0, 0, 0, 3)
        with _open(self.get_stream_source()) as container:
            audio = _read_sound(container, start, duration)
        return VideoComponents(images, rate, audio, metadata)

    def save_to(
        self,
        path: str | IO[bytes],
        format: VideoContainer = VideoContainer.AUTO,
        codec: VideoCodec = VideoCodec.AUTO,
        metadata: dict[str, Any] | None = None,
        bit_depth: int | None = None,
    ) -> None:
        """Write it to a file: as it is if it has the format, codec and depth, else encoded anew, see
        :meth:`VideoFromComponents.save_to`."""
        with _open(self.get_stream_source()) as container:
            container_format = str(container.format.name)
            stream = next(iter(container.streams.video), None)
            as_it_is = (
                (format == VideoContainer.AUTO or format in container_format.split(","))
                and (codec == VideoCodec.AUTO or stream is None or codec == stream.codec.name)
                and (bit_depth is None or stream is None or bit_depth == _bit_depth(stream))
                and not (self.__start_time or self.__duration)
            )
            tags = dict(container.metadata)
            tags.update({k: v if isinstance(v, str) else json.dumps(v) for k, v in (metadata or {}).items()})
            if as_it_is:
                _copy_streams(container, path, get_open_write_kwargs(path, container_format, format), tags)
                return
        written = _written_format(path, format, codec)
        _write(path, written, self.get_components(), tags, bit_depth or self.get_bit_depth())

    def as_trimmed(
        self, start_time: float | None = None, duration: float | None = None, strict_duration: bool = True
    ) -> VideoInput | None:
        """A part of it; None if there is none, or with ``strict_duration`` none that long.

        Args:
            start_time: in seconds from where it begins, negative: from where it ends.
            duration: in seconds; None or 0: all the rest.
        """
        begin, limit = self.get_active_trim_window()
        length = self.get_duration()
        first = start_time or 0
        first = max(length + first, 0.0) if first < 0 else first
        available = length - first
        if available <= 0 or (strict_duration and duration and available < duration):
            return None
        # A part of a part ends where that does.
        wanted = min(duration, available) if duration else available if limit else 0
        return VideoFromFile(self.__file, start_time=begin + first, duration=wanted)


def container_to_output_format(container_format: str | None) -> str | None:
    """The first of the formats FFmpeg names for a file ("mov,mp4,m4a"): files are written in one. None: any."""
    return container_format.split(",")[0] if container_format else None


def get_open_write_kwargs(dest: str | IO[bytes], container_format: str, to_format: str | None) -> dict[str, Any]:
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


def _frames(container: Any, stream: Any, start: float, duration: float) -> Iterator[Any]:
    """The frames of a stream from ``start`` on, ``duration`` seconds or (0) all.

    Times are cut to the stream's ticks, as in ComfyUI: 0.1 + 0.2 is no later than 0.3.
    """
    first, end = (int(time / stream.time_base) for time in (start, start + duration))
    for frame in container.decode(stream):
        tick = frame.pts or 0
        if duration and tick >= end:
            return
        if tick >= first:
            yield frame


def _bit_depth(stream: Any) -> int:
    """Bits per channel of a file's frames."""
    components = stream.format.components if stream.format is not None else ()
    return max((component.bits for component in components), default=8)


def _written_format(path: str | IO[bytes], format: VideoContainer, codec: VideoCodec) -> str | None:
    """The format to encode a video in; None: what the path's ending says.

    Raises:
        ValueError: it cannot be encoded.
    """
    if format not in (VideoContainer.AUTO, VideoContainer.MP4):
        raise ValueError("Only MP4 format is supported for now")
    if codec not in (VideoCodec.AUTO, VideoCodec.H264):
        raise ValueError("Only H264 codec is supported for now")
    return None if format == VideoContainer.AUTO and isinstance(path, (str, os.PathLike)) else "mp4"


def _copy_streams(container: Any, path: str | IO[bytes], options: dict[str, Any], tags: dict[str, str]) -> None:
    """Write a file's frames and sound to another one without encoding them anew."""
    with require("av", "Writing a video file").open(path, **options) as output:
        output.metadata.update(tags)
        copied = {
            stream: output.add_stream_from_template(template=stream, opaque=True)
            for stream in container.streams
            if stream.type in ("video", "audio", "subtitle") and stream.codec_context is not None
        }
        for packet in container.demux(list(copied)):
            # The last one of each stream is empty.
            if packet.dts is not None:
                packet.stream = copied[packet.stream]
                output.mux(packet)


def _write(
    path: str | IO[bytes],
    container_format: str | None,
    components: VideoComponents,
    tags: dict[str, str],
    bit_depth: int,
) -> None:
    """Encode a video; sound that is longer than the frames is cut.

    Args:
        container_format: see :func:`_written_format`.
        tags: texts about it.
        bit_depth: 8, or 10 and more for 10.

    Raises:
        ValueError: it has no frames.
        RuntimeError: PyAV is not installed.
    """
    import numpy as np

    if components.images.shape[0] == 0:
        raise ValueError("The video has no frames; it cannot be written to a file.")

    av = require("av", "Writing a video file")
    images, rate = components.images, Fraction(round(components.frame_rate * 1000), 1000)
    # What goes into the encoder, and its format: 16 bits keep their precision on the way to 10.
    deep = bit_depth >= 10
    largest, kind, given, encoded = (
        (65535, np.uint16, "rgb48le", "yuv420p10le") if deep else (255, np.uint8, "rgb24", "yuv420p")
    )
    with av.open(path, mode="w", format=container_format, options={"movflags": "use_metadata_tags"}) as output:
        output.metadata.update(tags)
        video = output.add_stream("h264", rate=rate)
        video.width, video.height, video.pix_fmt = images.shape[2], images.shape[1], encoded
        sound, layout, sample_rate = None, "", 0
        if components.audio:
            sample_rate = int(components.audio["sample_rate"])
            waveform = components.audio["waveform"][0, :, : math.ceil(sample_rate / rate * images.shape[0])]
            layout = _LAYOUTS.get(waveform.shape[0], "stereo")
            sound = output.add_stream("aac", rate=sample_rate, layout=layout)
        for image in images:
            pixels = (image[..., :3].float() * largest).clamp(0, largest).cpu().numpy().astype(kind)
            output.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format=given).reformat(format=encoded)))
        output.mux(video.encode(None))
        if sound is not None:
            samples = waveform.float().cpu().contiguous().numpy()
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
            frame.sample_rate, frame.pts = sample_rate, 0
            output.mux(sound.encode(frame))
            output.mux(sound.encode(None))


def _read_sound(container: Any, start: float, duration: float) -> dict[str, Any] | None:
    """The last sound of a file that can be decoded, from ``start`` on, ``duration`` seconds or (0) all; None: none."""
    import numpy as np
    import torch

    stream = next((s for s in reversed(container.streams.audio) if s.codec_context is not None), None)
    if stream is None:
        return None
    resampler = require("av", "Reading a video file").AudioResampler(format="fltp")
    parts = [part for frame in container.decode(stream) for part in resampler.resample(frame)]
    if not parts:
        return None
    sample_rate = int(stream.codec_context.sample_rate)
    # Files may begin with a little sound before time 0, to start the decoder with.
    begin = float(parts[0].time or 0.0)
    waveform = np.concatenate([part.to_ndarray() for part in parts], axis=1)
    waveform = waveform[:, max(0, round((start - begin) * sample_rate)) :]
    if duration:
        waveform = waveform[:, : math.ceil(duration * sample_rate)]
    return {"waveform": torch.from_numpy(waveform)[None], "sample_rate": sample_rate}
