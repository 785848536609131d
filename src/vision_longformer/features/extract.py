"""Image files to feature files: find them, encode them, skip what is done, never leave half of one.

A feature file is safetensors. Its tensors are the maps `stage1` to `stage4` as (C, H, W), `embedding` (C,) and, where a
pixel is missing, `valid` (H, ⌈W/8⌉), for the pixels that were encoded, eight in a byte. Its metadata are one JSON value
under the key "vision_longformer".
"""

from __future__ import annotations

import contextlib
import importlib.util
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any, Literal

from vision_longformer.features.batch_limits import BatchLimits
from vision_longformer.features.batches import windows
from vision_longformer.features.descriptions import SourceMarks
from vision_longformer.features.encoder import Encoder, Features
from vision_longformer.features.failures import OutputError, reason_of
from vision_longformer.features.figures import MAX_PICTURED, figures_of
from vision_longformer.features.formats.encoded import encoded_from_features
from vision_longformer.features.formats.table import Choice
from vision_longformer.features.mirror import Mirror
from vision_longformer.features.read_ahead import default_workers, read_ahead
from vision_longformer.features.results import OnBand, Result
from vision_longformer.features.resume import WorkFolder
from vision_longformer.features.strategies import (
    EncodedImage,
    Limits,
    encoded_image,
    left_work_folders,
    remove_work_folder,
    work_folder_of,
)
from vision_longformer.features.writer import Dtype, Writer
from vision_longformer.images import AS_STORED, ImageError, Pixels, Reading, read_georeference
from vision_longformer.images.digest import content_digest
from vision_longformer.images.find import Source
from vision_longformer.images.geotiff import scaled_georeference
from vision_longformer.memory.plans import Plan
from vision_longformer.streaming import WorkFolderError
from vision_longformer.utils.atomic_files import check_writable
from vision_longformer.utils.system_memory import peak_memory

HASHED_AHEAD = 64 * 2**20  # bytes of a file: larger ones are read when it is their turn

DEFAULT_LIMITS = Limits()


def encode_files(
    sources: Sequence[Source],
    output: Path,
    encoder: Encoder,
    *,
    model_name: str,
    dtype: Dtype = "float16",
    kind: Choice = "safetensors",
    pictures: bool = False,
    reading: Reading = AS_STORED,
    limits: Limits = DEFAULT_LIMITS,
    batch: int | Literal["auto"] = "auto",
    verify: bool = False,
    on_band: OnBand | None = None,
    mirror: Mirror | None = None,
) -> Iterator[Result]:
    """Encode images into feature files below `output`, small ones in batches of like size.

    An image is skipped if its feature file was made from the same bytes, with the same weights, configuration and
    settings, whatever the model was called. Bytes count as the same if size and time of the file are; else it is read.
    One that cannot be read, or goes wrong in any other way, is told of and passed over.

    Args:
        sources: From `find_images`.
        output: Folder; created if need be.
        encoder: The model and its settings.
        model_name: For people who read the metadata or the report.
        dtype: Of the stored maps and embedding. Computing is in float32.
        kind: The format; "auto" takes Zarr for images whose maps are spilled, else safetensors; "parquet" keeps the
            embeddings alone, many in a file.
        pictures: Whether to make pictures of the first `MAX_PICTURED` images and of their stages.
        reading: How to read all images; not with an encoder that shrinks them.
        limits: What encoding may take. What does not fit into memory is streamed.
        batch: Most images of a batch; "auto" takes what is fast.
        verify: Read every file to see whether it is the same, and all features to see whether they are whole.
        on_band: Called while a streamed image is encoded.
        mirror: Of `output` in an object store, where features go then.

    Yields:
        A result for each image, in order.

    Raises:
        OutputError: Features cannot be written, for instance because the disk is full.
        ValueError: `batch` is below 1.
    """
    try:
        check_writable(output)
    except OSError as error:
        raise OutputError(str(error)) from error
    batches = BatchLimits(encoder.model, stages=encoder.stages, batch=batch, memory=limits.memory)
    names = {source.name for source in sources}
    with Writer(
        output, encoder, model_name=model_name, dtype=dtype, kind=kind, reading=reading, names=names, mirror=mirror
    ) as writer:
        told = None if on_band is None else partial(_tell, on_band)
        try:
            yield from _Job(encoder, writer, batches, reading, limits, pictures, verify, told).run(sources)
        except _CallersError as error:
            raise error.cause from None


class _CallersError(BaseException):
    """An exception of a function of the caller's, which is no failure of an image."""

    def __init__(self, cause: Exception) -> None:
        super().__init__()
        self.cause = cause


def _tell(on_band: OnBand, source: Source, share: float, pixels: int) -> None:
    try:
        on_band(source, share, pixels)
    except Exception as error:
        raise _CallersError(error) from None


