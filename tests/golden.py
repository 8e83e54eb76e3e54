"""Writes a golden archive: what this version of lichen makes, to be decoded by every later one.

``make golden`` runs it once a release and puts the archive into ``tests/data/archives/VERSION``, beside the pictures
that it was made from. It has every status, packing and kind of side data, in the hand of the codecs that ship, of a
classical one and of a published kind (small and untrained: how it is decoded matters, not how well).
``test_golden.py`` reads them all. An archive that is there is never written again.
"""

from __future__ import annotations

import io
import shutil
import tempfile
from pathlib import Path

import numpy as np
from learned_support import photograph
from PIL import Image, ImageCms, PngImagePlugin
from snapped_support import lively

import lichen
from lichen import defaults
from lichen.models.bundle import write_codec
from lichen.models.snapped.scheme import freeze

FOLDER = Path(__file__).parent / "data" / "archives"


def write_sources(folder: Path) -> None:
    """Small pictures with everything that may belong to one, a folder for each job."""
    for name in ("shipped", "deep", "published", "classical", "lossless", "chosen"):
        (folder / name).mkdir(parents=True)
    photo = Image.fromarray(np.ascontiguousarray(photograph()[100:260, 100:340]))
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x010E], exif[0x0112] = "a golden picture", 6
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "kept as a block")
    text.add_itxt("XML:com.adobe.xmp", "<x:xmpmeta xmlns:x='adobe:ns:meta/'/>")
    alpha = np.tile(np.linspace(0, 255, photo.width).astype(np.uint8), (photo.height, 1))
    page = np.full((192, 256, 3), 255, np.uint8)
    page[:96, :128] = np.asarray(photo)[:96, :128]

    shipped = folder / "shipped"
    photo.save(shipped / "photo.jpg", quality=95, exif=exif, icc_profile=icc)
    photo.convert("L").save(shipped / "grey.png", pnginfo=text)
    for mode in ("RGBA", "LA"):
        layered = photo.convert(mode)
        layered.putalpha(Image.fromarray(alpha))
        layered.save(shipped / f"{mode.lower()}.png")
    Image.fromarray(page).save(shipped / "flat.png")
    Image.new("RGB", (1, 1), (1, 2, 3)).save(shipped / "dot.png")
    Image.fromarray(np.zeros((40, 40), np.uint16)).save(shipped / "sixteen.png")
    (shipped / "cut.jpg").write_bytes(_jpeg(photo)[:3000])
    for name in ("deep", "published", "classical"):
        photo.save(folder / name / f"{name}.png")
    (folder / "lossless" / "packed.jpg").write_bytes(_jpeg(photo))
    photo.convert("P").save(folder / "lossless" / "packed.bmp")
    (folder / "lossless" / "stored.webp").write_bytes(_encoded(photo, "WEBP", quality=60))
    photo.save(folder / "chosen" / "chosen.png")
    Image.fromarray(np.kron(np.eye(12, dtype=np.uint8), np.full((16, 16), 255, np.uint8))).save(
        folder / "chosen" / "plot.png"
    )


def _jpeg(image: Image.Image) -> bytes:
    return _encoded(image, "JPEG", quality=90)


def _encoded(image: Image.Image, kind: str, **options: int) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def write_golden(target: Path) -> None:
    """Make ``target``: ``archive`` and its ``sources``. Raises ``FileExistsError`` if it is there."""
    target.mkdir(parents=True)
    archive = target / "archive"
    with tempfile.TemporaryDirectory() as scratch:
        # An archive keeps the paths of its sources: they lie where a checkout does not.
        sources = Path(scratch) / "pictures"
        write_sources(sources)
        shutil.copytree(sources, target / "sources")
        write_codec(Path(scratch), "mbt2018-mean", freeze(lively("mbt2018-mean"), "mbt2018-mean", {}))
        codecs = {
            "shipped": defaults.CODEC,
            "deep": defaults.STRONG_CODEC,
            "published": str(Path(scratch) / "mbt2018-mean.json"),
            "classical": "webp",
            "chosen": defaults.AUTO,
        }
        for name, codec in codecs.items():
            low = {"psnr_floor": 0.0, "block_psnr_floor": 0.0} if name == "published" else {}
            quality = lichen.QualityConfig(quality=60, **low)
            lichen.compress(sources / name, archive, codec=codec, quality=quality, local=True)
        whole = lichen.QualityConfig(lossless=True)
        lichen.compress(sources / "lossless", archive, quality=whole, local=True)
    shutil.rmtree(archive / ".tmp", ignore_errors=True)


if __name__ == "__main__":
    write_golden(FOLDER / ".".join(lichen.__version__.split(".")[:2]))
