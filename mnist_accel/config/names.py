"""Help with names that were not found."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The nearest known names as a question, or all of them when none is near."""
    known = sorted(known)
    nearest = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.5)
    if nearest:
        return f"did you mean {' or '.join(nearest)}?"
    return f"known are {', '.join(known)}"
