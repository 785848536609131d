"""Any model by name, ours or timm's, built for an image size, and what a pass through it computes."""

from __future__ import annotations

import difflib
import warnings

import timm
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from vision_longformer.attention.ablations import find_mechanism, with_attention
from vision_longformer.backbone import VisionLongformer
from vision_longformer.config import ModelConfig
from vision_longformer.costs import needed_multiply_adds
from vision_longformer.memory.activations import forecast_memory
from vision_longformer.registry import create_model
from vision_longformer.variants import CONFIGS, PREFIX, VARIANTS, list_models


def require_model(name: str) -> None:
    """Raise unless there is a model of this name.

    Raises:
        ValueError: There is none; suggests the nearest.
    """
    if name in list_models() or timm.is_model(name):
        return
    close = difflib.get_close_matches(name, [*list_models(), *timm.list_models()], n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"there is no model {name!r}, here or in timm{hint}")


def comparison_config(model: str, attention: str) -> ModelConfig:
    """Return the form of a variant, with absolute positions, that has a mechanism in its stages.

    Args:
        model: A name in `variants.VARIANTS`.
        attention: One of `list_mechanisms()`.

    Raises:
        ValueError: There is no such variant or mechanism; suggests the nearest.
    """
    if model not in VARIANTS:
        close = difflib.get_close_matches(model.removeprefix(PREFIX), VARIANTS, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ValueError(f"model={model!r}: there is no such model; {hint}they are {', '.join(VARIANTS)}")
    find_mechanism(attention)
    return with_attention(CONFIGS[f"{PREFIX}{model}_ape"], attention)


def build_model(name: str, size: tuple[int, int], attention: str | None = None) -> nn.Module:
    """Build a model with random weights.

    Args:
        name: One that `require_model` takes, or, with a mechanism, `comparison_config`.
        size: (height, width) in pixels that it is built for, if it has to be built for one.
        attention: A mechanism in place of its own, which needs no other tables for another size.
    """
    if attention is not None:
        return VisionLongformer(comparison_config(name, attention))
    build = create_model if name in list_models() else timm.create_model
    try:
        return build(name, img_size=size)
    except TypeError:  # it takes no such option, as most convolutional networks
        return build(name)


def count_parameters(name: str, size: tuple[int, int], attention: str | None = None) -> int:
    """Return the number of parameters of a model built for images of (height, width) `size`."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build_model(name, size, attention).parameters())


def count_multiply_adds(name: str, size: tuple[int, int], attention: str | None = None) -> int:
    """Return the multiply-adds that a pass of one image of (height, width) `size` needs.

    Ours are counted as `costs.needed_multiply_adds` does, those of other models by the products, convolutions and
    attention that PyTorch sees.

    Raises:
        Exception: Of any kind; the model does not take images of this size.
    """
    with warnings.catch_warnings(), torch.device("meta"), torch.inference_mode():
        warnings.simplefilter("ignore")
        model = build_model(name, size, attention).eval().requires_grad_(False)
        if isinstance(model, VisionLongformer):
            return needed_multiply_adds(model.config, size)
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(1, 3, *size))
    return int(counter.get_total_flops()) // 2


def forecast_pass(name: str, size: tuple[int, int], attention: str | None = None, *, batch: int) -> int:
    """Return the bytes that a pass over images of (height, width) `size` takes at least.

    Of our models it is what `forecast_memory` says, of others the size of the images.

    Raises:
        ValueError: The model refuses images of this size.
    """
    if attention is not None:
        return forecast_memory(comparison_config(name, attention), size, batch=batch)
    if name not in list_models():
        return batch * 3 * size[0] * size[1] * torch.float32.itemsize
    model = create_model(name, device="meta")
    assert isinstance(model, VisionLongformer)
    return forecast_memory(model.config, size, batch=batch)


class Step:
    """A pass over images, or a training step: forward, cross-entropy, backward and an AdamW update.

    Args:
        model: Is put into the mode of the step.
        images: (B, 3, H, W).
        training: Whether it is a training step.
    """

    def __init__(self, model: nn.Module, images: Tensor, *, training: bool) -> None:
        self.model, self.images = model.train(training), images
        self._optimizer = torch.optim.AdamW(model.parameters()) if training else None
        self._labels = torch.zeros(len(images), dtype=torch.long)

    def __call__(self) -> None:
        """Take one step."""
        if self._optimizer is None:
            with torch.inference_mode():
                self.model(self.images)
            return
        nn.functional.cross_entropy(self.model(self.images), self._labels).backward()
        self._optimizer.step()
        self._optimizer.zero_grad()
