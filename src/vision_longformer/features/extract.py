"""Image files to feature files: find them, encode them, skip what is done, never leave half of one.

A feature file is safetensors. Its tensors are the maps `stage1` to `stage4` as (C, H, W), `embedding` (C,) and `valid`
(H, W), boolean, for the pixels that were encoded. Its metadata are one JSON value under the key "vision_longformer".
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib.util
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open

from vision_longformer.features.encoder import Encoder
from vision_longformer.features.figures import Figure, figures_of
from vision_longformer.features.formats.table import (
    Choice,
    Format,
    check_format,
    read_folder_metadata,
    safetensors_bytes,
    write_features,
)
from vision_longformer.features.resume import WorkFolder
from vision_longformer.features.strategies import (
    EncodedImage,
    Limits,
    encoded_image,
    remove_work_folder,
    work_folder_of,
)
from vision_longformer.images import AS_STORED, ImageError, Reading, read_georeference
from vision_longformer.images.digest import content_digest
from vision_longformer.images.find import Source
from vision_longformer.memory.plans import Plan
from vision_longformer.streaming import WorkFolderError
from vision_longformer.utils.atomic_files import check_writable
from vision_longformer.utils.system_memory import gigabytes, peak_memory, resident_memory
from vision_longformer.utils.version import __version__
from vision_longformer.weights import weights_digest

METADATA_KEY = "vision_longformer"
FORMAT_VERSION = 1
DTYPES = {"float16": torch.float16, "float32": torch.float32}

AS_ZARR = "written as Zarr, as its maps were spilled"
DEFAULT_LIMITS = Limits()

Dtype = Literal["float16", "float32"]
Status = Literal["encoded", "skipped", "failed"]


class OutputError(OSError):
    """Features cannot be written; going on makes no sense."""


@dataclass(frozen=True)
class Result:
    """What became of one image.

    Attributes:
        source: The image.
        status: What was done.
        message: Why it failed, or what of the file was left out; "" if there is nothing to say.
        original_size: (height, width) in pixels as stored; None unless it was encoded.
        size: (height, width) in pixels as encoded, likewise.
        seconds: From opening the image to the features being safe on disk.
        peak_memory: Most bytes that the process held until then, where the system tells.
        identity: Changes with the contents of the image, with the model and with the settings; "" if it failed.
        plan: How it was encoded; None unless it was.
        figures: Pictures of it, if they were asked for.
    """

    source: Source
    status: Status
    message: str = ""
    original_size: tuple[int, int] | None = None
    size: tuple[int, int] | None = None
    seconds: float = 0.0
    peak_memory: int | None = None
    identity: str = ""
    plan: Plan | None = None
    figures: tuple[Figure, ...] = ()

    @property
    def megapixels(self) -> float:
        """Millions of pixels encoded."""
        return 0.0 if self.size is None else self.size[0] * self.size[1] / 1e6


OnBand = Callable[[Source, float, int], None]  # the image, the share of its work that is done, and its pixels


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
    on_band: OnBand | None = None,
) -> Iterator[Result]:
    """Encode images into feature files below `output`, one at a time.

    An image is skipped if its feature file was made from the same bytes, with the same weights, configuration and
    settings, whatever the model was called.
    One that cannot be read is told of and passed over.

    Args:
        sources: From `find_images`.
        output: Folder; created if need be.
        encoder: The model and its settings.
        model_name: For people who read the metadata or the report.
        dtype: Of the stored maps and embedding. Computing is in float32.
        kind: The format; "auto" takes Zarr for images whose maps are spilled, else safetensors.
        pictures: Whether to make pictures of the images and of their stages.
        reading: How to read all images; not with an encoder that shrinks them.
        limits: What encoding may take. What does not fit into memory is streamed.
        on_band: Called while a streamed image is encoded.

    Yields:
        A result for each image, in order.

    Raises:
        OutputError: Features cannot be written, for instance because the disk is full.
    """
    job = _Job(output, encoder, model_name, dtype, kind, pictures, reading, limits, on_band)
    try:
        check_writable(output)
    except OSError as error:
        raise OutputError(str(error)) from error
    for source in sources:
        yield job.encode(source)


class _Job:
    """What stays the same from image to image."""

    def __init__(
        self,
        output: Path,
        encoder: Encoder,
        model_name: str,
        dtype: Dtype,
        kind: Choice,
        pictures: bool,
        reading: Reading,
        limits: Limits,
        on_band: OnBand | None,
    ) -> None:
        self.output = output
        self.kind = kind
        self.encoder = encoder
        self.dtype = dtype
        self.pictures = pictures
        self.model_name = model_name
        self.reading = reading
        self.limits = limits
        self.on_band = on_band
        strides = encoder.model.config.strides
        self.settings: dict[str, Any] = {
            "config_sha256": hashlib.sha256(
                json.dumps(encoder.model.config.to_dict(), sort_keys=True).encode()
            ).hexdigest(),
            "weights_sha256": weights_digest(encoder.model),
            "mean": list(encoder.mean),
            "std": list(encoder.std),
            "stages": list(encoder.stages),
            "strides": [strides[stage - 1] for stage in encoder.stages],
            "dtype": dtype,
            "max_side": encoder.max_side,
        }
        if reading != AS_STORED:
            self.settings["reading"] = json.loads(json.dumps(vars(reading)))  # lists, as they come back from files

    def encode(self, source: Source) -> Result:
        """Encode an image if need be."""
        try:
            return self._encode(source)
        except ImageError as error:  # which leaves the maps in the work folder, for when it can be read again
            reason = _reason(error, source.path)
            message = f"it could be read once, but not a second time while its features were written: {reason}"
            return Result(source, "failed", message)
        finally:
            remove_work_folder(self.limits, self.output)

    def _encode(self, source: Source) -> Result:
        kinds: tuple[Format, ...] = ("safetensors", "zarr") if self.kind == "auto" else (self.kind,)
        targets = [source.target(self.output, kind) for kind in kinds]
        start = time.perf_counter()
        with ExitStack() as stack:
            try:
                digest = content_digest(source.path)
                identity = hashlib.sha256(json.dumps([digest, self.settings], sort_keys=True).encode()).hexdigest()
                if any(self._same(read_metadata(target), digest) for target in targets):
                    self._remove_work(source)  # of a run that was stopped once it had written the features
                    return Result(source, "skipped", identity=identity)
                image = stack.enter_context(self._encoded(source, identity))
            except WorkFolderError as error:
                raise OutputError(str(error)) from error
            except (ImageError, OSError, ValueError, MemoryError, RuntimeError) as error:
                message = _reason(error, source.path)
                if message is None:
                    raise
                return Result(source, "failed", message)
            kind = self._format(image.plan)
            target = source.target(self.output, kind)
            with explaining(target):
                metadata = self._metadata(source, digest, image)
                write_features(target, image.encoded, metadata, dtype=DTYPES[self.dtype], kind=kind)
            seconds, peak = time.perf_counter() - start, peak_memory()
            figures, missing = tuple[Figure, ...](), ""
            if self.pictures:
                figures, missing = figures_of(image, self.encoder.model)
        outdated = [other for other in targets if other != target and read_metadata(other) is not None]
        said = [image.note, missing, AS_ZARR if kind != kinds[0] else ""]
        said += [f"{other} is of an earlier run: remove it if you do not need it" for other in outdated]
        return Result(
            source,
            "encoded",
            "; ".join(filter(None, said)),
            original_size=image.original_size,
            size=image.encoded.size,
            seconds=seconds,
            peak_memory=peak,
            identity=identity,
            plan=image.plan,
            figures=figures,
        )

    def _encoded(self, source: Source, identity: str) -> AbstractContextManager[EncodedImage]:
        def tell(share: float, pixels: int) -> None:
            if self.on_band is not None:
                self.on_band(source, share, pixels)

        return encoded_image(
            self.encoder,
            source.path,
            limits=self.limits,
            work_folder=work_folder_of(source.name, self.limits, self.output),
            reading=self.reading,
            identity=identity,
            georeference=self._georeference(source),
            pictures=self.pictures,
            on_plan=self._check_format,
            on_band=tell,
        )

    def _remove_work(self, source: Source) -> None:
        """Remove the work folder of an image, unless another run, with other settings, is at work there."""
        path = work_folder_of(source.name, self.limits, self.output)
        if path.exists():
            with contextlib.suppress(WorkFolderError), WorkFolder(path, ""):
                pass

    def _format(self, plan: Plan) -> Format:
        if self.kind != "auto":
            return self.kind
        return "zarr" if plan.chosen.strategy == "spilled" else "safetensors"

    def _check_format(self, plan: Plan) -> None:
        """Refuse, before work begins, what could not be written at its end."""
        kind = self._format(plan)
        try:
            check_format(kind)
        except ImportError as error:
            raise ImageError(f"its maps would be spilled, and {error}") from error
        if kind == "safetensors" and plan.chosen.strategy == "spilled":
            needed = safetensors_bytes(
                self.encoder.model.config, plan.size, self.encoder.stages, DTYPES[self.dtype]
            ) + (resident_memory() or 0)
            if needed > plan.limit:
                raise ImageError(
                    f"writing its maps as safetensors takes {gigabytes(needed)} of memory, and {gigabytes(plan.limit)} "
                    "are allowed: choose Zarr (--format zarr), which is written in pieces"
                )

    def _same(self, metadata: dict[str, Any] | None, digest: str) -> bool:
        if metadata is None:
            return False
        expected = {"format_version": FORMAT_VERSION, "source_sha256": digest, "reading": None, **self.settings}
        return all(metadata.get(key) == value for key, value in expected.items())

    def _metadata(self, source: Source, digest: str, image: EncodedImage) -> dict[str, Any]:
        place = image.encoded.georeference
        return {
            "format_version": FORMAT_VERSION,
            "content": "features",
            "source": source.name,
            "source_sha256": digest,
            "original_size": list(image.original_size),
            "encoded_size": list(image.encoded.size),
            "model": self.model_name,
            **self.settings,
            "versions": {"vision_longformer": __version__, "torch": torch.__version__},
            **({"georeference": place} if place else {}),
        }

    def _georeference(self, source: Source) -> dict[str, Any]:
        if self.kind == "safetensors" or (self.kind == "auto" and importlib.util.find_spec("rasterio") is None):
            return {}
        found = read_georeference(source.path, level=self.reading.level)
        if self.kind == "geotiff" and not found:
            raise ImageError("it does not say where on earth it lies, which GeoTIFF needs: choose another format")
        return found


def read_metadata(path: Path) -> dict[str, Any] | None:
    """Return the description in a feature file or folder; None if there is none, or it is damaged or something else."""
    if path.is_dir():
        return read_folder_metadata(path)
    return _read_safetensors_metadata(path)


def _read_safetensors_metadata(path: Path) -> dict[str, Any] | None:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {}).get(METADATA_KEY, "null"))
    except (SafetensorError, OSError, ValueError):
        return None
    return metadata if isinstance(metadata, dict) and metadata.get("content") == "features" else None


def _reason(error: Exception, path: Path) -> str | None:
    """Return a sentence for what may go wrong with an image; None for what may not."""
    prefix = f"{path}: "
    if isinstance(error, ImageError):
        return str(error).removeprefix(prefix)
    if isinstance(error, OSError):
        return (error.strerror or str(error)).lower()
    text = str(error)
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in text:
        return "there is not enough memory to encode it: shrink it with max_side (--max-side)"
    return text if isinstance(error, ValueError) else None


@contextmanager
def explaining(target: Path) -> Iterator[None]:
    """Turn what may go wrong in writing `target` into a sentence."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error):
            raise OutputError(f"{target}: the disk is full; make room and run again to go on") from error
        raise OutputError(f"{target}: cannot be written ({getattr(error, 'strerror', None) or error})") from error
