"""The part of `vil predict` that is for detectors and segmentation models."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from vision_longformer.commands.common import Arguments, UsageError, tell
from vision_longformer.detection.boxes import FoundObjects
from vision_longformer.evaluation.coco import write_results
from vision_longformer.prediction.dense import DensePrediction, in_pixels_of
from vision_longformer.prediction.dense import predict_dense as predict
from vision_longformer.prediction.draw_objects import draw_objects
from vision_longformer.prediction.draw_segmentation import draw_classes
from vision_longformer.tiling.choosing import Tiling
from vision_longformer.training.tasks.detection import limit_of
from vision_longformer.training.trained import Trained
from vision_longformer.utils.atomic_files import replacing
from vision_longformer.utils.system_memory import parse_bytes

MIN_SCORE = 0.5
FOLDER = "predictions"
JPEG_SIDE = 65500  # pixels, the most that libjpeg writes


def predict_dense(trained: Trained, paths: Sequence[Path], arguments: Arguments, device: torch.device) -> int:
    """Draw what is found in images, and write it as COCO's results or index images; return the exit code."""
    names = trained.classes or ()
    scale = trained.preprocessing["scale"] if arguments.scale is None else arguments.scale
    min_score = MIN_SCORE if arguments.min_score is None else arguments.min_score
    if not scale > 0:
        raise UsageError(f"--scale {scale}: must be above 0")
    if not 0 <= min_score <= 1:
        raise UsageError(f"--min-score {min_score}: must lie between 0 and 1")
    try:
        tiling = _tiling(trained, arguments, device)
        wanted = None if arguments.classes is None else [_number(name, names) for name in arguments.classes]
        output = Path(arguments.output or FOLDER)
        _spare_images(paths, output, trained)
        output.mkdir(parents=True, exist_ok=True)
    except ValueError as error:
        raise UsageError(str(error)) from error
    except OSError as error:
        raise UsageError(f"{output}: cannot be made ({error.strerror})") from error
    if scale != 1 and arguments.scale is None:
        tell(f"images are resized by {scale:.3g}, as in training; --scale 1 keeps their size")
    console, table, failed = Console(stderr=True), _table(trained), False
    results: list[dict[str, Any]] = []
    listed: list[dict[str, Any]] = []
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("images"), TextColumn("{task.fields[tiles]}"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=len(paths), tiles="")
        predictions = predict(
            trained,
            paths,
            tiling=tiling,
            device=device,
            scale=scale,
            min_score=min_score,
            classes=wanted,
            detections=arguments.detections,
            work_folder=output,
            on_band=lambda share: progress.update(task, tiles=f"{share:.0%} of it"),
            on_tile=lambda done, total: progress.update(task, tiles=f"tile {done} of {total}" if total > 1 else ""),
        )
        try:
            for number, prediction in enumerate(predictions, start=1):
                progress.advance(task)
                if prediction.error or prediction.image is None:
                    failed = True
                    tell(f"failed: {prediction.error}")
                    continue
                if prediction.note:
                    tell(f"{prediction.path}: {prediction.note}")
                table.add_row(*map(Text, _row(prediction, names)))  # brackets are no markup
                if prediction.objects is not None and prediction.objects.left_out:
                    tell(_about_left_out(prediction, limit_of(trained)))
                _draw(prediction, prediction.image, output, _stem(number, paths), names)
                listed.append(_described(number, prediction))
                results += _entries(number, prediction.objects)
            if not listed:
                return 1
            if trained.gives == "objects":
                write_results(output / "results.json", results)
                _write_images(output / "images.json", listed, names)
        except OSError as error:
            tell(f"{output}: cannot be written ({error.strerror or error})")
            return 1
    Console().print(table)
    print(f"Look at {output}.")
    return int(failed)


def _stem(number: int, paths: Sequence[Path]) -> str:
    """Return the name, without suffix, of what is written for an image; images are counted from 1."""
    stem = paths[number - 1].stem
    return f"{number:04d}_{stem}" if len(paths) > 1 else stem


def _spare_images(paths: Sequence[Path], output: Path, trained: Trained) -> None:
    """Raise `ValueError` if a picture would take the place of an image."""
    images = {path.resolve() for path in paths}
    suffixes = (".jpg", ".png") if trained.gives == "pixels" else (".jpg",)
    for number in range(1, len(paths) + 1):
        for target in (output / f"{_stem(number, paths)}{suffix}" for suffix in suffixes):
            if target.resolve() in images:
                raise ValueError(f"--output {output}: {target} is one of the images; choose another folder")


