"""Errors of others, in a few words."""

from __future__ import annotations

LONGEST_REASON = 200  # characters


def reason(error: BaseException) -> str:
    """Return the first sentence of an error, without its full stop."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0].split(". ")[0].rstrip(".")
    return line if len(line) <= LONGEST_REASON else f"{line[:LONGEST_REASON]}…"
