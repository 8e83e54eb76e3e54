"""Pictures that are no photographs, made here: plots, pages, screens, drawings, scans, and photographs set in them.

Everything follows from a seed, so that a table can be made again: fonts are those that Pillow and matplotlib carry.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from lichen.models.codec import Pixels

Dice = np.random.Generator
_TEXT = "lichen moss stone bark slow grey light shade rain wall roof wood of a in the on grows 12 40.5 (2026)"
_WORDS = _TEXT.split()
_INKS = ((0, 0, 0), (31, 78, 121), (160, 32, 32), (20, 110, 60), (90, 90, 90), (112, 48, 160))


def mixed(photographs: Sequence[Pixels], *, seed: int = 1, rounds: int = 1) -> dict[str, Pixels]:
    """Pictures by name: every kind of ``KINDS`` once a round, and every photograph once."""
    dice = np.random.default_rng(seed)
    found = {f"photograph-{number:02}": photo for number, photo in enumerate(photographs)}
    photos = cycle(photographs)
    for number in range(rounds):
        for name, make in KINDS.items():
            found[f"{name}-{number:02}"] = make(dice, next(photos))
    return found


def middle(pixels: Pixels, side: int) -> Pixels:
    """A square from the middle of a picture, or what there is of it."""
    top, left = (max(0, (length - side) // 2) for length in pixels.shape[:2])
    return np.ascontiguousarray(pixels[top : top + side, left : left + side])


def plot_lines(dice: Dice, _photo: Pixels) -> Pixels:
    """Curves with markers, a grid and a legend."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), dpi=100)
    axes = figure.subplots()
    for number in range(4):
        values = np.cumsum(dice.normal(size=20)) + number
        axes.plot(values, marker="os^d"[number], label=f"codec {number}")
    axes.grid(alpha=0.4)
    axes.legend()
    axes.set(title="Rate and distortion", xlabel="bits per pixel", ylabel="PSNR in dB")
    return _drawn(figure)


