"""An image's result depends neither on its padding nor on its batch mates, and padding is never read."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from model_helpers import MODELS, build, config, fill, noise, relative_error
from vision_longformer import VisionLongformer, create_model
from vision_longformer.backbone import Block
from vision_longformer.padding import Padding

SIZES = [(31, 46), (17, 37), (5, 3), (29, 41)]
FREE_POSITIONS = [
    name for name in MODELS if not any(word in name for word in ("absolute", "full", "published", "cyclic", "partial"))
]
TOLERANCES = [(torch.float64, 1e-12), (torch.float32, 1e-5)]


def batch_of(images: list[Tensor], *, extra: int = 0) -> Tensor:
    """Stack (3, H, W) images, padded with numbers that must not matter."""
    height, width = (max(image.shape[axis] for image in images) + extra for axis in (1, 2))
    return torch.stack(
        [F.pad(image, (0, width - image.shape[2], 0, height - image.shape[1]), value=9.0) for image in images]
    )


def outputs(model: VisionLongformer, images: Tensor, **arguments: Any) -> list[Tensor]:
    """Return the logits, then each stage's map and global tokens."""
    pairs = model.forward_intermediates(
        images, intermediates_only=True, norm=True, return_prefix_tokens=True, **arguments
    )
    return [model(images, **arguments), *[tensor for pair in pairs for tensor in pair]]


@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES)
@pytest.mark.parametrize("name", MODELS)
def test_padding_and_batch_mates_change_nothing(name: str, dtype: torch.dtype, tolerance: float) -> None:
    model = build(MODELS[name], dtype=dtype)
    images = [noise(3, *size, seed=number, dtype=dtype) for number, size in enumerate(SIZES)]
    with torch.no_grad():
        together = outputs(model, batch_of(images), image_sizes=SIZES)
        padded = outputs(model, batch_of(images, extra=19), image_sizes=torch.tensor(SIZES))
        for number, image in enumerate(images):
            for alone, *in_batch in zip(outputs(model, image[None]), together, padded, strict=True):
                if not alone.numel():
                    continue
                for many in in_batch:
                    one = many[number : number + 1]
                    if alone.ndim == 4:  # a map: the rest of it is zero
                        height, width = alone.shape[2:]
                        assert not one[:, :, height:].any()
                        assert not one[..., width:].any()
                        one = one[:, :, :height, :width]
                    assert relative_error(one, alone) <= tolerance


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES)
@pytest.mark.parametrize("name", ["vision_longformer_nano", "vision_longformer_nano_ape_full"])
def test_an_image_is_the_same_in_fifty_mixed_batches(name: str, dtype: torch.dtype, tolerance: float) -> None:
    model = create_model(name, num_classes=7)
    assert isinstance(model, VisionLongformer)
    fill(model.to(dtype).eval(), std=0.05)
    image = noise(3, 61, 83, dtype=dtype)
    generator = torch.Generator().manual_seed(6)
    with torch.inference_mode():
        alone = model(image[None])
        for batch in range(50):
            mates = int(torch.randint(1, 4, (), generator=generator))
            sizes = torch.randint(1, 130, (mates, 2), generator=generator).tolist()
            images = [noise(3, *size, seed=batch, dtype=dtype) for size in sizes]
            place = int(torch.randint(mates + 1, (), generator=generator))
            images.insert(place, image)
            logits = model(batch_of(images), image_sizes=[(x.shape[1], x.shape[2]) for x in images])
            assert relative_error(logits[place : place + 1], alone) <= tolerance


@pytest.mark.parametrize("name", FREE_POSITIONS)
def test_a_mask_marks_padding_as_sizes_do(name: str) -> None:
    """Where nothing is sized for an image's own map, a free-form mask says the same as sizes."""
    model = build(MODELS[name])
    images = batch_of([noise(3, *size, seed=number) for number, size in enumerate(SIZES)])
    valid = torch.zeros(len(SIZES), *images.shape[2:], dtype=torch.bool)
    for mask, (height, width) in zip(valid, SIZES, strict=True):
        mask[:height, :width] = True
    with torch.no_grad():
        assert torch.equal(model(images, valid=valid), model(images, image_sizes=SIZES))
        assert torch.equal(model(images, valid=valid, image_sizes=SIZES), model(images, image_sizes=SIZES))


