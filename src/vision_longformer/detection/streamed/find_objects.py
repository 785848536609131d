"""Objects in an image that does not fit into memory as a whole, but band by band."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from vision_longformer.detection.boxes import FoundObjects, wanted
from vision_longformer.detection.retinanet import RetinaNet
from vision_longformer.detection.streamed.memory import StreamedDetection, choose_streaming
from vision_longformer.detection.streamed.retinanet import detect_streamed, streamable
from vision_longformer.detection.tiled import memory_errors
from vision_longformer.images import Reader
from vision_longformer.padding import Size
from vision_longformer.streaming.maps import WorkFolderError
from vision_longformer.tiling.choosing import Tiling
from vision_longformer.tiling.tiles import Tile


def streaming_strategy(model: object, size: Size, tiling: Tiling) -> StreamedDetection | None:
    """Return how to stream an image; None where it is looked at whole, or must be cut into tiles.

    Args:
        model: Any detector.
        size: (height, width) of the image in pixels.
        tiling: What would be done else. Tiles that were asked for are not replaced.
    """
    if not isinstance(model, RetinaNet) or not streamable(model) or _asks_for_tiles(tiling) or tiling.fits_whole(size):
        return None
    return choose_streaming(model, size, memory=tiling.memory)


def _asks_for_tiles(tiling: Tiling) -> bool:
    return tiling.tile is not None or tiling.overlap is not None


def find_objects_streamed(
    model: RetinaNet,
    reader: Reader,
    strategy: StreamedDetection,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    work_folder: Path | None = None,
    min_score: float = 0.0,
    classes: Collection[int] | None = None,
    on_band: Callable[[float], None] | None = None,
) -> FoundObjects:
    """Find what `detection.tiled.find_objects` would find if it looked at the whole image.

    Args:
        model: In evaluation mode.
        reader: The image.
        strategy: From `streaming_strategy`.
        mean: Of the three channels, whose values are from 0 to 1.
        std: Standard deviation, likewise.
        work_folder: Where a folder for maps is made and removed, if they do not fit into memory; None takes the
            system's place for temporary files.
        min_score: Drop what is less certain.
        classes: Keep these class numbers only; None keeps all.
        on_band: Called after each band with the share of all work that is done.

    Returns:
        Objects, best first.

    Raises:
        ImageError: The image cannot be read.
        MemoryError: There was less memory than was free before.
        WorkFolderError: Maps cannot be kept in the work folder.
    """
    with _folder(work_folder, strategy) as folder, memory_errors(Tile(0, 0, reader.info.height, reader.info.width)):
        found = detect_streamed(
            model,
            reader,
            mean=mean,
            std=std,
            work_folder=folder,
            band_bytes=strategy.band_bytes,
            progress=on_band,
        )
    chosen = wanted(found.scores, found.labels, min_score=min_score, classes=classes)
    boxes, scores, labels = (x[chosen].cpu() for x in (found.boxes, found.scores, found.labels))
    left_out = 0 if found.left_out is None else found.left_out.count(min_score=min_score, classes=classes)
    return FoundObjects(boxes.double().numpy(), scores.double().numpy(), labels.long().numpy(), left_out=left_out)


@contextlib.contextmanager
def _folder(parent: Path | None, strategy: StreamedDetection) -> Iterator[str | None]:
    """Make a folder for maps if they need one, and remove it."""
    if not strategy.spilled:
        yield None
        return
    try:
        folder = tempfile.TemporaryDirectory(dir=parent, prefix=".maps-", ignore_cleanup_errors=True)
    except OSError as error:
        raise WorkFolderError(f"{parent}: {(error.strerror or str(error)).lower()}") from error
    with folder as name:
        yield name
