"""What is in an archive, in numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveInfo:
    """Sizes in bytes. ``index_bytes`` is the snapshot's index and the index parts of the shards."""

    url: str
    id: str
    created: str
    snapshot: int | None
    jobs: tuple[str, ...]
    pictures: int
    compressed: int
    packed: int
    stored: int
    pixels: int
    source_bytes: int
    payload_bytes: int
    """Payloads and side data that rows name; the files may hold more."""
    payload_file_bytes: int
    index_bytes: int
    codec_bytes: int
    codecs: tuple[str, ...]

    @property
    def archive_bytes(self) -> int:
        """Everything that a copy of this snapshot needs, and the index parts."""
        return self.payload_file_bytes + self.index_bytes + self.codec_bytes

    @property
    def savings(self) -> float:
        """1 - archive bytes / source bytes; 0 for an empty archive."""
        return 1 - self.archive_bytes / self.source_bytes if self.source_bytes else 0.0
