"""`vil models`: the published family as a table."""

from __future__ import annotations

from vision_longformer.commands.common import Arguments, UsageError
from vision_longformer.commands.terminal import give
from vision_longformer.published.family import describe_family, family_table


def run(arguments: Arguments) -> int:
    if arguments.size < 1:
        raise UsageError(f"--size {arguments.size}: must be at least 1 pixel")
    rows = describe_family(arguments.size)
    give(arguments, rows, family_table(rows, arguments.size))
    return 0
