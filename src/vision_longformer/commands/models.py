"""`vil models`: the published family as a table."""

from __future__ import annotations

import json

from rich.console import Console

from vision_longformer.commands.common import Arguments, UsageError
from vision_longformer.published.family import describe_family, family_table


def run(arguments: Arguments) -> int:
    if arguments.size < 1:
        raise UsageError(f"--size {arguments.size}: must be at least 1 pixel")
    rows = describe_family(arguments.size)
    if arguments.json:
        print(json.dumps(rows, indent=2))
    else:
        Console().print(family_table(rows, arguments.size))
    return 0
