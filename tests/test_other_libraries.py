"""Our backbones inside libraries that take any of timm's: transformers and segmentation_models_pytorch."""

from __future__ import annotations

import segmentation_models_pytorch as smp
import torch
from transformers import TimmBackbone, TimmBackboneConfig

from model_helpers import noise
from vision_longformer import create_model

NANO = "vision_longformer_nano"


def test_transformers_gets_our_maps() -> None:
    backbone = TimmBackbone(TimmBackboneConfig(backbone=NANO, out_indices=(1, 3), use_pretrained_backbone=False)).eval()
    model = create_model(NANO, num_classes=0).eval()
    state = {name.removeprefix("_backbone.model."): tensor for name, tensor in backbone.state_dict().items()}
    assert set(state) <= set(model.state_dict())
    model.load_state_dict(state, strict=False)
    pixels = noise(2, 3, 67, 90, dtype=torch.float32)
    expected = model.forward_intermediates(pixels, indices=[1, 3], intermediates_only=True)  # type: ignore[operator]
    maps = backbone(pixels).feature_maps
    assert backbone.channels == [64, 256]
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(maps, expected, strict=True))


def test_segmentation_models_learn_on_our_maps() -> None:
    for kind in (smp.Unet, smp.FPN):
        model = kind(f"tu-{NANO}", encoder_weights=None, classes=3)
        logits = model(noise(2, 3, 64, 96, dtype=torch.float32))
        assert logits.shape == (2, 3, 64, 96)
        logits.square().mean().backward()
        gradients = [parameter.grad for parameter in model.encoder.parameters() if parameter.grad is not None]
        assert len(gradients) > 50
        assert all(gradient.isfinite().all() for gradient in gradients)
