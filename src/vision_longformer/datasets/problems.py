"""What is wrong with somebody's data: collected, so that one reading tells all of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

SHOWN = 5
_LONGEST_NAME = 100


class Problems:
    """Collects what is wrong with a file.

    Attributes:
        counts: How many entries each reason concerns.
        consequences: How many entries go with another that cannot be used; they have no problem of their own.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.counts: Counter[str] = Counter()
        self.consequences: Counter[str] = Counter()
        self._sentences: list[str] = []

    def add(self, reason: str, sentence: str) -> None:
        """Note that an entry cannot be used.

        Args:
            reason: In few words, the same for all entries of its kind.
            sentence: Says which entry and what is wrong with it.
        """
        self.counts[reason] += 1
        if len(self._sentences) < SHOWN:
            self._sentences.append(sentence)

    def skipped(self) -> dict[str, int]:
        """Return how many entries are left out for each reason, where all of them are."""
        return dict(self.counts + self.consequences)

    def raise_any(self) -> None:
        """Refuse the file if anything is wrong with it.

        Raises:
            ValueError: Shows the first few problems, and says how many there are of each kind.
        """
        number = self.counts.total()
        if not number:
            return
        if number == 1:
            raise ValueError(f"{self.file}: {self._sentences[0]}; mend it, or leave it out with skip_invalid")
        shown = "\n".join(f"  {sentence}" for sentence in self._sentences)
        rest = f"\n  and {number - SHOWN} more" if number > SHOWN else ""
        kinds = ", ".join(f"{reason}: {count}" for reason, count in self.counts.most_common())
        raise ValueError(
            f"{self.file}: {number} problems ({kinds}); mend them, or leave them out with skip_invalid\n{shown}{rest}"
        )


def some(names: Sequence[str], limit: int = 5) -> str:
    """Return the first few names, and how many more there are."""
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest


def printable(value: object) -> str:
    """Return a value from somebody's file in a form that any terminal can show, cut short if it is long."""
    return _cut(value if isinstance(value, str) and value.isprintable() else _represented(value))


def quoted(value: object) -> str:
    """Return a value as `printable` does, but a text within quotes, which tells '7' from the number 7."""
    return _cut(f"'{value}'" if isinstance(value, str) and value.isprintable() else _represented(value))


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_NAME else f"{text[: _LONGEST_NAME - 1]}…"


def _represented(value: object) -> str:
    try:
        return ascii(value)
    except (ValueError, RecursionError):  # a number of thousands of digits
        return f"a {type(value).__name__} too long to show"