@dataclass
class _Looked:
    """What reading ahead found of an image.

    Attributes:
        result: If there is nothing more to do.
        marks: By which the file is recognised; None if it is to be read when it is its turn, as what follows.
        pixels: To be encoded in a batch.
        georeference: Where on earth they lie.
    """

    result: Result | None = None
    marks: SourceMarks | None = None
    pixels: Pixels | None = None
    georeference: dict[str, Any] = field(default_factory=dict)


class _Job:
    """What stays the same from image to image."""

    def __init__(
        self,
        encoder: Encoder,
        writer: Writer,
        batches: BatchLimits,
        reading: Reading,
        limits: Limits,
        pictures: bool,
        verify: bool,
        on_band: OnBand | None,
    ) -> None:
        self.encoder = encoder
        self.writer = writer
        self.batches = batches
        self.reading = reading
        self.limits = limits
        self.verify = verify
        self.on_band = on_band
        self._pictured = MAX_PICTURED if pictures else 0
        self._batches_go = limits.strategy in ("auto", "whole") and writer.can_write()
        self._has_rasterio = importlib.util.find_spec("rasterio") is not None
        self._left = left_work_folders(limits, writer.output)
        self._mark = 0.0

    def run(self, sources: Sequence[Source]) -> Iterator[Result]:
        """Encode images if need be."""
        self._mark = time.perf_counter()
        workers, batches = default_workers(), self.batches
        looking = read_ahead(enumerate(sources), self._look, workers=workers, ahead=batches.ahead)
        with contextlib.closing(looking), ThreadPoolExecutor(workers, thread_name_prefix="write") as writers:
            for window in windows(looking, most=batches.window):
                looked = [(source, found) for (_, source), found in window]
                self._encode_batches(looked, writers)
                for (number, source), found in window:
                    yield found.result or self._encode_at_hand(source, pictures=number < self._pictured)
                    self._mark = time.perf_counter()

    # --- ahead, in threads ------------------------------------------------------------------------------------

    def _look(self, numbered: tuple[int, Source]) -> _Looked:
        """See whether an image is done, and decode it if it is small."""
        number, source = numbered
        try:
            state = source.state
            if state and not self.verify and (skipped := self._done(source, state=state)):
                return _Looked(skipped)
            if (source.size or HASHED_AHEAD + 1) > HASHED_AHEAD:
                return _Looked()
            with source.at_hand() as near:
                found = self._look_into(number, near, state)
        except Exception as error:
            return _Looked(Result(source, "failed", reason_of(error, source.path)))
        if found.result is not None:
            found.result = replace(found.result, source=source)
        return found

    def _look_into(self, number: int, source: Source, state: str) -> _Looked:
        """Do so with a file that is at hand."""
        try:
            marks = SourceMarks(state, content_digest(source.path))
            if skipped := self._done(source, digest=marks.digest):
                return _Looked(skipped)
            if number < self._pictured or not self._batches_go or self._left_work(source):
                return _Looked(marks=marks)
            pixels = self.encoder.read_small(source.path, most_pixels=self.batches.most_pixels, reading=self.reading)
            return _Looked(None, marks, pixels, self._georeference(source) if pixels is not None else {})
        except Exception as error:
            return _Looked(Result(source, "failed", reason_of(error, source.path)))

    def _done(self, source: Source, *, state: str | None = None, digest: str | None = None) -> Result | None:
        """Return that an image was done before, see `Writer.done`; else None."""
        metadata = self.writer.done(source, state=state, digest=digest, verify=self.verify)
        if metadata is None:
            return None
        self._remove_work(source)  # of a run that was stopped once it had written the features
        return Result(source, "skipped", identity=self.writer.identity(metadata["source_sha256"]))

    # --- in batches -------------------------------------------------------------------------------------------

    def _encode_batches(self, looked: Sequence[tuple[Source, _Looked]], writers: ThreadPoolExecutor) -> None:
        """Encode what was decoded, and put the results beside it. What fails together is left, to go alone."""
        small = [(source, found, found.pixels) for source, found in looked if found.pixels is not None]
        done: list[tuple[_Looked, Result]] = []
        for places in self.batches.group([pixels for _, _, pixels in small]):
            batch = [small[place] for place in places]
            try:
                features = self.encoder.encode_batch([pixels for _, _, pixels in batch])
            except Exception:
                continue
            plan = self.batches.plan([pixels for _, _, pixels in batch])
            run = map if self.writer.gathers else writers.map  # threads are for waiting for the disk
            done += run(self._write_one, zip(batch, features, strict=True), repeat(plan))
        for _, found in looked:
            found.pixels = None
        seconds, peak = (time.perf_counter() - self._mark) / max(1, len(done)), peak_memory()
        for found, result in done:
            found.result = replace(result, seconds=seconds, peak_memory=peak)

    def _write_one(
        self, batched: tuple[tuple[Source, _Looked, Pixels], Features], plan: Plan
    ) -> tuple[_Looked, Result]:
        """Write the features of an image of a batch."""
        (source, found, pixels), features = batched
        try:
            return found, self._written(source, found, pixels, features, plan)
        except OutputError:
            raise
        except Exception as error:
            return found, Result(source, "failed", reason_of(error, source.path))

    def _written(self, source: Source, found: _Looked, pixels: Pixels, features: Features, plan: Plan) -> Result:
        assert found.marks is not None
        size = (pixels.valid.shape[0], pixels.valid.shape[1])
        place = found.georeference
        if place and size != pixels.original_size:
            place = scaled_georeference(place, (pixels.original_size[0] / size[0], pixels.original_size[1] / size[1]))
        encoded = encoded_from_features(
            features, stages=self.encoder.stages, strides=self.writer.settings["strides"], georeference=place
        )
        image = EncodedImage(encoded, pixels.original_size, pixels.note, plan)
        return self._write(source, found.marks, image)

    # --- alone ------------------------------------------------------------------------------------------------

    def _encode_at_hand(self, source: Source, *, pictures: bool) -> Result:
        """Encode an image once its file is at hand."""
        with ExitStack() as stack:
            try:
                near = stack.enter_context(source.at_hand())
            except OSError as error:
                return Result(source, "failed", reason_of(error, source.path) or "")
            return replace(self._encode_alone(near, pictures=pictures), source=source)

    def _encode_alone(self, source: Source, *, pictures: bool) -> Result:
        """Encode an image as its own plan says."""
        try:
            return self._encode_planned(source, pictures=pictures)
        except OutputError:
            raise
        except ImageError as error:  # which leaves the maps in the work folder, for when it can be read again
            reason = reason_of(error, source.path)
            message = f"it could be read once, but not a second time while its features were written: {reason}"
            return Result(source, "failed", message)
        except Exception as error:
            return Result(source, "failed", reason_of(error, source.path))
        finally:
            remove_work_folder(self.limits, self.writer.output)

    def _encode_planned(self, source: Source, *, pictures: bool) -> Result:
        start = time.perf_counter()
        with ExitStack() as stack:
            try:
                marks = SourceMarks(source.state, content_digest(source.path))
                if skipped := self._done(source, digest=marks.digest):
                    return skipped
                image = stack.enter_context(self._encoded(source, marks, pictures=pictures))
            except WorkFolderError as error:
                raise OutputError(str(error)) from error
            except OutputError:
                raise
            except Exception as error:
                return Result(source, "failed", reason_of(error, source.path))
            result = self._write(source, marks, image)
            seconds, peak = time.perf_counter() - start, peak_memory()
            figures, missing = figures_of(image, self.encoder.model) if pictures else ((), "")
        message = "; ".join(filter(None, (result.message, missing)))
        return replace(result, message=message, seconds=seconds, peak_memory=peak, figures=figures)

    def _encoded(self, source: Source, marks: SourceMarks, *, pictures: bool) -> AbstractContextManager[EncodedImage]:
        def tell(share: float, pixels: int) -> None:
            if self.on_band is not None:
                self.on_band(source, share, pixels)

        return encoded_image(
            self.encoder,
            source.path,
            limits=self.limits,
            work_folder=work_folder_of(source.name, self.limits, self.writer.output),
            reading=self.reading,
            identity=self.writer.identity(marks.digest),
            georeference=self._georeference(source),
            pictures=pictures,
            on_plan=self.writer.check,
            on_band=tell,
        )

    # --- both -------------------------------------------------------------------------------------------------

    def _write(self, source: Source, marks: SourceMarks, image: EncodedImage) -> Result:
        """Write features; return the result, which says nothing of time and memory yet."""
        return Result(
            source,
            "encoded",
            self.writer.write(source, marks, image),
            original_size=image.original_size,
            size=image.encoded.size,
            identity=self.writer.identity(marks.digest),
            plan=image.plan,
        )

    def _left_work(self, source: Source) -> Path | None:
        """Return the work folder that there was of an image when the run began, if there was one."""
        if not self._left:  # names cost more than all else of an image that is done
            return None
        path = work_folder_of(source.name, self.limits, self.writer.output)
        return path if path.name in self._left else None

    def _remove_work(self, source: Source) -> None:
        """Remove the work folder of an image, unless another run, with other settings, is at work there."""
        path = self._left_work(source)
        if path is not None and path.exists():
            with contextlib.suppress(WorkFolderError), WorkFolder(path, ""):
                pass
            remove_work_folder(self.limits, self.writer.output)

    def _georeference(self, source: Source) -> dict[str, Any]:
        kind = self.writer.kind
        if kind in ("safetensors", "parquet") or (kind == "auto" and not self._has_rasterio):
            return {}
        found = read_georeference(source.path, level=self.reading.level)
        if kind == "geotiff" and not found:
            raise ImageError("it does not say where on earth it lies, which GeoTIFF needs: choose another format")
        return found
