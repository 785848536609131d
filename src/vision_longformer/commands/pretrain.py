"""`vil pretrain`: folders of images without labels, and a teacher, to a model that has learned from them."""

from __future__ import annotations

from vision_longformer.commands.common import Arguments
from vision_longformer.commands.train import carry_out, configuration
from vision_longformer.training.recipes import PRETRAINING


def run(arguments: Arguments) -> int:
    shorthand = {} if arguments.teacher is None else {"distillation": {"teacher": arguments.teacher}}
    config = configuration(arguments, defaults=PRETRAINING, shorthand=shorthand)
    return carry_out(config, arguments)
