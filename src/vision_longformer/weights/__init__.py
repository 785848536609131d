"""Weight files: a model saved so that it needs nothing else, read back, and fitted to other sizes."""

from vision_longformer.weights.checks import (
    MIN_SCORE,
    READING,
    check_class_names,
    check_fit,
    check_options,
    check_preprocessing,
    check_version,
)
from vision_longformer.weights.files import (
    FORMAT_VERSION,
    METADATA_KEY,
    describe,
    halve,
    load,
    load_exactly,
    pretrained_cfg_of,
    read_tensors,
    reading_of,
    save,
    weights_digest,
)
from vision_longformer.weights.positions import fit_positions, resize_position_tables
from vision_longformer.weights.timm_folder import CONFIG_NAME, PREPROCESSING, WEIGHTS_NAME

__all__ = [
    "CONFIG_NAME",
    "FORMAT_VERSION",
    "METADATA_KEY",
    "MIN_SCORE",
    "PREPROCESSING",
    "READING",
    "WEIGHTS_NAME",
    "check_class_names",
    "check_fit",
    "check_options",
    "check_preprocessing",
    "check_version",
    "describe",
    "fit_positions",
    "halve",
    "load",
    "load_exactly",
    "pretrained_cfg_of",
    "read_tensors",
    "reading_of",
    "resize_position_tables",
    "save",
    "weights_digest",
]
