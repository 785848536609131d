"""Multi-Scale Vision Longformer: features of high-resolution images at several scales, in linear time.

Importing the package registers its models with timm.
"""

from typing import TYPE_CHECKING, Any

from vision_longformer import hub
from vision_longformer.attention.ablations import list_mechanisms, with_attention
from vision_longformer.attention.backend import AttentionBackend, attention_backend, set_attention_backend
from vision_longformer.backbone import VisionLongformer
from vision_longformer.config import (
    Full,
    GlobalOnly,
    Linformer,
    ModelConfig,
    Performer,
    SpatialReduction,
    StageConfig,
    Windowed,
)
from vision_longformer.costs import multiply_adds
from vision_longformer.features.encoder import Encoder, Features
from vision_longformer.registry import create_model
from vision_longformer.utils.version import __version__ as __version__
from vision_longformer.variants import list_models
from vision_longformer.weights import load, save

if TYPE_CHECKING:
    from vision_longformer.prediction.predictor import load_predictor

__all__ = [
    "AttentionBackend",
    "Encoder",
    "Features",
    "Full",
    "GlobalOnly",
    "Linformer",
    "ModelConfig",
    "Performer",
    "SpatialReduction",
    "StageConfig",
    "VisionLongformer",
    "Windowed",
    "attention_backend",
    "create_model",
    "hub",
    "list_mechanisms",
    "list_models",
    "load",
    "load_predictor",
    "multiply_adds",
    "save",
    "set_attention_backend",
    "with_attention",
]


def __getattr__(name: str) -> Any:
    """Import what encoding does not need when it is asked for."""
    if name == "load_predictor":
        from vision_longformer.prediction.predictor import load_predictor

        return load_predictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
