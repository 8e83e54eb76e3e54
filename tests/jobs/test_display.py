"""What terminals are shown: no character that moves the cursor, turns the text around or is not seen."""

import json

import pytest

from lichen.jobs.display import shown
from lichen.jobs.live import Live
from lichen.pipeline import logs
from lichen.pipeline.logs import LogConfig

HIDDEN = "\x00\x1b\x7f\x85\x9b\u061c\u200b\u200e\u200f\u2028\u2029\u202a\u202e\u2066\u2069\u3164"


@pytest.mark.parametrize("character", HIDDEN)
def test_what_nobody_sees_is_escaped(character: str) -> None:
    assert shown(f"a{character}b") == f"a{character.encode('unicode_escape').decode('ascii')}b"
    assert shown(character).isascii()


def test_everything_else_stays() -> None:
    for text in ("Ärger é 50 %", "写真", "صورة", "🌿"):
        assert shown(text) == text


def test_progress_beside_a_log_of_json_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        for form in ("json", "text"):
            logs.begin(LogConfig(format=form))  # type: ignore[arg-type]
            with Live("Compressing", line_seconds=0) as live:
                live.update(0.5, "5 sources")
            said = capsys.readouterr().err.strip()
            told = json.loads(said)["message"] if form == "json" else said
            assert told == "Compressing:  50 %  5 sources"
    finally:
        logs.end()
