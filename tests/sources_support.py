"""What tests of sources share: names, contents, tar files, and a web server that they may damage answers of."""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass
from typing import Any

import s3fs

from lichen.pipeline.sources import list_sources

NAMES = [
    "a.txt.jpg",
    "a/1.png",
    "a/b/c/deep.jpg",
    "a/z.png",
    "ab.png",
    "zz::top 100%.jpg",
    "ü ñ/日本 #1?.png",
]


def content(name: str) -> bytes:
    return b"content of " + name.encode() * 3


def keys(src: str | list[str], **kwargs: object) -> list[str]:
    return [source.key for source in list_sources(src, **kwargs)]  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """A fresh bucket on a real S3 endpoint over HTTP."""

    name: str
    options: dict[str, Any]
    file_system: s3fs.S3FileSystem

    @property
    def url(self) -> str:
        return f"s3://{self.name}"


def tar_bytes(members: dict[str, bytes], tar_format: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tar_format) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()
