"""Where the features of a run go, and which of them are there already."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import torch

from vision_longformer.features.descriptions import SourceMarks, describe, is_made_with, read_metadata, settings_of
from vision_longformer.features.encoder import Encoder
from vision_longformer.features.failures import OutputError, explaining
from vision_longformer.features.formats.parquet import Parts, Row
from vision_longformer.features.formats.table import Choice, Format, check_format, safetensors_bytes, write_features
from vision_longformer.features.formats.zarr_strips import write_zarr_strips
from vision_longformer.features.mirror import Mirror
from vision_longformer.features.strategies import EncodedImage
from vision_longformer.images import AS_STORED, ImageError, Reading
from vision_longformer.images.find import Source
from vision_longformer.memory.plans import Plan
from vision_longformer.streaming.strips import Strips
from vision_longformer.utils.system_memory import gigabytes, resident_memory

Dtype = Literal["float16", "float32"]
DTYPES = {"float16": torch.float16, "float32": torch.float32}
AS_ZARR = "written as Zarr, as its maps were spilled"


class Writer:
    """Writes features, of one image after the other or of several at once; a context manager.

    Args:
        output: Folder; created if need be.
        encoder: That makes the features.
        model_name: For people who read the description.
        dtype: Of the stored maps and embedding.
        kind: The format.
        reading: How images are read.
        names: Of the images that there are; None for any.
        mirror: Where features go from `output`; it takes safetensors, Zarr and Parquet.

    Attributes:
        settings: All that features depend on beside the image.
        gathers: Whether features of many images wait to be written together.
    """

    def __init__(
        self,
        output: Path,
        encoder: Encoder,
        *,
        model_name: str = "",
        dtype: Dtype = "float16",
        kind: Choice = "safetensors",
        reading: Reading = AS_STORED,
        names: Collection[str] | None = None,
        mirror: Mirror | None = None,
    ) -> None:
        self._mirror = mirror
        self.output, self._encoder, self._model_name, self._dtype, self.kind = output, encoder, model_name, dtype, kind
        self.settings = settings_of(encoder, dtype=dtype, reading=reading)
        self._settings_text = json.dumps(self.settings, sort_keys=True)
        self._kinds = kinds_of(kind)
        send = None if mirror is None else mirror.send_parts
        self._parts = Parts(output, names, on_written=send) if kind == "parquet" else None
        self.gathers = self._parts is not None

    def identity(self, digest: str) -> str:
        """Return what changes with the content of an image, by its digest, and with the settings."""
        return hashlib.sha256(f"[{json.dumps(digest)}, {self._settings_text}]".encode()).hexdigest()

    def can_write(self) -> bool:
        """Tell whether the packages are there for what is encoded whole."""
        with contextlib.suppress(ImportError):
            check_format(self._kinds[0] if self._kinds else self.kind)
            return True
        return False

    def done(
        self, source: Source, *, state: str | None = None, digest: str | None = None, verify: bool = False
    ) -> dict[str, Any] | None:
        """Return the description of the features of an image; None if they are not there, or of another image or model.

        Args:
            source: The image.
            state: Size and time of its file, if that is to say whether the image is the same.
            digest: Of its content, if that is to say so.
            verify: Whether to read the features, and compare them with their digests.
        """
        with contextlib.ExitStack() as stack:
            if self._mirror is not None:
                for kind in self._kinds:
                    stack.enter_context(self._mirror.outlined(source.target(self.output, kind), whole=verify))
            return self._found(source, state, digest, verify)

    def _found(self, source: Source, state: str | None, digest: str | None, verify: bool) -> dict[str, Any] | None:
        for metadata in stored_descriptions(self.output, source, self._kinds, self._parts, verify=verify):
            same = state is not None and metadata.get("source_state") == state
            same |= digest is not None and metadata.get("source_sha256") == digest
            if same and is_made_with(metadata, self.settings):
                return metadata
        return None

    def write(self, source: Source, marks: SourceMarks, image: EncodedImage) -> str:
        """Write the features of an image; return what there is to say of it.

        Raises:
            OutputError: They cannot be written.
        """
        metadata = self._description(source, marks, image)
        if self._parts is not None:
            with explaining(self.output):
                self._parts.add(Row(metadata, image.encoded.embedding.to(DTYPES[self._dtype])))
            return image.note
        kind = self._format(image.plan)
        target = source.target(self.output, kind)
        with explaining(target):
            write_features(target, image.encoded, metadata, dtype=DTYPES[self._dtype], kind=kind)
        if self._mirror is not None:
            with explaining(self._mirror.url):
                self._mirror.send(target)
        others = [source.target(self.output, other) for other in self._kinds if other != kind]
        said = [image.note, AS_ZARR if kind != self._kinds[0] else ""]
        said += [
            f"{other} is of an earlier run: remove it if you do not need it"
            for other in others
            if read_metadata(other) is not None
        ]
        return "; ".join(filter(None, said))

    def write_together(self, source: Source, marks: SourceMarks, image: EncodedImage, strips: Strips) -> str:
        """Write what several processes have of the features of an image, as Zarr; all of them call this.

        Raises:
            OutputError: They cannot be written.
        """
        target = source.target(self.output, "zarr")
        metadata = self._description(source, marks, image)
        with explaining(target):
            write_zarr_strips(target, image.encoded, strips, metadata, dtype=DTYPES[self._dtype])
        return image.note

    def _description(self, source: Source, marks: SourceMarks, image: EncodedImage) -> dict[str, Any]:
        return describe(
            source.name,
            marks,
            self.settings,
            original_size=image.original_size,
            encoded_size=image.encoded.size,
            model_name=self._model_name,
            georeference=image.encoded.georeference,
        )

    def check(self, plan: Plan) -> None:
        """Refuse, before work begins, what could not be written at its end.

        Raises:
            ImageError: Says what is missing.
        """
        kind = self.kind if self._parts is not None else self._format(plan)
        try:
            check_format(kind)
        except ImportError as error:
            raise ImageError(f"its maps would be spilled, and {error}") from error
        if kind == "safetensors" and plan.chosen.strategy == "spilled":
            needed = safetensors_bytes(
                self._encoder.model.config, plan.size, self._encoder.stages, DTYPES[self._dtype]
            ) + (resident_memory() or 0)
            if needed > plan.limit:
                raise ImageError(
                    f"writing its maps as safetensors takes {gigabytes(needed)} of memory, and {gigabytes(plan.limit)} "
                    "are allowed: choose Zarr (--format zarr), which is written in pieces"
                )

    def _format(self, plan: Plan) -> Format:
        return self._kinds[-1] if plan.chosen.strategy == "spilled" else self._kinds[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._parts is not None and not isinstance(error, OutputError):  # what is finished stays, whatever came
            with explaining(self.output):
                self._parts.write()


def kinds_of(kind: Choice) -> tuple[Format, ...]:
    """Return the formats of files that a choice may lead to, that of what is encoded whole first."""
    if kind == "auto":
        return ("safetensors", "zarr")
    return () if kind == "parquet" else (kind,)


def stored_descriptions(
    output: Path, source: Source, kinds: Collection[Format], parts: Parts | None, *, verify: bool = False
) -> list[dict[str, Any]]:
    """Return the descriptions of all features of an image that are there, of whatever version of it."""
    found = [parts.find(source.name)] if parts is not None else []
    found += [read_metadata(source.target(output, kind), contents=verify) for kind in kinds]
    return [metadata for metadata in found if metadata is not None]