def plot_bars(dice: Dice, _photo: Pixels) -> Pixels:
    """Bars beside a heat map with its scale."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), dpi=90)
    left, right = figure.subplots(1, 2)
    left.bar([f"no. {n}" for n in range(6)], dice.uniform(1, 9, 6), color="tab:green", edgecolor="black")
    shown = right.imshow(dice.normal(size=(12, 12)), cmap="viridis")
    figure.colorbar(shown, ax=right)
    return _drawn(figure)


def page(dice: Dice, _photo: Pixels) -> Pixels:
    """Black text on white in several sizes."""
    image = Image.new("RGB", (800, 600), "white")
    _write(image, dice, (40, 30, 760, 590), sizes=(30, 16, 16, 12), inks=_INKS[:1])
    return np.asarray(image)


def screen(dice: Dice, _photo: Pixels) -> Pixels:
    """A window with a bar, buttons, a list and coloured text on grey; dark in half of the cases."""
    dark = bool(dice.integers(2))
    back, panel, ink = ((30, 30, 34), (45, 45, 52), (215, 215, 220)) if dark else (
        (250, 250, 252), (232, 234, 240), (40, 40, 48)
    )  # fmt: skip
    image = Image.new("RGB", (960, 600), back)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, 960, 44), fill=(52, 101, 164))
    draw.rectangle((0, 44, 220, 600), fill=panel)
    for row in range(12):
        draw.rounded_rectangle((14, 60 + 44 * row, 206, 94 + 44 * row), 6, fill=_mix(panel, ink, 0.1))
        draw.text((26, 68 + 44 * row), " ".join(dice.choice(_WORDS, 2)), ink, _font(15))
    draw.text((20, 10), "Archive of pictures", (255, 255, 255), _font(20))
    _write(image, dice, (250, 70, 930, 590), sizes=(18, 13, 13), inks=(ink, (90, 140, 210), (200, 120, 60)))
    return np.asarray(image)


def drawing(dice: Dice, _photo: Pixels) -> Pixels:
    """Flat shapes with smooth edges, as of a vector drawing."""
    big = Image.new("RGB", (1280, 960), tuple(dice.integers(200, 256, 3).tolist()))
    draw = ImageDraw.Draw(big)
    for _ in range(18):
        x, y, w, h = dice.integers((0, 0, 60, 60), (1100, 800, 500, 400)).tolist()
        fill = tuple(dice.integers(0, 256, 3).tolist())
        shape = dice.choice(["ellipse", "rectangle", "rounded_rectangle"])
        outline = (20, 20, 20) if dice.integers(2) else None
        getattr(draw, shape)((x, y, x + w, y + h), fill=fill, outline=outline, width=4)
    return np.asarray(big.resize((640, 480), Image.Resampling.BOX))


def scan(dice: Dice, _photo: Pixels) -> Pixels:
    """A page from a scanner: soft, on paper with a tint, grain and a shadow."""
    image = Image.new("RGB", (800, 600), "white")
    _write(image, dice, (50, 40, 750, 580), sizes=(24, 15, 15), inks=((25, 25, 30),))
    soft = np.asarray(
        image.rotate(0.6, Image.Resampling.BICUBIC, fillcolor="white").filter(ImageFilter.GaussianBlur(0.7))
    )
    shadow = np.linspace(1.0, 0.93, soft.shape[1])[None, :, None]
    paper = soft * np.array([0.97, 0.955, 0.92]) * shadow + dice.normal(0, 2.0, soft.shape)
    return _bytes(paper)


def product(_dice: Dice, photo: Pixels) -> Pixels:
    """A photograph cut out in front of pure white, with a soft edge."""
    height, width = photo.shape[:2]
    mask = Image.new("L", (width, height))
    ImageDraw.Draw(mask).ellipse((width // 4, height // 6, width * 3 // 4, height * 5 // 6), fill=255)
    part = np.asarray(mask.filter(ImageFilter.GaussianBlur(2)), np.float64)[:, :, None] / 255
    return _bytes(photo * part + 255 * (1 - part))


def set_page(dice: Dice, photo: Pixels) -> Pixels:
    """A photograph in a white page with text around it."""
    image = Image.new("RGB", (900, 640), "white")
    inset = Image.fromarray(photo)
    inset.thumbnail((420, 420))
    image.paste(inset, (440, 60))
    _write(image, dice, (40, 40, 410, 610), sizes=(26, 14, 14), inks=_INKS[:2])
    _write(image, dice, (440, 90 + inset.height, 860, 620), sizes=(11,), inks=_INKS[4:5])
    return np.asarray(image)


def screen_photo(dice: Dice, photo: Pixels) -> Pixels:
    """A window that shows a photograph, as a picture viewer does."""
    window = Image.fromarray(screen(dice, photo))
    inset = Image.fromarray(photo)
    inset.thumbnail((700, 540))
    window.paste(inset, (230, 52))
    return np.asarray(window)


KINDS: Mapping[str, Callable[[Dice, Pixels], Pixels]] = {
    "plot-lines": plot_lines,
    "plot-bars": plot_bars,
    "page": page,
    "screen": screen,
    "drawing": drawing,
    "scan": scan,
    "product": product,
    "set-page": set_page,
    "screen-photo": screen_photo,
}


def _drawn(figure: object) -> Pixels:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")  # type: ignore[attr-defined]
    return np.asarray(Image.open(buffer).convert("RGB"))


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _write(
    image: Image.Image,
    dice: Dice,
    box: tuple[int, int, int, int],
    *,
    sizes: Sequence[int],
    inks: Sequence[tuple[int, ...]],
) -> None:
    """Fill a box with lines of words, paragraph after paragraph in the next size and colour."""
    draw = ImageDraw.Draw(image)
    left, top, right, bottom = box
    for size, ink in zip(cycle(sizes), cycle(inks), strict=False):
        font = _font(size)
        for _ in range(1 if size == max(sizes) and len(sizes) > 1 else 5):
            if top + size * 1.4 > bottom:
                return
            line = ""
            while draw.textlength(longer := f"{line} {dice.choice(_WORDS)}".strip(), font) < right - left:
                line = longer
            draw.text((left, top), line, ink, font)
            top += round(size * 1.4)
        top += size // 2


def _mix(a: tuple[int, ...], b: tuple[int, ...], share: float) -> tuple[int, ...]:
    return tuple(round(x + (y - x) * share) for x, y in zip(a, b, strict=True))


def _bytes(values: NDArray[np.float64]) -> Pixels:
    return values.round().clip(0, 255).astype(np.uint8)