@pytest.mark.parametrize("name", MODELS)
def test_a_mask_of_true_and_full_sizes_change_nothing(name: str) -> None:
    model, images = build(MODELS[name]), noise(2, 3, 31, 46)
    with torch.no_grad():
        expected = model(images)
        assert relative_error(model(images, valid=torch.ones(2, 31, 46, dtype=torch.bool)), expected) <= 1e-12
        assert torch.equal(model(images, image_sizes=[(31, 46)] * 2), expected)


def holes(height: int, width: int) -> Tensor:
    """Return a mask with scattered holes, and whole patches and chunks missing."""
    valid = noise(3, height, width, seed=5) > -1
    valid[0, 6:19, 9:30] = False
    valid[1, :, :12] = False
    return valid


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), 1e30])
@pytest.mark.parametrize("marked_by", ["sizes", "mask", "both"])
@pytest.mark.parametrize("name", MODELS)
def test_what_is_not_real_is_never_read(name: str, marked_by: str, poison: float) -> None:
    sizes = torch.tensor([(31, 46), (17, 37), (5, 3)])
    inside = (torch.arange(31) < sizes[:, :1])[:, :, None] & (torch.arange(46) < sizes[:, 1:])[:, None]
    arguments: dict[str, Tensor] = {}
    real = torch.ones(3, 31, 46, dtype=torch.bool)
    if marked_by != "mask":
        arguments["image_sizes"], real = sizes, inside
    if marked_by != "sizes":
        arguments["valid"] = holes(31, 46)
        real = real & arguments["valid"]
    pixels = noise(3, 3, 31, 46, dtype=torch.float32)
    results = []
    for value in (0.0, poison):
        model = build(MODELS[name], dtype=torch.float32).train()
        images = torch.where(real[:, None], pixels, value).requires_grad_()
        logits = model(images, **arguments)
        logits.square().sum().backward()
        assert images.grad is not None
        results.append([logits, images.grad, *[parameter.grad for parameter in model.parameters()]])
    for clean, poisoned in zip(*results, strict=True):
        assert torch.equal(clean, poisoned)
        assert clean.isfinite().all()
    assert not results[0][1].permute(0, 2, 3, 1)[~real].any()


@pytest.mark.parametrize("name", MODELS)
def test_an_image_without_a_real_pixel_harms_nobody(name: str) -> None:
    images, valid = noise(2, 3, 31, 46), torch.ones(2, 31, 46, dtype=torch.bool)
    valid[1] = False
    model = build(MODELS[name]).train()
    logits = model(images, valid=valid)
    logits.sum().backward()
    assert logits.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())  # type: ignore[union-attr]
    model.eval()
    with torch.no_grad():
        together, alone = model(images, valid=valid), model(images[:1], valid=valid[:1])
    assert relative_error(together[:1], alone) <= 1e-12


def test_a_head_pools_real_tokens_only() -> None:
    model = build(config(num_global_tokens=(1, 1, 1, 0)))
    images = batch_of([noise(3, *size, seed=number) for number, size in enumerate(SIZES)])
    with torch.no_grad():
        features = model.forward_features(images, image_sizes=SIZES)
        logits = model.forward_head(features, image_sizes=SIZES)
        assert relative_error(logits, model(images, image_sizes=SIZES)) <= 1e-12
        assert relative_error(model.forward_head(features), logits) > 1e-3


@pytest.mark.parametrize("name", ["windowed", "full", "global only"])
def test_a_block_reads_no_padding_either(name: str) -> None:
    """Its gradients neither: a NaN that is masked later is still one in a gradient that sums over tokens."""
    valid = noise(2, 5, 7, seed=5) > -0.5
    padding = Padding(valid=valid, sizes=torch.tensor([[5, 7]] * 2))
    tokens, results = noise(2, 5, 7, 6), []
    for value in (0.0, float("nan")):
        block = cast(Block, build(MODELS[name]).stages[0].blocks[0])  # type: ignore[index]
        x, global_tokens = block(torch.where(valid[..., None], tokens, value), noise(2, 1, 6, seed=7), padding)
        (padding.clean(x).square().sum() + global_tokens.square().sum()).backward()
        results.append([padding.clean(x), global_tokens, *[parameter.grad for parameter in block.parameters()]])
    for clean, poisoned in zip(*results, strict=True):
        assert torch.equal(clean, poisoned)
