from __future__ import annotations

from collections.abc import Iterator
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
from vision_longformer.images import ImageError

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


def test_blocks_compute_in_bfloat16_where_that_is_asked_for() -> None:
    network = model(num_stages=4)
    accurate, fast = (Encoder(network, precision=precision).encode(photo()) for precision in ("float32", "bf16"))

    for found, expected in zip((*fast.maps, fast.embedding), (*accurate.maps, accurate.embedding), strict=True):
        assert found.dtype == torch.float32
        error = (found - expected).norm() / expected.norm()
        assert 1e-5 < error < 0.03  # a block rounds some times to eight bits, each time by 2⁻⁹ at most


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
        ({"precision": "half"}, "precision='half': expected one of float32, bf16"),
    ],
)
def test_impossible_settings_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Encoder(model(), **options)


# --- many images ------------------------------------------------------------------------------------------------

SIZES = [(40, 51), (41, 50), (1, 1), (97, 30), (40, 50), (90, 33), (38, 52), (7, 200)]


def collection() -> list[NDArray[Any]]:
    """Images of mixed sizes; some have opacity, and one transparent pixels."""
    generator = np.random.default_rng(1)
    images = [generator.integers(1, 256, (*size, 3 + index % 2)).astype(np.uint8) for index, size in enumerate(SIZES)]
    images[1][5:20, :, 3] = 0
    return images


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize(
    "options",
    [{}, {"last_tokens": 2}, {"global_pool": "", "num_classes": 0}, {"last_tokens": 1, "global_pool": "token"}],
)
def test_images_in_batches_get_the_features_that_they_get_alone(
    dtype: torch.dtype, tolerance: float, options: dict[str, Any]
) -> None:
    encoder = Encoder(model(**options))
    encoder.model.to(dtype)
    images = collection()
    found = list(encoder.encode_many(images, batch=5))
    assert [id(image) for image, _ in found] == [id(image) for image in images]
    for image, features in found:
        alone = encoder.encode(image)
        assert torch.equal(features.valid, alone.valid)
        tensors = (*features.maps, *features.global_tokens, features.embedding)
        expected = (*alone.maps, *alone.global_tokens, alone.embedding)
        for tensor, other in zip(tensors, expected, strict=True):
            assert tensor.is_contiguous()
            torch.testing.assert_close(tensor, other, rtol=tolerance, atol=tolerance)


def test_files_in_batches_get_the_features_that_they_get_alone(tmp_path: Path) -> None:
    encoder = Encoder(model())
    encoder.model.double()
    paths = [tmp_path / f"{number}.png" for number in range(len(SIZES))]
    for image, path in zip(collection(), paths, strict=True):
        Image.fromarray(image).save(path)
    for path, features in encoder.encode_many(paths, batch=5):
        alone = encoder.encode(path)
        torch.testing.assert_close(features.embedding, alone.embedding, rtol=1e-12, atol=1e-12)
        assert torch.equal(features.valid, alone.valid)


def test_images_are_taken_as_they_are_needed() -> None:
    taken = []

    def images() -> Iterator[NDArray[Any]]:
        for number in range(1000):
            taken.append(number)
            yield np.full((8, 8), 0.5)

    many = Encoder(model()).encode_many(images(), batch=2, workers=1)
    next(many)
    assert len(taken) < 10


def test_an_image_that_cannot_be_read_ends_it_or_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    Image.fromarray(photo()).save(tmp_path / "x.png")
    paths = [tmp_path / name for name in ("x.png", "text.png", "none.png", "x.png")]
    encoder = Encoder(model())
    with pytest.raises(ImageError, match=r"text\.png: it is not an image"):
        list(encoder.encode_many(paths))
    failed: list[Path] = []
    found = [path for path, _ in encoder.encode_many(paths, on_error=lambda path, _: failed.append(path))]
    assert found == [paths[0], paths[3]]
    assert failed == paths[1:3]


def test_little_memory_makes_small_batches_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = Encoder(model())
    counts: list[int] = []
    plain = Encoder.encode_batch

    def noted(self: Encoder, pixels: Any) -> Any:
        counts.append(len(pixels))
        return plain(self, pixels)

    monkeypatch.setattr(Encoder, "encode_batch", noted)
    expected = [features.embedding for _, features in encoder.encode_many([photo()] * 8)]
    assert counts == [8]
    counts.clear()
    found = [features.embedding for _, features in encoder.encode_many([photo()] * 8, memory=1)]
    assert counts == [1] * 8
    torch.testing.assert_close(torch.stack(found), torch.stack(expected), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("options", "message"), [({"batch": 0}, "batch=0: must be"), ({"workers": 0}, "workers=0")])
def test_impossible_limits_are_refused_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Encoder(model()).encode_many([], **options)
