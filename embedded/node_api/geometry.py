"""Values of three dimensions, files of them, and vector graphics."""

from __future__ import annotations

import shutil
from io import BytesIO
from pathlib import Path
from typing import IO, Any


class VOXEL:
    """A grid: ``data`` is [B, D, H, W]."""

    def __init__(self, data: Any) -> None:
        self.data = data


class SPLAT:
    """Gaussian splats in world space, ready to be drawn.

    Args:
        positions: [B, N, 3].
        scales: [B, N, 3], standard deviations, positive.
        rotations: [B, N, 4], normalised quaternions (w, x, y, z).
        opacities: [B, N, 1] in 0..1.
        sh: [B, N, K, 3], spherical harmonics of the colours, K = (degree + 1) ** 2.
        counts: [B], how many of the N are meant; None: all.
    """

    def __init__(
        self, positions: Any, scales: Any, rotations: Any, opacities: Any, sh: Any, counts: Any = None
    ) -> None:
        self.positions = positions
        self.scales = scales
        self.rotations = rotations
        self.opacities = opacities
        self.sh = sh
        self.counts = counts


class MESH:
    """Meshes.

    Args:
        vertices: [B, N, 3].
        faces: [B, M, 3], numbers of vertices.
        uvs: [B, N, 2]; None: none. So the following.
        vertex_colors: [B, N, 3 or 4].
        texture: [B, H, W, 3].
        vertex_counts, face_counts: [B], how many of the N and M are meant; both or neither.
        unlit: drawn without light.
    """

    def __init__(
        self,
        vertices: Any,
        faces: Any,
        uvs: Any = None,
        vertex_colors: Any = None,
        texture: Any = None,
        vertex_counts: Any = None,
        face_counts: Any = None,
        unlit: bool = False,
    ) -> None:
        if (vertex_counts is None) != (face_counts is None):
            raise AssertionError("vertex_counts and face_counts must be provided together (both or neither)")
        self.vertices = vertices
        self.faces = faces
        self.uvs = uvs
        self.vertex_colors = vertex_colors
        self.texture = texture
        self.vertex_counts = vertex_counts
        self.face_counts = face_counts
        self.unlit = unlit


class File3D:
    """A 3D file, on disk or in memory.

    Args:
        source: its path, or a binary stream.
        file_format: "glb" and the like; empty: the path's ending, of a stream none.
    """

    def __init__(self, source: str | IO[bytes], file_format: str = "") -> None:
        self._source = source
        self._format = file_format
        if not file_format and isinstance(source, str):
            self._format = Path(source).suffix.lstrip(".").lower()

    @property
    def format(self) -> str:
        """Its format, without a dot."""
        return self._format

    @format.setter
    def format(self, value: str) -> None:
        self._format = value.lstrip(".").lower() if value else ""

    @property
    def is_disk_backed(self) -> bool:
        """Whether it is a path."""
        return isinstance(self._source, str)

    def get_source(self) -> str | IO[bytes]:
        """The path, or the stream at its beginning."""
        return self._source if isinstance(self._source, str) else self._rewound(self._source)

    def get_data(self) -> BytesIO:
        """The content as a stream; that of a stream in memory itself."""
        if isinstance(self._source, BytesIO):
            self._source.seek(0)
            return self._source
        return BytesIO(self.get_bytes())

    def get_bytes(self) -> bytes:
        """The content."""
        if isinstance(self._source, str):
            return Path(self._source).read_bytes()
        return self._rewound(self._source).read()

    def save_to(self, path: str) -> str:
        """Write it to a file, whose folder is made; returns the path."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        if not isinstance(self._source, str):
            target.write_bytes(self.get_bytes())
        elif Path(self._source).resolve() != target.resolve():
            shutil.copy2(self._source, target)
        return str(target)

    @staticmethod
    def _rewound(stream: IO[bytes]) -> IO[bytes]:
        if hasattr(stream, "seek"):
            stream.seek(0)
        return stream

    def __repr__(self) -> str:
        source = f"source={self._source!r}" if isinstance(self._source, str) else "<stream>"
        return f"File3D({source}, format={self._format!r})"


class SVG:
    """Vector graphics: a list of SVG files in memory."""

    def __init__(self, data: list[BytesIO]) -> None:
        self.data = data

    def combine(self, other: SVG) -> SVG:
        """Those of both."""
        return SVG.combine_all([self, other])

    @staticmethod
    def combine_all(svgs: list[SVG]) -> SVG:
        """Those of all."""
        return SVG([file for svg in svgs for file in svg.data])
