"""Settings: one home for a default, a limit and a help text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, FrozenInstanceError, dataclass
from typing import Any, Literal

import numpy as np
import pytest
import typer
from jobs_support import GROUPS, job_config
from typer.testing import CliRunner

from lichen import defaults
from lichen.errors import UsageError
from lichen.jobs.options import with_settings
from lichen.jobs.training.config import TrainConfig
from lichen.models import codec
from lichen.pipeline.engine.config import CodecConfig, EngineConfig, JobConfig, QualityConfig, SourceConfig
from lichen.settings import check, described, setting, settings


@described
@dataclass(frozen=True, slots=True, kw_only=True)
class Tea:
    """How tea is made.

    Settings:
    """

    minutes: float = setting(3.0, "How long it draws.", short="-m", above=0, at_most=10)
    milk: Literal["none", "before", "after"] = setting("none", "When the milk comes.")
    strainer: bool = setting(False, "Use a strainer.", cli=False)
    grams: int | None = setting(None, "Kilograms of leaves.", option="kilograms", unit=1000, at_least=1)

    def __post_init__(self) -> None:
        check(self)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"minutes": 0.0}, "minutes must be above 0 and at most 10, not 0.0"),
        ({"minutes": float("nan")}, "minutes must be"),
        ({"milk": "never"}, "milk must be one of none, before, after, not 'never'"),
        ({"grams": 0}, "grams must be at least 1, not 0"),
        ({"grams": 2.5}, "grams must be a whole number or None, not of type float"),
        ({"grams": True}, "grams must be a whole number or None, not of type bool"),
        ({"minutes": "3"}, "minutes must be a number, not of type str"),
        ({"minutes": None}, "minutes must be a number, not of type NoneType"),
        ({"strainer": "no"}, "strainer must be True or False, not of type str"),
        ({"grams": float("inf")}, "grams must be a whole number"),
        ({"minutes": True}, "minutes must be a number, not of type bool"),
    ],
)
def test_limits_and_choices_are_kept(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Tea(**given)


def test_the_docstring_has_the_settings() -> None:
    assert "minutes: How long it draws." in (Tea.__doc__ or "") and "strainer: Use" in (Tea.__doc__ or "")


def test_the_command_line_is_made_of_the_fields() -> None:
    app, made = typer.Typer(), []

    def brew(pot: str, tea: Tea) -> None:
        made.append((pot, tea))

    app.command()(with_settings(brew))
    runner = CliRunner()
    assert runner.invoke(app, ["small"]).exit_code == 0
    assert runner.invoke(app, ["big", "-m", "5", "--milk", "after", "--kilograms", "2"]).exit_code == 0
    assert made == [("small", Tea()), ("big", Tea(minutes=5.0, milk="after", grams=2000))]
    assert type(made[1][1].milk) is str
    for wrong in (["--milk", "never"], ["--kilograms", "0"], ["--strainer"]):
        assert runner.invoke(app, ["small", *wrong]).exit_code == 2


def test_configurations_are_frozen_and_by_keyword_and_every_field_is_told() -> None:
    for kind in GROUPS.values():
        config = kind()
        with pytest.raises((FrozenInstanceError, TypeError)):
            config.device = "cpu"  # type: ignore[union-attr,attr-defined]
        assert len(settings(kind)) == len(kind.__dataclass_fields__)
        assert all(known.text.endswith(".") for _, known in settings(kind).values())
    assert all(one.default is not MISSING for one, _ in settings(TrainConfig).values())


def test_no_two_settings_have_one_name_on_the_command_line() -> None:
    names = [name for kind in (CodecConfig, QualityConfig, SourceConfig, EngineConfig) for name in settings(kind)]
    assert len(set(names)) == len(names)


def test_limits_are_those_of_the_codecs() -> None:
    assert defaults.QUALITIES == (codec.MIN_QUALITY, codec.MAX_QUALITY)
    assert defaults.EFFORTS == (codec.MIN_EFFORT, codec.MAX_EFFORT)


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (QualityConfig, {"quality": None}),
        (QualityConfig, {"psnr_floor": float("inf")}),
        (CodecConfig, {"effort": 3.5}),
        (EngineConfig, {"shard_bytes": float("inf")}),
        (EngineConfig, {"workers": True}),
        (SourceConfig, {"options": [("key", "x")]}),
    ],
)
def test_no_job_is_begun_with_what_would_break_it_later(kind: type[Any], given: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        kind(**given)


def test_the_frozen_record_is_as_it_was() -> None:
    """Jobs that earlier versions began go on only if every name and value is the same."""
    record = job_config(
        "/photos", "archive", codec="webp", min_ssimulacra2=80.0, effort=2, on_duplicate="first"
    ).frozen(7)
    assert record == {
        "source": ["/photos"],
        "codec": "webp",
        "quality": 85.0,
        "psnr_floor": 30.0,
        "block_psnr_floor": 24.0,
        "effort": 2,
        "min_psnr": None,
        "min_ms_ssim": None,
        "min_ssimulacra2": 80.0,
        "target_bpp": None,
        "ms_ssim": 0.25,
        "ssimulacra2": 0.25,
        "lossless": False,
        "store_plain": False,
        "store_others": False,
        "hidden": False,
        "on_duplicate": "first",
        "on_collision": "error",
        "shard_pictures": 16384,
        "shard_bytes": 7,
    }
    assert all(type(value) in (list, str, float, int, bool, type(None)) for value in record.values())


@pytest.mark.parametrize(
    "build",
    [
        lambda: QualityConfig(quality="90"),  # type: ignore[arg-type]
        lambda: QualityConfig(lossless="no"),  # type: ignore[arg-type]
        lambda: QualityConfig(psnr_floor=None),  # type: ignore[arg-type]
        lambda: EngineConfig(workers=2.5),  # type: ignore[arg-type]
        lambda: CodecConfig(name=None),  # type: ignore[arg-type]
        lambda: SourceConfig(options="secret=topsecret"),  # type: ignore[arg-type]
    ],
)
def test_a_value_of_another_type_is_told_before_the_job_begins(build: Callable[[], object]) -> None:
    with pytest.raises(UsageError, match="must be") as error:
        build()
    assert "topsecret" not in str(error.value)


def test_numbers_of_numpy_are_numbers() -> None:
    assert QualityConfig(quality=np.float32(90)).quality == 90 and EngineConfig(workers=np.int64(2)).workers == 2  # type: ignore[arg-type]


def test_bits_per_pixel_are_above_nothing() -> None:
    for bpp in (0, -1, float("nan")):
        with pytest.raises(UsageError, match="target_bpp must be above 0"):
            QualityConfig(target_bpp=bpp)
    with pytest.raises(UsageError, match="not for both"):
        QualityConfig(target_bpp=1, min_psnr=40)


def test_the_repr_of_a_job_has_no_passwords() -> None:
    config = JobConfig(source="https://host/a.jpg?X-Amz-Signature=topsecret", archive="s3://key:topsecret@bucket/a")
    assert "topsecret" not in repr(config) and "***@bucket/a" in repr(config) and "quality=85.0" in repr(config)