def _tiling(trained: Trained, arguments: Arguments, device: torch.device) -> Tiling:
    """Return which tiles to look at, once the model is where it runs and has its limit of detections."""
    if arguments.detections is not None:
        trained.limit_detections(arguments.detections)
    return Tiling(
        trained.model.to(device),
        tile=arguments.tile,
        overlap=arguments.overlap,
        memory=None if arguments.memory is None else parse_bytes(arguments.memory),
    )


def _number(name: str, names: Sequence[str]) -> int:
    if name not in names:
        raise ValueError(f"--classes {name}: the weights know {', '.join(names)}")
    return list(names).index(name)


def _table(trained: Trained) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("image", overflow="fold")
    table.add_column("pixels", justify="right")
    table.add_column("tiles", justify="right")
    table.add_column("share of pixels" if trained.gives == "pixels" else "objects")
    return table


def _row(prediction: DensePrediction, names: Sequence[str]) -> tuple[str, ...]:
    if prediction.labels is not None:
        shares = np.bincount(prediction.labels.ravel(), minlength=len(names)) / prediction.labels.size
        found = ", ".join(f"{name} {share:.1%}" for name, share in zip(names, shares, strict=True) if share)
    else:
        assert prediction.objects is not None
        counts = Counter(prediction.objects.labels.tolist())
        found = ", ".join(f"{counts[number]} {names[number]}" for number in sorted(counts)) or "none"
    tiles = "streamed" if prediction.streamed else str(prediction.tiles)
    height, width = prediction.size
    return str(prediction.path), f"{width}×{height}", tiles, found


def _draw(prediction: DensePrediction, image: Image.Image, output: Path, stem: str, names: Sequence[str]) -> None:
    """Write the picture of what was found, and the index image of classes."""
    if prediction.labels is not None:
        _save(Image.fromarray(prediction.labels), output / f"{stem}.png")
        _save(draw_classes(image, prediction.labels, classes=names), output / f"{stem}.jpg")
    else:
        assert prediction.objects is not None
        objects = in_pixels_of(prediction.objects, (image.height, image.width), seen=prediction.size)
        _save(draw_objects(image, objects, classes=names), output / f"{stem}.jpg")


def _save(image: Image.Image, path: Path) -> None:
    options: dict[str, Any] = {"format": "PNG"} if path.suffix == ".png" else {"format": "JPEG", "quality": 90}
    if path.suffix == ".jpg":
        image.thumbnail((JPEG_SIDE, JPEG_SIDE))  # larger ones alone shrink
    with replacing(path) as temporary:
        image.save(temporary, **options)


def _write_images(path: Path, listed: Sequence[dict[str, Any]], names: Sequence[str]) -> None:
    about = {"images": listed, "categories": [{"id": n + 1, "name": name} for n, name in enumerate(names)]}
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def _about_left_out(prediction: DensePrediction, limit: int) -> str:
    assert prediction.objects is not None
    about, of = ("about", "a tile") if prediction.tiles > 1 else ("at least", "an image")  # tiles overlap
    return (
        f"{prediction.path}: {about} {prediction.objects.left_out} more objects were left out, as {of} gives at most "
        f"{limit}; --detections changes that"
    )


def _described(number: int, prediction: DensePrediction) -> dict[str, Any]:
    height, width = prediction.size
    about = {"id": number, "file_name": str(prediction.path), "width": width, "height": height}
    return about if prediction.objects is None else {**about, "left_out": prediction.objects.left_out}


def _entries(number: int, objects: FoundObjects | None) -> Iterator[dict[str, Any]]:
    """Yield objects as COCO's results have them; the categories' ids are those of images.json."""
    if objects is None:
        return
    for place, (x1, y1, x2, y2) in enumerate(objects.boxes.tolist()):
        entry: dict[str, Any] = {
            "image_id": number,
            "category_id": int(objects.labels[place]) + 1,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "score": float(objects.scores[place]),
        }
        if objects.masks is not None:
            entry["segmentation"] = objects.masks[place]
        yield entry
