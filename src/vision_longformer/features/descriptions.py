"""The description in a feature file: of which image it is, and how it was made. By it a done image is recognised."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vision_longformer.features.encoder import Encoder
from vision_longformer.features.formats.table import METADATA_KEY, check_folder, is_whole_folder, read_folder_metadata
from vision_longformer.images import AS_STORED, Reading
from vision_longformer.images.reader import identity
from vision_longformer.utils import strict_json
from vision_longformer.utils.tensor_files import IsAFolderError, check_block, open_file, read_header
from vision_longformer.utils.version import __version__
from vision_longformer.weights import weights_digest

FORMAT_VERSION = 2
READABLE = (1, FORMAT_VERSION)  # the first one always has `valid`, a byte for each pixel, and no `source_state`


@dataclass(frozen=True)
class SourceMarks:
    """By what an image file is recognised.

    Attributes:
        state: Its size and the time when it was written.
        digest: SHA-256 of its content.
    """

    state: str
    digest: str


def settings_of(encoder: Encoder, *, dtype: str, reading: Reading) -> dict[str, Any]:
    """Return all that features depend on beside the image, as JSON gives it back."""
    config = json.dumps(encoder.model.config.to_dict(), sort_keys=True).encode()
    strides = encoder.model.config.strides
    settings: dict[str, Any] = {
        "config_sha256": hashlib.sha256(config).hexdigest(),
        "weights_sha256": weights_digest(encoder.model),
        "mean": list(encoder.mean),
        "std": list(encoder.std),
        "stages": list(encoder.stages),
        "strides": [strides[stage - 1] for stage in encoder.stages],
        "dtype": dtype,
        "max_side": encoder.max_side,
    }
    if encoder.precision != "float32":
        settings["precision"] = encoder.precision
    if reading != AS_STORED:
        settings["reading"] = reading_setting(reading)
    return settings


def reading_setting(reading: Reading) -> dict[str, Any] | None:
    """Return how images are read, as settings have it; None where it is as they are stored."""
    if reading == AS_STORED:
        return None
    values: dict[str, Any] = json.loads(json.dumps(vars(reading)))  # lists, as they come back from files
    if not reading.tissue:
        del values["tissue"]  # which features of earlier versions do not say
    return values


def describe(
    name: str,
    marks: SourceMarks,
    settings: dict[str, Any],
    *,
    original_size: tuple[int, int],
    encoded_size: tuple[int, int],
    model_name: str,
    georeference: dict[str, Any],
) -> dict[str, Any]:
    """Return the description of the features of one image."""
    return {
        "format_version": FORMAT_VERSION,
        "content": "features",
        "source": name,
        "source_sha256": marks.digest,
        "source_state": marks.state,
        "original_size": list(original_size),
        "encoded_size": list(encoded_size),
        "model": model_name,
        **settings,
        "versions": {"vision_longformer": __version__, "torch": torch.__version__},
        **({"georeference": georeference} if georeference else {}),
    }


def is_made_with(metadata: dict[str, Any] | None, settings: dict[str, Any]) -> bool:
    """Tell whether features were made with these settings, of whatever image."""
    if metadata is None or metadata.get("format_version") not in READABLE:
        return False
    return all(metadata.get(key) == value for key, value in {"reading": None, "precision": None, **settings}.items())


def state_of(path: Path) -> str:
    """Return the size and time of a file, or what changes with those of the files in a folder.

    Raises:
        OSError: There is none.
    """
    return identity(path)


def read_metadata(path: Path, *, check: bool = True, contents: bool = False) -> dict[str, Any] | None:
    """Return the description in a feature file or folder; None if there is none, or it is damaged or something else.

    Args:
        path: The file or folder.
        check: Whether to compare the description with its digest, and a folder with the list of its files.
        contents: Whether to compare all else with its digests too, which reads it.
    """
    try:
        metadata = _read_safetensors_metadata(path, check=check, contents=contents)
    except IsAFolderError:
        metadata = read_folder_metadata(path)
        if metadata is not None and check and not is_whole_folder(path, contents=contents):
            return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return metadata if isinstance(metadata, dict) and metadata.get("content") == "features" else None


def check_metadata(path: Path) -> None:
    """Compare the description in a feature file or folder with its digest, and a folder with the list of its files.

    Raises:
        ValueError: Something is missing or damaged; names it.
    """
    if path.is_dir():
        check_folder(path)
    else:
        _read_safetensors_metadata(path, check=True, contents=False)


def _read_safetensors_metadata(path: Path, *, check: bool, contents: bool) -> Any:
    """Return the description in a safetensors file that is as long as its header says."""
    with open_file(path) as file:
        header = read_header(file, path, verify=check)
        if contents:
            for number in range(len(header.digests)):
                check_block(file, path, header, number)
    return strict_json.parse(header.metadata.get(METADATA_KEY, "null"))
