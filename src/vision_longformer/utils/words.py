"""Numbers as words for people: counts, shares, times; and values in messages."""

from __future__ import annotations

import reprlib

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 200
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = 12


def shown(value: object) -> str:
    """Return a value as a message names it: as Python writes it, cut short where it is long or deep."""
    try:
        return _SHORT.repr(value)
    except ValueError:  # Python writes no number of thousands of digits
        return "a number too long to write"


def visible(text: str, *, keep: str = "") -> str:
    """Return a text as any terminal can show it: a name of a file may hold control characters, and bytes of no text.

    Args:
        text: What may come from a stranger.
        keep: Control characters that stay.
    """
    return "".join(
        sign if sign.isprintable() or sign in keep else sign.encode("unicode_escape").decode() for sign in text
    )


def counted(count: int, noun: str) -> str:
    """Return a number with its noun."""
    ending = "" if count == 1 else "es" if noun.endswith("s") else "s"
    return f"{count:,} {noun}{ending}"


def decimals(total: int) -> int:
    """Return how many decimals the percentage of so many has."""
    return 1 if total < 10_000 else 2


def percent(count: int, total: int) -> str:
    """Return a share, with more digits where many were counted; "–" of none."""
    return f"{100 * count / total:.{decimals(total)}f}%" if total else "–"


def duration(seconds: float) -> str:
    """Return a time, in hours and minutes, minutes, or seconds."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
