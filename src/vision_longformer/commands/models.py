"""`vil models`: the published family as a table, and what comes ready for use."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.table import Table

from vision_longformer.commands.common import Arguments, UsageError
from vision_longformer.commands.terminal import give
from vision_longformer.pretrained import shipped
from vision_longformer.published.family import describe_family, family_table


def run(arguments: Arguments) -> int:
    if arguments.size < 1:
        raise UsageError(f"--size {arguments.size}: must be at least 1 pixel")
    rows = describe_family(arguments.size)
    give(arguments, rows, family_table(rows, arguments.size), _ready_table())
    return 0


def _ready_table() -> Table:
    """Lay out the weights that come with the package."""
    table = Table(title="vil predict --model NAME", box=SIMPLE_HEAD, pad_edge=False, title_justify="left")
    table.add_column("NAME", no_wrap=True)
    table.add_column("task")
    table.add_column("finds")
    for entry in shipped().values():
        table.add_row(entry.name, entry.task.replace("_", " "), entry.summary)
    return table
