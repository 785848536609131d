"""`vil completion`: what makes a shell complete commands and their options."""

from __future__ import annotations

from typing import Any

import shtab

from vision_longformer.commands.common import Arguments
from vision_longformer.commands.options import vil_parser
from vision_longformer.commands.options.shared import FILE_METAVARS, FOLDER_METAVARS


def run(arguments: Arguments) -> int:
    print(script(arguments.shell))
    return 0


def script(shell: str) -> str:
    """Return the script for a shell; files and folders are completed where an option takes some."""
    parser = vil_parser()
    commands: Any = parser._subcommands_action
    for command in commands.choices.values():
        for action in command._actions:
            placeholders = action.metavar if isinstance(action.metavar, tuple) else (action.metavar or "",)
            names = {name for placeholder in placeholders for name in placeholder.split("|")}
            if names & FOLDER_METAVARS:
                action.complete = shtab.DIRECTORY
            elif names & FILE_METAVARS:
                action.complete = shtab.FILE
    return str(shtab.complete(parser, shell))
