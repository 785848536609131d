"""`vil models`: the published family as a table."""

from __future__ import annotations

import json

from rich.console import Console

from vision_longformer.commands.common import Arguments, Parser, UsageError
from vision_longformer.published.family import describe_family, family_table


def arguments() -> Parser:
    parser = Parser(description="List the models with their sizes, costs and published accuracies.")
    parser.add_argument("--size", type=int, default=1024, metavar="PIXELS", help="Count costs at this square too.")
    parser.add_argument("--json", action="store_true", help="Print JSON.")
    return parser


def run(arguments: Arguments) -> int:
    if arguments.size < 1:
        raise UsageError(f"--size {arguments.size}: must be at least 1 pixel")
    rows = describe_family(arguments.size)
    if arguments.json:
        print(json.dumps(rows, indent=2))
    else:
        Console().print(family_table(rows, arguments.size))
    return 0
