"""Small models and seeded weights that several test files share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vision_longformer import (
    Full,
    GlobalOnly,
    Linformer,
    ModelConfig,
    Performer,
    SpatialReduction,
    StageConfig,
    VisionLongformer,
    Windowed,
)
from vision_longformer.attention import rowwise
from vision_longformer.config import Attention, Position


def fill(model: nn.Module, *, seed: int = 0, std: float = 0.2) -> None:
    """Draw all parameters anew, large enough that attention is far from uniform and biases matter."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * std
            parameter.copy_(values + 1 if "norm" in name and name.endswith("weight") else values)


def config(
    *attention: Attention,
    position: Position = "relative",
    num_global_tokens: tuple[int, ...] = (1, 2, 3, 0),
    **options: Any,
) -> ModelConfig:
    """Return a small pyramid of strides 3, 6, 12 and so on, whose stages take `attention` in turn."""
    widths, heads, depths, patches = (6, 10, 14, 12), (3, 2, 1, 3), (1, 2, 1, 1), (3, 2, 2, 2)
    mechanisms = attention or (Windowed(window_size=2),) * 4
    stages = tuple(
        StageConfig(
            depth=depths[number],
            width=widths[number],
            num_heads=heads[number],
            patch_size=patches[number],
            num_global_tokens=num_global_tokens[number],
            position=position,
            attention=mechanism,
        )
        for number, mechanism in enumerate(mechanisms)
    )
    return ModelConfig(stages, **{"image_size": (35, 46), "num_classes": 5, **options})


def build(model_config: ModelConfig, *, seed: int = 0, dtype: torch.dtype = torch.float64) -> VisionLongformer:
    """Build a model with seeded weights and random projections, in evaluation mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = VisionLongformer(model_config).to(dtype)
    fill(model, seed=seed)
    return model.eval()


def noise(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return seeded normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@contextmanager
def bands_of(kept_bytes: int) -> Iterator[None]:
    """Take maps through blocks in bands that hold so many bytes, and embed them in as small ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rowwise, "KEPT_BYTES", kept_bytes)
        patch.setattr(rowwise, "EMBEDDED_BYTES", kept_bytes)
        yield


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Return the largest error over the largest magnitude expected."""
    return float((actual - expected).detach().abs().max() / expected.detach().abs().max())


ALL_WINDOWED = (Windowed(window_size=2),) * 4
# Every mechanism, window shape and kind of position that a model can be made of.
MODELS: dict[str, ModelConfig] = {
    "windowed": config(*ALL_WINDOWED),
    "windowed absolute": config(*ALL_WINDOWED, position="absolute"),
    "windowed no position": config(*ALL_WINDOWED, position="none", norm_embed=False),
    "full": config(*(Full(),) * 4),
    "full absolute": config(*(Full(),) * 4, position="absolute"),
    "published form": config(*ALL_WINDOWED[:2], Full(), Full()),
    "global only": config(*(GlobalOnly(),) * 3, num_global_tokens=(1, 3, 2)),
    "global only absolute": config(
        *(GlobalOnly(shared_global_projections=False),) * 3, num_global_tokens=(1, 3, 2), position="absolute"
    ),
    "exact": config(*(Windowed(window_size=2, shape="exact"),) * 4),
    "cyclic": config(*(Windowed(window_size=2, shape="cyclic"),) * 4),
    "own chunk": config(*(Windowed(window_size=2, neighbours="own"),) * 4),
    "no global tokens": config(*ALL_WINDOWED[:3], num_global_tokens=(0, 0, 0)),
    "token pooled": config(
        *(Windowed(window_size=2, shared_global_projections=False),) * 3,
        num_global_tokens=(3, 0, 2),
        global_pool="token",
    ),
    "linformer absolute": config(
        *(Linformer(num_features=5, shared_projection=shared) for shared in (True, False, True, False)),
        position="absolute",
    ),
    "spatial reduction": config(*(SpatialReduction(ratio) for ratio in (4, 3, 2, 1)), position="none"),
    "spatial reduction absolute": config(*(SpatialReduction(ratio) for ratio in (4, 3, 2, 1)), position="absolute"),
    "performer": config(*(Performer(num_features=7),) * 4, position="none"),
    "performer absolute": config(*(Performer(num_features=7),) * 4, position="absolute"),
    "partial performer": config(*(Performer(num_features=7),) * 2, Full(), Full(), position="absolute"),
}
