"""Side data: packed and unpacked without loss, whatever stands there."""

from __future__ import annotations

import io
import random
import zlib

import numpy as np
import pytest
from pictures_support import (
    ALPHA,
    MESSY,
    RGB,
)
from PIL import Image

from lichen.errors import (
    CorruptArchive,
)
from lichen.models.codec import Pixels
from lichen.pipeline.pictures.reading import read_picture, save_picture, to_pil
from lichen.pipeline.pictures.side import MAX_SECTION, Side, pack_side, unpack_side

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")


def alphas() -> list[Pixels]:
    soft = np.add.outer(np.arange(90), np.arange(120)).astype(np.uint8)
    long = np.zeros((1, 20000), np.uint8)
    long[0, ::7] = 255
    return [np.full((3, 5), 255, np.uint8), np.zeros((1, 1), np.uint8), ALPHA, soft, long, ALPHA[:1, :2]]


@pytest.mark.parametrize("index", range(6))
def test_alpha_planes_are_lossless_and_small(index: int) -> None:
    alpha = alphas()[index]
    packed = pack_side(Side(alpha=alpha))
    back = unpack_side(packed).alpha
    assert back is not None
    assert np.array_equal(back, alpha)
    assert len(packed) < alpha.size + 40
    if alpha.min() == alpha.max():
        assert len(packed) < 12


def test_side_data_without_alpha() -> None:
    side = Side(exif=b"", icc=b"i" * 3000, xmp=bytes(range(256)), blocks=(("a:b", b""), ("ü", b"x" * 500)))
    assert unpack_side(pack_side(side)) == side
    assert pack_side(Side()) == b""
    assert unpack_side(b"") == Side()


def test_garbage_side_data() -> None:
    """Mutations end in a Side or in CorruptArchive."""
    picture = read_picture((MESSY / "pil_pil_sample_rgb.jpg").read_bytes())
    sources = [pack_side(Side(alpha=alpha, exif=b"e" * 30)) for alpha in alphas()[:4]] + [pack_side(picture)]
    dice = random.Random(3)
    refused = 0
    for round_ in range(1500):
        data = bytearray(sources[round_ % len(sources)])
        if round_ % 4 == 0:
            del data[dice.randrange(len(data)) :]
        for _ in range(dice.randrange(1, 4)):
            if data:
                data[dice.randrange(min(len(data), dice.choice((8, 60, 10_000))))] = dice.randrange(256)
        try:
            side = unpack_side(bytes(data))
        except CorruptArchive:
            refused += 1
        else:
            assert side.alpha is None or side.alpha.ndim == 2
    assert refused > 700


def test_side_data_bombs() -> None:
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = squeezer.compress(bytes(1 << 20)) + squeezer.flush()
    length = bytes([0xFF, 0xFF, 0xFF, 0xFF, 0x0F])  # 2^32 - 1
    bombs = [
        b"\1\2\1" + length + bytes([0x80 | len(bomb) & 0x7F, len(bomb) >> 7]) + bomb,  # declared too large
        b"\1\2\1\x05" + bytes([0x80 | len(bomb) & 0x7F, len(bomb) >> 7]) + bomb,  # larger than declared
        b"\1\1\2" + length + length + b"\1\xff",  # a constant alpha plane of 2^64 pixels
        b"\1\2\0" + b"\xff" * 9,
        b"\2rest",
        b"\1\2\0\1\1a\2\0\1\1a",  # twice the same section
        b"\1\x09\0\1\1a",
    ]
    assert MAX_SECTION < 1 << 30
    for data in bombs:
        with pytest.raises(CorruptArchive):
            unpack_side(data)


def test_side_data_of_another_picture() -> None:
    packed = pack_side(Side(alpha=np.full((300, 500), 7, np.uint8)))
    assert len(packed) < 20
    assert unpack_side(packed, (300, 500)).alpha is not None
    with pytest.raises(CorruptArchive, match="another size than the picture"):
        unpack_side(packed, (3, 5))
    nameless = bytes([1, 5, 0, 4, 4]) + bytes(4)
    with pytest.raises(CorruptArchive, match="names"):
        unpack_side(nameless)
    odd = Side(blocks=(("png:\u4e00abc", b"x"), ("png:teXt", b"a\0b")))
    save_picture(Image.new("L", (3, 3)), io.BytesIO(), "PNG", blocks=odd.blocks)


def test_alpha_must_fit() -> None:
    for side in (None, Side(), Side(alpha=ALPHA[:, :5])):
        with pytest.raises(CorruptArchive):
            to_pil(RGB, "RGBA", side)
    with pytest.raises(CorruptArchive):
        to_pil(RGB, "CMYK", Side())
