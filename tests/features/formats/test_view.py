from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from vision_longformer.features.formats import view
from vision_longformer.features.formats.encoded import TensorRows
from vision_longformer.images.thumbnails import NEUTRAL, principal_colours

zarr = pytest.importorskip("zarr")


def write(features: torch.Tensor, valid: torch.Tensor | None = None, *, step: int = 100) -> Any:
    group = zarr.open_group(zarr.storage.MemoryStore(), mode="w")
    rows = TensorRows(features, valid)
    pyramid = view.Pyramid(group, rows, compressors=None)
    for top in range(0, rows.shape[0], step):
        part = slice(top, top + step)
        pyramid.add(rows.read(top, top + step), None if valid is None else valid[part])
    pyramid.close()
    return group


@pytest.mark.parametrize("step", [1, 100, 256, 1000])
def test_levels_are_halved_whatever_the_bands_are(step: int) -> None:
    height, width = 523, 301
    features = torch.randn(4, height, width) + torch.linspace(0, 20, height)[:, None]
    group = write(features, step=step)
    assert sorted(group.array_keys()) == ["0", "1", "2"]
    for number, size in enumerate([(523, 301), (262, 151), (131, 76)]):
        assert group[str(number)].shape == (3, *size)
    full, half = (np.asarray(group[name][...]).astype(float) for name in "01")
    means = full[:, : height - 1, : width - 1].reshape(3, 261, 2, 150, 2).mean(axis=(2, 4))
    assert np.abs(half[:, :261, :150] - means).max() <= 0.5
    last = full[:, -1, : width - 1].reshape(3, 150, 2).mean(axis=2)  # a row without a partner
    assert np.abs(half[:, -1, :150] - last).max() <= 0.5


def test_colours_are_those_of_the_whole_map() -> None:
    features = torch.randn(6, 50, 90) * torch.tensor([5.0, 4, 3, 1, 1, 1])[:, None, None]
    shown = torch.from_numpy(np.asarray(write(features, step=16)["0"][...])).permute(1, 2, 0)
    expected = principal_colours(features.permute(1, 2, 0), None)
    assert torch.equal(shown, expected)


def test_a_sample_of_a_large_map_gives_nearly_its_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    features = torch.randn(6, 200, 310) * torch.tensor([5.0, 4, 3, 1, 1, 1])[:, None, None]
    expected = principal_colours(features.permute(1, 2, 0), None)
    monkeypatch.setattr(view, "SAMPLE_TOKENS", 3000)
    shown = torch.from_numpy(np.asarray(write(features)["0"][...])).permute(1, 2, 0)
    assert not torch.equal(shown, expected)
    assert float((shown.float() - expected.float()).abs().mean()) < 20


def test_missing_tokens_are_gray_and_choose_no_colours() -> None:
    features = torch.randn(4, 70, 90)
    valid = torch.zeros(70, 90, dtype=torch.bool)
    valid[33, 5:20] = True
    features[:, ~valid] = 1e6
    shown = np.asarray(write(features, valid)["0"][...])
    assert (shown[:, ~valid.numpy()] == NEUTRAL).all()
    assert shown[:, valid.numpy()].std(axis=1).min() > 30


def test_pixels_of_all_levels_lie_where_the_images_pixels_do() -> None:
    described = view.multiscale("stage2", path="view/stage2/", levels=3, stride=8)
    for number, entry in enumerate(described["datasets"]):
        scale, translation = entry["coordinateTransformations"]
        step = 8 * 2**number
        assert entry["path"] == f"view/stage2/{number}"
        assert scale["scale"] == [1, step, step]
        covered = np.arange(step).mean()  # the centre of the pixels under the first one
        assert translation["translation"] == [0, covered, covered]
