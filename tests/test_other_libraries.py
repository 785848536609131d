"""Our backbones inside libraries that take any of timm's: transformers and segmentation_models_pytorch."""

from __future__ import annotations

from pathlib import Path

import pytest
import segmentation_models_pytorch as smp
import torch
from transformers import (
    AutoBackbone,
    AutoModel,
    AutoModelForImageClassification,
    TimmBackbone,
    TimmBackboneConfig,
    TimmWrapperForImageClassification,
)

from model_helpers import noise
from vision_longformer import VisionLongformer, create_model

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


@pytest.mark.parametrize("name", ["vision_longformer_nano", "vision_longformer_nano_ape_full"])
def test_transformers_reads_our_folders_and_we_read_theirs(name: str, tmp_path: Path) -> None:
    model = create_model(name, num_classes=3, img_size=64).eval()
    assert isinstance(model, VisionLongformer)
    folder = str(tmp_path / "ours")
    model.save_pretrained(folder, class_names=["a", "b", "c"])
    pixels = noise(1, 3, 67, 90, dtype=torch.float32)

    classifier = AutoModelForImageClassification.from_pretrained(folder).eval()
    assert isinstance(classifier, TimmWrapperForImageClassification)
    assert torch.equal(classifier(pixels).logits, model(pixels))
    assert classifier.config.id2label == {0: "a", 1: "b", 2: "c"}
    encoder = AutoModel.from_pretrained(folder).eval()
    assert torch.equal(encoder(pixels).last_hidden_state, model.forward_features(pixels))

    classifier.save_pretrained(tmp_path / "theirs")
    again = VisionLongformer.from_pretrained(tmp_path / "theirs")
    assert again.config == model.config
    assert torch.equal(again(pixels), model(pixels))
    assert again.pretrained_cfg["label_names"] == ["a", "b", "c"]


def test_backbones_of_transformers_take_weights_from_a_folder(tmp_path: Path) -> None:
    model = create_model(NANO, num_classes=3).eval()
    assert isinstance(model, VisionLongformer)
    model.save_pretrained(tmp_path)
    pixels = noise(1, 3, 67, 90, dtype=torch.float32)
    expected = model.forward_intermediates(pixels, indices=[1, 3], intermediates_only=True)
    backbone = TimmBackbone.from_pretrained(f"local-dir:{tmp_path}", out_indices=(1, 3)).eval()
    assert all(torch.equal(*pair) for pair in zip(backbone(pixels).feature_maps, expected, strict=True))
    config = TimmBackboneConfig(backbone=NANO, out_indices=(1, 3))
    assert AutoBackbone.from_config(config).channels == [64, 256]
