"""Characters that nobody sees, or that change how others are seen: never as they are in file names and on terminals."""

from __future__ import annotations

import unicodedata

_CATEGORIES = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Controls (C0 and C1), format characters (among them all that turn the direction of writing), halves of pairs, and
separators of lines and paragraphs."""

_FILLERS = "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0"
"""Letters and marks without a shape."""


def is_hidden(character: str) -> bool:
    """Whether a character has no shape of its own. Spaces have one, and so has what Unicode does not know yet."""
    return unicodedata.category(character) in _CATEGORIES or character in _FILLERS
