from __future__ import annotations

import pytest
import torch

from vision_longformer import VisionLongformer, list_models
from vision_longformer.benchmarking.models import (
    Step,
    build_model,
    count_multiply_adds,
    count_parameters,
    require_model,
)
from vision_longformer.benchmarking.published import PEERS, published_accuracy
from vision_longformer.costs import needed_multiply_adds
from vision_longformer.utils.errors import reason


@pytest.mark.parametrize("name", ["vision_longformer_nano", "resnet18", "resnet18.a1_in1k"])
def test_models_of_both_kinds_are_known(name: str) -> None:
    require_model(name)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("vision_longformer_smal", "vision_longformer_small"), ("resnet5O", "resnet50"), ("qqqqqqqqqqqqqq", None)],
)
def test_an_unknown_model_is_answered_with_the_nearest(name: str, nearest: str | None) -> None:
    with pytest.raises(ValueError, match=f"there is no model '{name}'") as caught:
        require_model(name)
    assert str(caught.value).endswith(f"; did you mean {nearest!r}?" if nearest else "in timm")


def test_models_are_built_for_a_size_if_they_have_to_be() -> None:
    assert isinstance(build_model("vision_longformer_nano", (32, 64)), VisionLongformer)
    assert build_model("deit_tiny_patch16_224", (32, 64)).eval()(torch.zeros(1, 3, 32, 64)).shape == (1, 1000)
    assert build_model("resnet18", (32, 64)).eval()(torch.zeros(1, 3, 32, 64)).shape == (1, 1000)


def test_parameters_and_multiply_adds_are_counted() -> None:
    nano = build_model("vision_longformer_nano", (96, 64))
    assert isinstance(nano, VisionLongformer)
    assert count_parameters("vision_longformer_nano", (96, 64)) == sum(p.numel() for p in nano.parameters())
    assert count_multiply_adds("vision_longformer_nano", (96, 64)) == needed_multiply_adds(nano.config, (96, 64))
    # the figures of their papers
    assert count_multiply_adds("resnet50", (224, 224)) == pytest.approx(4.1e9, rel=0.01)
    assert count_multiply_adds("deit_small_patch16_224", (224, 224)) == pytest.approx(4.6e9, rel=0.01)


def test_a_size_that_a_model_refuses_has_a_reason() -> None:
    with pytest.raises(AssertionError, match="patch_size"):
        count_multiply_adds("xcit_tiny_12_p16_224", (40, 64))
    assert reason(ValueError("first line.\nsecond")) == "first line"
    assert reason(AssertionError()) == "AssertionError"
    assert len(reason(ValueError("x" * 1000))) < 250


def test_a_training_step_updates_and_a_pass_does_not() -> None:
    model = build_model("vision_longformer_nano", (64, 32))
    before = [parameter.clone() for parameter in model.parameters()]
    Step(model, torch.randn(2, 3, 64, 32), training=False)()
    assert not model.training
    assert all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
    Step(model, torch.randn(2, 3, 64, 32), training=True)()
    assert model.training
    assert any(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


def test_published_accuracies_have_sources_and_fit_their_conditions() -> None:
    assert all(accuracy.source and 70 < accuracy.top1 < 90 for accuracy in PEERS.values())
    for name in PEERS:
        require_model(name)
    own = {name: accuracy and accuracy.top1 for name in list_models() if (accuracy := published_accuracy(name))}
    assert own["vision_longformer_small"] == own["vision_longformer_small_full"] == 82.39
    assert own["vision_longformer_small_ape"] == 82.0
    assert "vision_longformer_nano" not in own  # never published
    assert "vision_longformer_base_deep" not in own  # 384×384, pretrained on more images
    assert published_accuracy("swin_tiny_patch4_window7_224.ms_in22k_ft_in1k") is None
