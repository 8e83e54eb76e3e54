"""What terminals are shown: no character that moves the cursor, turns the text around or is not seen."""

import pytest

from lichen.jobs.display import shown

HIDDEN = "\x00\x1b\x7f\x85\x9b\u061c\u200b\u200e\u200f\u2028\u2029\u202a\u202e\u2066\u2069\u3164"


@pytest.mark.parametrize("character", HIDDEN)
def test_what_nobody_sees_is_escaped(character: str) -> None:
    assert shown(f"a{character}b") == f"a{character.encode('unicode_escape').decode('ascii')}b"
    assert shown(character).isascii()


def test_everything_else_stays() -> None:
    for text in ("Ärger é 50 %", "写真", "صورة", "🌿"):
        assert shown(text) == text
