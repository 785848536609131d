"""`vil doctor`: what this machine and this installation can do."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from vision_longformer.commands.common import Arguments
from vision_longformer.commands.terminal import give
from vision_longformer.doctor import Finding, examine


def run(arguments: Arguments) -> int:
    findings = examine(Path(arguments.output or "."))
    give(arguments, [dataclasses.asdict(finding) for finding in findings], _table(findings))
    return int(any(finding.troubled for finding in findings))


def _table(findings: list[Finding]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        mark = "[red]mend[/]" if finding.troubled else "[dim]–[/]" if finding.mend else "[green]ok[/]"
        text = escape(finding.state)
        if finding.mend:
            text += f"\n[{'red' if finding.troubled else 'dim'}]→ {escape(finding.mend)}[/]"
        table.add_row(mark, finding.topic, text)
    return table
