"""`vil probe`: what frozen features of a model are worth on labelled images."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.table import Table
from rich.text import Text
from torch import Tensor

from vision_longformer import VisionLongformer, create_model
from vision_longformer.commands.common import Arguments, UsageError
from vision_longformer.commands.terminal import complain, error_console, give, progress
from vision_longformer.datasets.classification import Samples, read_split
from vision_longformer.evaluation.confusions import wilson_interval
from vision_longformer.evaluation.loop import EvaluationSetup
from vision_longformer.explore import probe
from vision_longformer.images import ImageError
from vision_longformer.pretrained import backbones
from vision_longformer.reports.probe_page import Row, write_probe_page
from vision_longformer.timm_interface import normalisation
from vision_longformer.training.teachers import load_teacher
from vision_longformer.utils.devices import choose_device
from vision_longformer.variants import list_models

NANO, RANDOM, COLOURS = "vision_longformer_nano", "random", "colours"
MEASURES = ("neighbours", "linear")


def run(arguments: Arguments) -> int:
    for name in ("size", "batch_size", "each"):
        if arguments[name] is not None and arguments[name] < 1:
            raise UsageError(f"--{name.replace('_', '-')} {arguments[name]}: must be at least 1")
    try:
        device = choose_device(arguments.device)
        samples, folds = read(Path(arguments.data), each=arguments.each)
        names = arguments.models or [*list(backbones())[:1], RANDOM, COLOURS]
        extractors = {name: _extractor(name, arguments.size, device) for name in names}
        probe.require_scikit_learn()
    except (OSError, ValueError, ImportError) as error:
        raise UsageError(str(error)) from error
    labels, classes = torch.tensor(samples.labels), len(samples.classes)
    rows = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("images"))
    with progress(*columns, console=error_console()) as bar:
        for name, extract in extractors.items():
            task = bar.add_task(name, total=len(samples))
            setup = EvaluationSetup(
                batch_size=arguments.batch_size,
                workers=arguments.workers,
                device=device,
                advance=lambda images, task=task: bar.advance(task, images),  # type: ignore[misc]
            )
            try:
                features = probe.embed(samples, extract, setup, size=arguments.size)
            except ImageError as error:
                complain(str(error))
                return 1
            scores = probe.judge(features, labels, folds, classes=classes)
            rows.append(_row(name, features.shape[1], scores))
    title = f"{arguments.data}: {len(samples)} images of {classes} classes, {arguments.size}×{arguments.size} pixels"
    try:
        give(arguments, [_values(row) | {"size": arguments.size} for row in rows], title, _table(rows))
        if arguments.output is not None:
            Path(arguments.output).mkdir(parents=True, exist_ok=True)
            write_probe_page(Path(arguments.output) / "index.html", title, rows, samples.classes)
    except OSError as error:
        complain(f"{error.filename or arguments.output}: cannot be written ({error.strerror})")
        return 1
    return 0


def read(data: Path, *, each: int | None) -> tuple[Samples, list[tuple[Tensor, Tensor]]]:
    """Return images, and the numbers of those to learn from and of those to ask of.

    Args:
        data: With a split, train and val; else class folders, which are dealt out into five folds.
        each: How many images of a class to learn from at most, where there is a split; None means all.
    """
    if data.is_file() or (data / "train").is_dir():
        training = read_split(data, "train")
        held = read_split(data, "val", classes=training.classes)
        seen = Counter[int]()
        known = []
        for number, label in enumerate(training.labels):
            seen[label] += 1
            if each is None or seen[label] <= each:
                known.append(number)
        paths, labels = [training.paths[n] for n in known], [training.labels[n] for n in known]
        samples = replace(training, paths=(*paths, *held.paths), labels=(*labels, *held.labels))
        return samples, [(torch.arange(len(known)), torch.arange(len(known), len(samples)))]
    if each is not None:
        raise ValueError(f"--each {each}: is for data with train and val, which {data} has not")
    samples = read_split(data.parent, data.name)
    return samples, list(probe.in_folds(torch.tensor(samples.labels)))


def _extractor(name: str, size: int, device: torch.device) -> probe.Extract:
    if name == COLOURS:
        return probe.colours
    if name == RANDOM or name in list_models():
        torch.manual_seed(0)
        model = create_model(NANO if name == RANDOM else name, pretrained=name != RANDOM)  # says which have weights
        assert isinstance(model, VisionLongformer)
        mean, std = normalisation(model)
        return probe.pooled(model, mean=mean, std=std, device=device)
    teacher = load_teacher(name, size=size)
    return probe.pooled(teacher.model, mean=teacher.mean, std=teacher.std, device=device)


def _row(name: str, features: int, scores: probe.Scores) -> Row:
    truth = scores.truth.tolist()
    predicted = {measure: getattr(scores, measure).argmax(1).tolist() for measure in MEASURES}
    right = {measure: sum(a == b for a, b in zip(truth, found, strict=True)) for measure, found in predicted.items()}
    return Row(
        model=Path(name).name,
        features=features,
        images=len(truth),
        right=right,
        pairs=Counter(zip(truth, predicted["linear"], strict=True)),
    )


def _values(row: Row) -> dict[str, Any]:
    found: dict[str, Any] = {"model": row.model, "features": row.features, "images": row.images}
    for measure, right in row.right.items():
        low, high = wilson_interval(right, row.images)
        found[measure] = {"accuracy": right / row.images, "low": low, "high": high}
    return found


def _table(rows: list[Row]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("model")
    for name in ("features", "20 neighbours", "linear probe", "images"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        cells = [row.words(measure) for measure in MEASURES]
        table.add_row(Text(row.model), str(row.features), *cells, str(row.images))
    return table
