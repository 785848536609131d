"""What can be typed: the options of every command, in the order in which `vil --help` lists the commands.

Nothing is imported here that takes long: help, and the answer to a misspelt option, need no more than this.
"""

from __future__ import annotations

from collections.abc import Callable

from vision_longformer.commands.common import Parser
from vision_longformer.commands.options.images import (
    clusters_parser,
    demo_parser,
    doctor_parser,
    encode_parser,
    explore_parser,
    plan_parser,
    search_parser,
    status_parser,
)
from vision_longformer.commands.options.learning import (
    evaluate_parser,
    predict_parser,
    pretrain_parser,
    probe_parser,
    train_parser,
)
from vision_longformer.commands.options.models import (
    benchmark_parser,
    compare_parser,
    convert_parser,
    export_parser,
    models_parser,
)

COMMANDS: dict[str, Callable[[], Parser]] = {
    "encode": encode_parser,
    "status": status_parser,
    "explore": explore_parser,
    "demo": demo_parser,
    "search": search_parser,
    "clusters": clusters_parser,
    "models": models_parser,
    "convert": convert_parser,
    "export": export_parser,
    "compare": compare_parser,
    "benchmark": benchmark_parser,
    "plan": plan_parser,
    "train": train_parser,
    "pretrain": pretrain_parser,
    "evaluate": evaluate_parser,
    "predict": predict_parser,
    "probe": probe_parser,
    "doctor": doctor_parser,
}
