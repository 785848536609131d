"""`vil search`: what in encoded images is like an image, a region or a point."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text
from torch import Tensor

from vision_longformer.backbone import VisionLongformer
from vision_longformer.commands.common import Arguments, UsageError
from vision_longformer.commands.terminal import complain, give
from vision_longformer.explore.search import Box, Index, index_folder, region_vector, stored_query
from vision_longformer.features.descriptions import settings_of
from vision_longformer.features.encoder import Encoder
from vision_longformer.images import AS_STORED, Reading, open_reader
from vision_longformer.images.pixels import whole_pixels
from vision_longformer.pretrained import find_weights
from vision_longformer.reports.search_page import Found, write_search_page
from vision_longformer.weights import load

SAME = ("config_sha256", "weights_sha256", "mean", "std", "max_side")  # or features cannot be compared


def run(arguments: Arguments) -> int:
    if arguments.count < 1:
        raise UsageError(f"--count {arguments.count}: must be at least 1")
    if arguments.stage is None and (arguments.box or arguments.point):
        raise UsageError("--box and --point look for regions: say of which stage's maps, as --stage 3")
    features = Path(arguments.features)
    try:
        index = index_folder(features, stage=arguments.stage)
        vector = _vector(index, features, arguments)
        matches = index.search(vector, count=arguments.count, each=arguments.each)
    except (OSError, ValueError, ImportError) as error:
        raise UsageError(str(error)) from error
    what = "images" if arguments.stage is None else f"regions of {len(index.images):,} images"
    title = f"Like {_query_words(arguments)}, of {len(index):,} {what}"
    values = [{"image": m.image, "box": list(m.box), "similarity": round(m.similarity, 4)} for m in matches]
    try:
        give(arguments, values, title, _table(index, matches))
        if arguments.output is not None:
            folder = Path(arguments.output)
            folder.mkdir(parents=True, exist_ok=True)
            root = Path(arguments.images) if arguments.images else None
            write_search_page(folder / "index.html", title, list(_found(index, matches, root)))
    except OSError as error:
        complain(f"{error.filename or arguments.output}: cannot be written ({error.strerror})")
        return 1
    return 0


def _query_words(arguments: Arguments) -> str:
    if arguments.point:
        return f"the point {tuple(arguments.point)} (row, column) of {arguments.query}"
    if arguments.box:
        return f"the region {tuple(arguments.box)} (top, left, bottom, right) of {arguments.query}"
    return str(arguments.query)


def _vector(index: Index, features: Path, arguments: Arguments) -> Tensor:
    """Return the features of the query: stored ones where it is one of the images, else it is encoded."""
    stored = stored_query(features, arguments.query)
    if stored is not None and arguments.stage is None:
        return stored.embedding.float()
    if stored is not None:
        place = stored.stages.index(arguments.stage)
        return _region(stored.maps[place].tensor().float(), stored.metadata["strides"][place], arguments)
    path = Path(arguments.query)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file, and no image of {features} has this name")
    if arguments.checkpoint is None and index.metadata.get("model") is None:
        raise ValueError("--checkpoint: say with which weights the images were encoded")
    model = load(find_weights(arguments.checkpoint or index.metadata["model"]))
    reading = Reading(**index.metadata.get("reading", {}))
    encoder = _encoder(model, index.metadata, reading, stage=arguments.stage)
    if reading == AS_STORED:
        encoded = encoder.encode(path)
    else:
        with contextlib.closing(open_reader(path, **vars(reading))) as reader:
            encoded = encoder.encode(whole_pixels(reader, model.in_chans))
    if arguments.stage is None:
        return encoded.embedding
    return _region(encoded.maps[0], model.config.strides[arguments.stage - 1], arguments)


def _encoder(model: VisionLongformer, metadata: dict[str, Any], reading: Reading, *, stage: int | None) -> Encoder:
    """Return what encodes a query as the images were.

    Raises:
        ValueError: The model is another one.
    """
    encoder = Encoder(model, stages=[] if stage is None else [stage], max_side=metadata.get("max_side"))
    own = settings_of(encoder, dtype=str(metadata["dtype"]), reading=reading)
    if differing := [key for key in SAME if own[key] != metadata[key]]:
        raise ValueError(f"the images were encoded with other weights or settings ({', '.join(differing)})")
    return encoder


def _region(stage_map: Tensor, stride: int, arguments: Arguments) -> Tensor:
    if arguments.point:
        row, column = arguments.point
        return region_vector(stage_map, (row, column, row, column), stride=stride)
    if arguments.box:
        box: Box = tuple(arguments.box)
        return region_vector(stage_map, box, stride=stride)
    return stage_map.flatten(1).mean(1)


def _table(index: Index, matches: list[Any]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("similarity", justify="right")
    table.add_column("image", overflow="fold")
    if index.stage is not None:
        table.add_column("top, left, bottom, right")
    for match in matches:
        box = [", ".join(map(str, match.box))] if index.stage is not None else []
        table.add_row(f"{match.similarity:.3f}", Text(match.image), *box)
    return table


def _found(index: Index, matches: list[Any], root: Path | None) -> Iterator[Found]:
    max_side = index.metadata.get("max_side")
    for match in matches:
        path = None if root is None else root / match.image
        box = match.box if index.stage is not None else None
        yield Found(match.image, path, box, match.similarity, max_side)
