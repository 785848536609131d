"""Models inside `torch.func` and forward-mode differentiation; batches of no images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import jvp, vmap

from model_helpers import MODELS, bands_of, build, noise
from vision_longformer import create_model, set_attention_backend
from vision_longformer.attention import rowwise


@pytest.fixture(params=["auto", "sdpa"])
def _backend(request: pytest.FixtureRequest) -> Iterator[None]:
    name: Literal["auto", "sdpa"] = request.param
    set_attention_backend(name)
    yield
    set_attention_backend("auto")


@pytest.mark.usefixtures("_backend")
@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch's own formulas
def test_derivatives_carried_forward(gradients: bool) -> None:
    """Against the gradients of the backward pass: both give the derivative along a direction."""
    model = build(MODELS["windowed"]).float()
    images, direction = noise(1, 3, 60, 70).float(), noise(1, 3, 60, 70).float()
    leaf = images.clone().requires_grad_()
    out = model(leaf)
    weights = torch.linspace(-1, 1, out.numel()).view_as(out)
    (gradient,) = torch.autograd.grad((out * weights).sum(), leaf)
    expected = float((gradient * direction).sum())
    tolerance = 1e-4 * float((gradient * direction).abs().sum())
    with torch.set_grad_enabled(gradients):
        derivative = jvp(model, (images,), (direction,))[1]
        assert float((derivative.detach() * weights).sum()) == pytest.approx(expected, abs=tolerance)
        with forward_ad.dual_level():
            dual = forward_ad.unpack_dual(model(forward_ad.make_dual(images, direction)))
            assert float((dual.tangent.detach() * weights).sum()) == pytest.approx(expected, abs=tolerance)


@pytest.mark.usefixtures("_backend")
@pytest.mark.parametrize("large", [False, True])
@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_images_mapped_one_by_one(large: bool) -> None:
    model = create_model("vision_longformer_nano", num_classes=3).eval()
    images = torch.randn(3, 3, 70, 45)
    expected = model(images)
    with bands_of(0 if large else rowwise.KEPT_BYTES), torch.no_grad():
        mapped = vmap(lambda image: model(image[None])[0])(images)
    torch.testing.assert_close(mapped, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("_backend")
@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_a_batch_of_no_images(name: str, gradients: bool) -> None:
    model = build(MODELS[name]).float()
    with torch.set_grad_enabled(gradients):
        out: Tensor = model(torch.zeros(0, 3, 60, 70))
    assert out.shape == (0, model.num_classes)
    if gradients:
        out.sum().backward()


def test_another_forward_of_a_layer_is_called() -> None:
    """As some libraries for adapters and quantisation put it in place, without another class."""
    model = create_model("vision_longformer_nano", num_classes=3).eval()
    images = torch.randn(1, 3, 70, 45)
    called = set()
    for name, part in model.named_modules():
        if isinstance(part, nn.Linear | nn.GELU | nn.LayerNorm | nn.Conv2d):

            def note(*arguments: Tensor, name: str = name, forward: object = part.forward) -> Tensor:
                called.add(name)
                return forward(*arguments)  # type: ignore[operator, no-any-return]

            part.forward = note  # type: ignore[assignment, method-assign]
    model(images)
    in_training, called = called, set()
    with bands_of(0), torch.no_grad():
        model(images)
    assert called == in_training
