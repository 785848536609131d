from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor

from vision_longformer import ModelConfig, StageConfig, VisionLongformer, Windowed
from vision_longformer.features.encoder import Encoder

HEIGHT, WIDTH = 51, 70


def model(*, num_stages: int = 3, last_tokens: int = 0, **options: Any) -> VisionLongformer:
    torch.manual_seed(0)
    tokens = (1, *(2,) * (num_stages - 2), last_tokens)
    stages = tuple(
        StageConfig(1, 8 * 2**number, 2, 4 if number == 0 else 2, count, attention=Windowed(3))
        for number, count in enumerate(tokens)
    )
    return VisionLongformer(ModelConfig(stages, **options))


def photo(*, channels: int = 3) -> NDArray[Any]:
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, channels)).astype(np.uint8)


def as_batch(array: NDArray[Any]) -> Tensor:
    mean, std = (torch.tensor(values) for values in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))
    return ((torch.from_numpy(array[..., :3]).float() / 255 - mean) / std).permute(2, 0, 1)[None]


def test_features_are_what_the_model_computes() -> None:
    network = model(num_stages=4).eval()
    features = Encoder(network).encode(photo())
    with torch.inference_mode():
        final, expected = network.forward_intermediates(as_batch(photo()), return_prefix_tokens=True)
        embedding = network.forward_head(final, pre_logits=True)
    assert [tuple(m.shape) for m in features.maps] == [(8, 13, 18), (16, 7, 9), (32, 4, 5), (64, 2, 3)]
    assert [tuple(t.shape) for t in features.global_tokens] == [(1, 8), (2, 16), (2, 32), (0, 64)]
    for found, tokens, (stage_map, stage_tokens) in zip(features.maps, features.global_tokens, expected, strict=True):
        torch.testing.assert_close(found, stage_map[0])
        torch.testing.assert_close(tokens, stage_tokens[0])
    torch.testing.assert_close(features.embedding, embedding[0])
    assert features.valid.shape == (HEIGHT, WIDTH)
    assert features.valid.all()


@pytest.mark.parametrize("pool", ["token", "avg"])
@pytest.mark.parametrize("channels", [3, 4])
def test_the_embedding_is_what_the_classifier_sees(pool: Any, channels: int) -> None:
    network = model(last_tokens=2, global_pool=pool, num_classes=5).eval()
    array = photo(channels=channels)
    valid = torch.ones(1, HEIGHT, WIDTH, dtype=torch.bool)
    if channels == 4:
        array[..., 3] = 9
        array[:, 40:, 3] = 0
        valid[:, :, 40:] = False
    features = Encoder(network).encode(array)
    with torch.inference_mode():
        expected = network(as_batch(array), valid=valid)
        torch.testing.assert_close(network.head(features.embedding), expected[0])


def test_a_model_that_pools_nothing_gives_the_mean_over_real_tokens() -> None:
    array = photo(channels=4)
    array[..., 3] = 9
    array[:, 32:, 3] = 0
    unpooled = Encoder(model(num_classes=0, global_pool="")).encode(array)
    pooled = Encoder(model(num_classes=0, global_pool="avg")).encode(array)
    torch.testing.assert_close(unpooled.embedding, pooled.embedding)


def test_transparent_pixels_change_nothing() -> None:
    one = photo(channels=4)
    one[..., 3] = 255
    one[20:33, 11:40, 3] = 0
    other = one.copy()
    other[20:33, 11:40, :3] = 255 - other[20:33, 11:40, :3]
    encoder = Encoder(model())
    first, second = encoder.encode(one), encoder.encode(other)
    assert not first.valid[20:33, 11:40].any()
    assert first.valid.sum() == HEIGHT * WIDTH - 13 * 29
    for a, b in zip((*first.maps, first.embedding), (*second.maps, second.embedding), strict=True):
        assert torch.equal(a, b)


def test_images_that_differ_below_8_bits_have_different_features(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH)).astype(np.uint16) * 256
    embeddings = []
    for name, values in (("a.png", array), ("b.png", array + 128)):
        Image.fromarray(values).save(tmp_path / name)
        embeddings.append(Encoder(model()).encode(tmp_path / name).embedding)
    assert not torch.equal(*embeddings)


def test_a_path_an_image_and_an_array_give_the_same(tmp_path: Path) -> None:
    Image.fromarray(photo()).save(tmp_path / "x.png")
    encoder = Encoder(model())
    inputs = (tmp_path / "x.png", str(tmp_path / "x.png"), Image.fromarray(photo()), photo())
    embeddings = [encoder.encode(image).embedding for image in inputs]
    assert all(torch.equal(embedding, embeddings[0]) for embedding in embeddings)


def test_only_the_stages_that_were_asked_for_are_returned() -> None:
    every = Encoder(model()).encode(photo())
    some = Encoder(model(), stages=[2, 1, 2]).encode(photo())
    assert len(some.maps) == len(some.global_tokens) == 2
    assert all(torch.equal(a, b) for a, b in zip(some.maps, every.maps[:2], strict=True))
    assert torch.equal(some.embedding, every.embedding)


def test_the_model_is_put_in_evaluation_mode_and_float32() -> None:
    network = model(drop_path_rate=0.9).double().train()
    encoder = Encoder(network)
    first = encoder.encode(photo())
    network.train()
    assert torch.equal(encoder.encode(photo()).embedding, first.embedding)
    assert first.embedding.dtype == torch.float32


def test_pixels_are_normalised_as_the_model_describes() -> None:
    network = model()
    vars(network)["pretrained_cfg"] = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}
    gray = Encoder(network).encode(np.full((HEIGHT, WIDTH, 3), 0.5))
    with torch.inference_mode():
        expected = network.forward_intermediates(torch.zeros(1, 3, HEIGHT, WIDTH), intermediates_only=True)
    torch.testing.assert_close(gray.maps[0], expected[0][0])


def test_other_channel_counts_are_normalised_evenly() -> None:
    features = Encoder(model(in_chans=5)).encode(np.zeros((HEIGHT, WIDTH, 5), np.uint16))
    assert features.maps[0].shape == (8, 13, 18)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stages": [4]}, "there is no stage 4, the model has stages 1 to 3"),
        ({"stages": [0]}, "there is no stage 0"),
        ({"max_side": 0}, "max_side=0: must be at least 1"),
        ({"max_pixels": -1}, "max_pixels=-1: must be at least 1"),
    ],
)
def test_impossible_settings_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Encoder(model(), **options)
