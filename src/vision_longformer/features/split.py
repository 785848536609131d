"""Large images on several processes that share each of them: every process encodes and writes a strip of its rows."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from vision_longformer.features.descriptions import SourceMarks, state_of
from vision_longformer.features.encoder import Encoder
from vision_longformer.features.failures import OutputError, reason_of
from vision_longformer.features.figures import MAX_PICTURED, Figure, figures_of
from vision_longformer.features.formats.encoded import encoded_from_stream
from vision_longformer.features.formats.table import check_format
from vision_longformer.features.formats.zarr_strips import stored_maps
from vision_longformer.features.results import OnBand, Result
from vision_longformer.features.resume import WorkFolder
from vision_longformer.features.strategies import EncodedImage, Limits, remove_work_folder, work_folder_of
from vision_longformer.features.writer import Dtype, Writer
from vision_longformer.images import AS_STORED, ImageError, Reader, Reading, open_reader, read_georeference
from vision_longformer.images.digest import content_digest
from vision_longformer.images.find import Source
from vision_longformer.memory.plans import Plan, Strategy, free_disk, plan
from vision_longformer.streaming import Progress, WorkFolderError, stream
from vision_longformer.streaming.model import own_folder
from vision_longformer.streaming.strips import Strips
from vision_longformer.utils.atomic_files import check_writable
from vision_longformer.utils.distributed import Processes
from vision_longformer.utils.system_memory import peak_memory

STREAMED: tuple[Strategy, ...] = ("streamed", "spilled")
DEFAULT_LIMITS = Limits()


def encode_split(
    sources: Sequence[Source],
    output: Path,
    encoder: Encoder,
    processes: Processes,
    *,
    model_name: str,
    dtype: Dtype = "float16",
    pictures: bool = False,
    reading: Reading = AS_STORED,
    limits: Limits = DEFAULT_LIMITS,
    verify: bool = False,
    on_band: OnBand | None = None,
) -> Iterator[Result]:
    """Encode images into Zarr folders below `output`, one after the other, each on all processes.

    All processes call this with the same arguments, and go through what it yields at the same pace. Otherwise as
    `extract.encode_files`; images are streamed, whatever their size.

    Args:
        sources: From `find_images`; every process can read them.
        output: Folder that every process sees; created if need be.
        encoder: The model and its settings; it may not shrink images.
        processes: From `utils.distributed.join`.
        model_name: For people who read the description.
        dtype: Of the stored maps and embedding. Computing is in float32.
        pictures: Whether the first process makes pictures of the first `MAX_PICTURED` images.
        reading: How to read all images.
        limits: What each process may take.
        verify: Read every file to see whether it is the same.
        on_band: Called while an image is encoded.

    Yields:
        A result for each image, in order.

    Raises:
        ImportError: zarr is not installed.
        OutputError: Features cannot be written, for instance because the disk is full.
        ValueError: The encoder shrinks images, or its model cannot be streamed.
    """
    if encoder.max_side is not None:
        raise ValueError("an image that is shrunk (max_side) cannot be split over processes")
    with processes.together():
        check_format("zarr")
        try:
            check_writable(output)
        except OSError as error:
            raise OutputError(str(error)) from error
    writer = Writer(output, encoder, model_name=model_name, dtype=dtype, kind="zarr", reading=reading)
    job = _Job(encoder, writer, processes, reading, limits, verify, on_band)
    for number, source in enumerate(sources):
        yield job.encode(source, pictures=pictures and number < MAX_PICTURED)


class _Job:
    """What stays the same from image to image."""

    def __init__(
        self,
        encoder: Encoder,
        writer: Writer,
        processes: Processes,
        reading: Reading,
        limits: Limits,
        verify: bool,
        on_band: OnBand | None,
    ) -> None:
        self.encoder, self.writer, self.processes = encoder, writer, processes
        self.reading, self.limits, self.verify, self.on_band = reading, limits, verify, on_band

    def encode(self, source: Source, *, pictures: bool) -> Result:
        """Encode an image if need be."""
        start = time.perf_counter()
        try:
            marks, skipped = self._look(source)
            identity = self.writer.identity(marks.digest)
            if skipped:
                return Result(source, "skipped", identity=identity)
            with ExitStack() as stack:
                image, strips = self._encoded(source, identity, stack)
                message = self.writer.write_together(source, marks, image, strips)
                peak = max((found or 0 for found in self.processes.gather(peak_memory())), default=0)
                seconds = time.perf_counter() - start
                figures, missing = self._figures(source, image) if pictures else ((), "")
        except WorkFolderError as error:
            raise OutputError(str(error)) from error
        except OutputError:
            raise
        except (ImageError, OSError, ValueError, MemoryError) as error:
            return Result(source, "failed", reason_of(error, source.path) or str(error))
        finally:
            if self.processes.is_first:
                remove_work_folder(self.limits, self.writer.output)
        return Result(
            source,
            "encoded",
            "; ".join(filter(None, (message, missing))),
            original_size=image.original_size,
            size=image.encoded.size,
            seconds=seconds,
            peak_memory=peak or None,
            identity=identity,
            plan=image.plan,
            figures=figures,
        )

    def _look(self, source: Source) -> tuple[SourceMarks, bool]:
        """Return by what the file is recognised, and whether it is done; the first process looks."""
        found: tuple[SourceMarks, bool] | None = None
        with self.processes.together():
            if self.processes.is_first:
                state = state_of(source.path)
                done = None if self.verify else self.writer.done(source, state=state)
                digest = done["source_sha256"] if done else content_digest(source.path)
                done = done or self.writer.done(source, digest=digest)
                found = SourceMarks(state, digest), done is not None
        found = self.processes.share(found)
        assert found is not None
        return found

    def _encoded(self, source: Source, identity: str, stack: ExitStack) -> tuple[EncodedImage, Strips]:
        """Encode this process's strip of an image; what that needs is let go of at the end of the stack."""
        processes, encoder = self.processes, self.encoder
        folder = work_folder_of(source.name, self.limits, self.writer.output)
        work: WorkFolder | None = None
        with processes.together():
            if processes.is_first:  # other bands would round otherwise, and other strips need other maps
                work = stack.enter_context(WorkFolder(folder, f"{identity} on {processes.count} processes"))
            else:
                stack.enter_context(_removed(own_folder(folder, processes)))
        begun = processes.share(None if work is None else work.band_bytes)
        with processes.together():
            reader = stack.enter_context(
                contextlib.closing(open_reader(source.path, **vars(self.reading), max_pixels=encoder.max_pixels))
            )
            strips = Strips(encoder.model.config, reader.info.size, processes)
            own = self._plan(reader, strips, folder, begun)
        plans = processes.gather((own.chosen.strategy, own.chosen.band_bytes or 1))
        spilled, band_bytes = any(strategy == "spilled" for strategy, _ in plans), min(bands for _, bands in plans)
        with processes.together():
            if spilled and work is not None:
                work.begin(band_bytes)
            has_rasterio = importlib.util.find_spec("rasterio") is not None
            place = read_georeference(source.path, level=self.reading.level) if has_rasterio else {}

        def tell(progress: Progress) -> None:
            if self.on_band is not None:
                self.on_band(source, progress.fraction, reader.info.height * reader.info.width)

        features = stream(
            encoder.model,
            reader,
            stages=encoder.stages,
            work_folder=folder if spilled else None,
            resume=spilled,
            band_bytes=band_bytes,
            mean=encoder.mean,
            std=encoder.std,
            progress=tell,
            processes=processes,
        )
        encoded = encoded_from_stream(
            features, reader, strides=self.writer.settings["strides"], channels=encoder.model.in_chans
        )
        encoded = replace(encoded, georeference=place)
        shown = replace(own, size=reader.info.size)
        return EncodedImage(encoded, reader.info.size, reader.info.note, shown, reader=reader), strips

    def _plan(self, reader: Reader, strips: Strips, folder: Path, begun: int | None) -> Plan:
        """Plan for what this process sees of an image."""
        top, bottom = strips.seen_pixels()
        wanted = self.limits.strategy
        strategies: tuple[Strategy, ...] = (wanted,) if wanted in ("streamed", "spilled") else STREAMED
        return plan(
            self.encoder.model,
            max(1, bottom - top),
            reader.info.width,
            memory=self.limits.bytes(self.encoder.device, processes=self.processes.local_count),
            outputs=self.encoder.stages,
            strategies=strategies if begun is None else ("spilled",),
            image=reader.info,
            disk=free_disk(folder),
            band_bytes=begun,
            every_block=True,
        )

    def _figures(self, source: Source, image: EncodedImage) -> tuple[tuple[Figure, ...], str]:
        if not self.processes.is_first:
            return (), ""
        maps = stored_maps(source.target(self.writer.output, "zarr"), image.encoded.stages)
        return figures_of(replace(image, encoded=replace(image.encoded, maps=maps)), self.encoder.model)


@contextlib.contextmanager
def _removed(folder: Path) -> Iterator[None]:
    """Remove a folder at the end, if all is well, and what it lies in if nothing else is there."""
    yield
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        folder.parent.rmdir()
