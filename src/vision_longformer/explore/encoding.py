"""Encoding the images of the page behind it, so that it opens at once."""

from __future__ import annotations

import threading
from pathlib import Path

from vision_longformer.explore.opened import OpenedImage
from vision_longformer.explore.session import Session
from vision_longformer.features.encoder import Encoder
from vision_longformer.features.extract import encode_files
from vision_longformer.features.failures import OutputError
from vision_longformer.features.load import load_features
from vision_longformer.features.strategies import Limits
from vision_longformer.images.find import Source

DEFAULT_LIMITS = Limits()


def encode_behind(
    session: Session,
    output: Path,
    encoder: Encoder,
    *,
    model_name: str,
    limits: Limits = DEFAULT_LIMITS,
) -> threading.Thread:
    """Encode, one after the other, the images of a session that have no features; return the thread that does.

    Args:
        session: Its images tell how far they are.
        output: Folder of the feature files; those that are there are taken.
        encoder: The model and its settings.
        model_name: For the metadata.
        limits: What encoding may take.
    """

    def run() -> None:
        for image in session.images:
            if image.explored is None and not image.problem:
                _encode(image, output, encoder, model_name, limits)
                session.refit()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def _encode(image: OpenedImage, output: Path, encoder: Encoder, model_name: str, limits: Limits) -> None:
    def tell(_source: Source, share: float, _pixels: int) -> None:
        image.share = share

    source = Source(image.path, f"{image.digest[:12]}-{image.name}")
    try:
        (result,) = encode_files(
            [source],
            output,
            encoder,
            model_name=model_name,
            kind="auto",
            reading=image.reading,
            limits=limits,
            on_band=tell,
        )
        if result.status == "failed":
            image.problem = f"{image.path}: {result.message}"
            return
        path = next(path for kind in ("safetensors", "zarr") if (path := source.target(output, kind)).exists())
        image.give(load_features(path))
    except (OutputError, OSError, ValueError, ImportError) as error:
        image.problem = str(error)
