"""Numbers as words for people: counts, shares, times."""

from __future__ import annotations


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
