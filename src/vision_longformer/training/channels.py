"""Models of other than three channels: what follows from those of three.

O output and I input channels, K kernel
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from timm.models import adapt_input_conv
from torch import Tensor


def for_channels(values: Sequence[float], channels: int) -> list[float]:
    """Return a mean or deviation for each channel; where there are others than was described, the mean for all.

    This is what `timm_interface.normalisation` gives.
    """
    if len(values) == channels:
        return list(values)
    return [sum(values) / len(values)] * channels


def fit_first_layer(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Fit the weights of a model of three channels to one of another number, as timm does.

    The kernels of red, green and blue are repeated for the channels, and scaled so that their sum stays.

    Args:
        state: Weights by name; (O, 3, K, K) of the first layer.
        own: Those of the model that gets them; (O, I, K, K).

    Returns:
        The weights, and what was fitted, a sentence each.
    """
    fitted, remarks = dict(state), []
    for name, tensor in state.items():
        wanted = own[name].shape if name in own else tensor.shape
        if tensor.ndim == 4 and tensor.shape[1] == 3 and wanted[1] != 3 and wanted == (
            tensor.shape[0], wanted[1], *tensor.shape[2:]
        ):  # fmt: skip
            fitted[name] = adapt_input_conv(wanted[1], tensor)
            remarks.append(f"{name}: from 3 channels to {wanted[1]}, by repeating red, green and blue")
    return fitted, remarks
