"""`vil train`: a recipe and a folder of images to a trained model."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from vision_longformer.commands.common import INTERRUPTED, STOPPED, Arguments, UsageError, check_output
from vision_longformer.commands.reading import given_reading
from vision_longformer.commands.terminal import complain, error_console, give, progress, remarks, tell
from vision_longformer.evaluation.metric_names import in_a_line
from vision_longformer.reports.training_page import write_training_page
from vision_longformer.training.config import TrainConfig
from vision_longformer.training.events import Event
from vision_longformer.training.learner import TrainingError
from vision_longformer.training.recipes import build, over, read_options, read_recipe
from vision_longformer.training.run_folder import RunFolder
from vision_longformer.training.signals import stop_requests
from vision_longformer.training.trainer import train
from vision_longformer.utils.distributed import Processes, join, leave
from vision_longformer.utils.words import counted


def run(arguments: Arguments) -> int:
    shorthand = {"input": given_reading(arguments)}
    return carry_out(configuration(arguments, shorthand=shorthand), arguments)


def configuration(
    arguments: Arguments, *, defaults: Mapping[str, Any] | None = None, shorthand: Mapping[str, Any] | None = None
) -> TrainConfig:
    """Return what the options, else the recipe, else `defaults` say; `shorthand` counts as options.

    Raises:
        UsageError: Some of it is unknown or impossible.
    """
    typed = arguments.as_dict()
    texts = {field.name: typed[field.name] for field in dataclasses.fields(TrainConfig) if field.name in typed}
    where = ""
    try:
        values = over(defaults or {}, {} if arguments.recipe is None else read_recipe(arguments.recipe))
        where = "" if arguments.recipe is None else f"{arguments.recipe}: "
        return build(over(over(values, read_options(texts)), shorthand or {}))
    except (OSError, ValueError) as error:
        raise UsageError(f"{where}{error}") from error


def carry_out(config: TrainConfig, arguments: Arguments) -> int:
    """Train, show what happens, and return the exit code."""
    output = arguments.output
    if not Path(output).is_file():  # of which the run says more
        check_output("--output", Path(output))
    try:
        processes = join(config.compute.device)
    except (RuntimeError, ValueError) as error:
        complain(f"the processes of this run could not be joined: {error}")
        return 1
    with stop_requests() as request:
        try:
            events = train(config, data=arguments.data, output=output, processes=processes, should_stop=request)
            last = _follow(_with_page(events, config, output), console=error_console(quiet=not processes.is_first))
        except (OSError, RuntimeError, ValueError) as error:
            return _fail(error, processes)
        leave(processes)
    if last.kind == "stopped":
        tell(f"stopped after step {last.step} and saved; run the same command to continue")
        return INTERRUPTED if request.signal == signal.SIGINT else STOPPED
    if processes.is_first:
        best = in_a_line({last.values["measure"]: last.values["best"]})
        about = {"measure": last.values["measure"], **last.values, "weights": f"{output}/best.safetensors"}
        sentence = (
            f"Finished: {best} after epoch {last.values['best_epoch']}, {last.values['seconds']:.0f} s of "
            f"training. {output}/best.safetensors has these weights; look at {output}/report.html."
        )
        give(arguments, about, sentence)
    return 0


def _with_page(events: Iterable[Event], config: TrainConfig, output: str) -> Iterator[Event]:
    """Pass events on, and write the page of a run while the run still has its folder to itself."""
    for event in events:
        if event.kind == "result":
            write_training_page(RunFolder(output), event.values["result"], config, event.values["progress"])
        yield event


def _fail(error: Exception, processes: Processes) -> int:
    """Say why this process ends, and end it. One of many ends at once, as they would wait for each other."""
    code = 1
    match error:
        case TrainingError():
            reason = str(error)
        case FileNotFoundError() | ValueError():
            reason, code = str(error), 2
        case OSError():
            reason = f"{error} (what was saved before is kept; mend this, and run the same command to continue)"
        case _ if processes.count > 1:
            said = " ".join(str(error).split())
            reason = f"process {processes.rank} ends, as another one has ended or failed ({said})"
        case _:
            raise error
    complain(reason)
    if processes.count > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _follow(events: Iterable[Event], *, console: Console) -> Event:
    """Show what happens; return the last event."""
    columns = (
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[text]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    event = Event("begun", 0)
    shown_at, prepared_at = 0.0, time.monotonic()
    with progress(*columns, console=console) as bar:
        task = bar.add_task("", total=None, text="")

        def say(text: str) -> None:
            if remarks():
                console.print(Text(text), soft_wrap=True)

        for event in events:
            values = event.values
            match event.kind:
                case "preparing":
                    bar.update(task, total=values["total"], completed=values["done"], text=values["what"])
                    if not console.is_terminal and time.monotonic() - prepared_at > 60:
                        prepared_at = time.monotonic()
                        say(f"{values['done']} of {values['total']} {values['what']}")
                case "begun" | "continued":
                    bar.update(task, total=values["steps"], completed=event.step)
                    say(_opening(event))
                case "remark":
                    say(f"  {values['text']}")
                case "step":
                    text = (
                        f"epoch {values['epoch']:.1f}  loss {values['loss']:.3f}  rate {values['learning_rate']:.1e}  "
                        f"{_speed(values['images_per_second'])}"
                    )
                    bar.update(task, completed=event.step, text=text)
                    if not console.is_terminal and time.monotonic() - shown_at > 60:
                        shown_at = time.monotonic()
                        say(f"step {event.step}: {text}")
                case "evaluated":
                    metrics = {name.removeprefix("val_"): value for name, value in values.items()}
                    best = " (best so far)" if values["is_best"] else ""
                    say(f"epoch {values['epoch']}: {in_a_line(metrics)}{best}")
    return event


def _speed(images_per_second: float) -> str:
    """Return a speed with two digits at least; of less than one image a second, the time of one."""
    if images_per_second >= 1:
        return f"{images_per_second:.{0 if images_per_second >= 10 else 1}f} images/s"
    return f"{1 / images_per_second:.1f} s an image"


def _opening(event: Event) -> str:
    values = event.values
    verb = "Training" if event.kind == "begun" else f"Continuing after step {event.step}"
    processes = "" if values["processes"] == 1 else f", {values['processes']} processes"
    return (
        f"{verb}: {values['images']} images of {counted(len(values['classes']), 'class')}, {values['steps']} steps of "
        f"{values['steps_per_epoch']} an epoch, {values['parameters'] / 1e6:.2f} million parameters, on "
        f"{values['device']}{processes}"
    )
