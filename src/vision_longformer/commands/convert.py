"""`vil convert`: checkpoints of the published code."""

from __future__ import annotations

import dataclasses

from vision_longformer.commands.common import Arguments
from vision_longformer.commands.terminal import complain, give
from vision_longformer.published.convert import convert_file
from vision_longformer.published.parse import ReferenceOptions


def run(arguments: Arguments) -> int:
    published = {field.name: arguments[field.name] for field in dataclasses.fields(ReferenceOptions)}
    try:
        weights, report = convert_file(
            arguments.checkpoint,
            arguments.output,
            arch=arguments.arch,
            image_size=arguments.image_size,
            options=ReferenceOptions(**published),
            windowed=arguments.windowed,
            stretch_tables=arguments.stretch_tables,
            class_names=arguments.class_names,
            report_file=arguments.report,
        )
    except (OSError, ValueError) as error:
        complain(str(error))
        return 1
    give(arguments, {"weights": str(weights), **dataclasses.asdict(report)}, f"{weights}: {report.summary()}")
    return 0
