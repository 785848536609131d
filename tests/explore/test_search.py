from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from vil import main
from vision_longformer.explore import search
from vision_longformer.explore.search import Entry, Index
from vision_longformer.features.load import load_features

WHOLE = (0, 0, 10, 10)


def _index(vectors: torch.Tensor, names: list[str] | None = None) -> Index:
    names = names or [f"{n}.png" for n in range(len(vectors))]
    return Index.of([Entry(name, WHOLE, v) for name, v in zip(names, vectors, strict=True)], metadata={})


def _photo(path: Path, colour: tuple[int, int, int], *, seed: int) -> None:
    pixels = np.clip(np.random.default_rng(seed).normal(colour, 25, (90, 130, 3)), 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def encoded(tmp_path: Path) -> Path:
    """A folder of features of four photographs, a red and a blue pair."""
    (tmp_path / "photos").mkdir()
    for seed, (name, colour) in enumerate(
        {"red1": (200, 40, 40), "red2": (190, 45, 40), "blue1": (40, 60, 200), "blue2": (45, 60, 190)}.items()
    ):
        _photo(tmp_path / "photos" / f"{name}.png", colour, seed=seed)
    arguments = ["--output", str(tmp_path / "features"), "--stages", "2", "4", "--no-report"]
    assert main(["encode", str(tmp_path / "photos"), "--model", "vision_longformer_nano", *arguments]) == 0
    return tmp_path / "features"


def test_the_order_is_that_of_cosine_similarity_less_the_mean() -> None:
    vectors = torch.randn(61, 17)
    wanted = torch.randn(17)

    found = _index(vectors).search(wanted, count=61)

    expected = F.cosine_similarity(vectors - vectors.mean(0), (wanted - vectors.mean(0))[None])
    order = expected.argsort(descending=True).tolist()
    assert [match.image for match in found][:10] == [f"{n}.png" for n in order[:10]]
    torch.testing.assert_close(
        torch.tensor([match.similarity for match in found]), expected.sort(descending=True).values, rtol=0, atol=2e-3
    )  # float16 vectors


def test_parts_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    index, wanted = _index(torch.randn(50, 8)), torch.randn(8)
    whole = index.search(wanted, count=50)

    monkeypatch.setattr(search, "PART", 7)

    assert [match.image for match in index.search(wanted, count=50)] == [match.image for match in whole]


def test_one_image_can_be_kept_from_filling_the_list() -> None:
    vectors = torch.eye(6)[[0, 0, 0, 1, 2, 3]]

    found = _index(vectors, ["a", "a", "a", "b", "c", "d"]).search(vectors[0], count=3, each=1)

    assert found[0].image == "a"
    assert len({match.image for match in found}) == 3


def test_a_vector_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the vector has shape \(3,\), not \(5,\) as in the index"):
        _index(torch.randn(2, 5)).search(torch.randn(3))


def test_regions_are_means_of_the_tokens_with_data_and_cover_the_image() -> None:
    stage_map = torch.randn(5, 21, 11)
    stage_map[:, :3] = 0  # no data

    found = list(search.regions(stage_map, stride=8, size=(165, 86)))

    side = 3
    assert len(found) == 6 * 4  # the first of seven rows has no data
    box, vector = found[0]
    assert box == (24, 0, 48, 24)
    torch.testing.assert_close(vector, stage_map[:, side : 2 * side, :side].flatten(1).mean(1))
    assert max(box[2] for box, _ in found) == 165
    assert max(box[3] for box, _ in found) == 86


def test_a_point_is_the_token_under_it_and_outside_there_is_none() -> None:
    stage_map = torch.randn(5, 4, 6)

    torch.testing.assert_close(search.region_vector(stage_map, (15, 24, 15, 24), stride=8), stage_map[:, 1, 3])
    torch.testing.assert_close(
        search.region_vector(stage_map, (0, 8, 16, 24), stride=8), stage_map[:, :2, 1:3].flatten(1).mean(1)
    )
    with pytest.raises(ValueError, match="lies outside"):
        search.region_vector(stage_map, (40, 0, 40, 0), stride=8)


def test_an_index_is_kept_and_made_anew_when_features_change(encoded: Path, tmp_path: Path) -> None:
    first = search.index_folder(encoded)
    again = search.index_folder(encoded)
    assert isinstance(again.vectors, np.memmap)
    assert again.images == first.images
    np.testing.assert_array_equal(again.vectors, first.vectors)

    next(encoded.glob("red1*.safetensors")).unlink()

    assert "red1.png" not in search.index_folder(encoded).images


def test_a_damaged_index_is_made_anew(encoded: Path) -> None:
    search.index_folder(encoded)
    (encoded / search.FOLDER / "images" / "vectors.npy").write_bytes(b"rot")

    assert len(search.index_folder(encoded)) == 4


@pytest.mark.slow
def test_from_images_to_a_page(encoded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page"

    code = main(
        [
            "search",
            str(encoded),
            "red1.png",
            "--count",
            "2",
            "--images",
            str(tmp_path / "photos"),
            "--output",
            str(page),
        ]
    )

    assert code == 0
    printed = capsys.readouterr().out
    assert printed.index("red1.png") < printed.rindex("red2.png")
    assert "blue" not in printed
    assert (page / "index.html").read_text().count("<img") == 2


@pytest.mark.slow
def test_regions_are_found_by_a_point(encoded: Path, tmp_path: Path) -> None:
    values = tmp_path / "found.json"

    code = main(
        [
            "search",
            str(encoded),
            "blue1.png",
            "--stage",
            "2",
            "--point",
            "40",
            "60",
            "--count",
            "30",
            "--json",
            str(values),
        ]
    )

    assert code == 0
    names = [entry["image"] for entry in json.loads(values.read_text())]
    assert sum(name.startswith("blue") for name in names) > 25


def test_what_cannot_be_searched_is_said(encoded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for arguments, sentence in (
        ([str(empty), "x.png"], "there are no features"),
        ([str(encoded), "x.png"], "x.png: no such file, and no image of"),
        ([str(encoded), "red1.png", "--stage", "3"], "no map of stage 3, only of 2, 4"),
        ([str(encoded), "red1.png", "--point", "1", "1"], "say of which stage's maps"),
        ([str(encoded), "red1.png", "--stage", "2", "--point", "900", "1"], "lies outside"),
    ):
        assert main(["search", *arguments]) == 2
        assert sentence in capsys.readouterr().err


def test_the_index_agrees_with_the_stored_embedding(encoded: Path) -> None:
    index = search.index_folder(encoded)
    stored = load_features(encoded / "red2.png.safetensors")

    [best] = index.search(stored.embedding.float(), count=1)

    assert best.image == "red2.png"
    assert best.similarity == pytest.approx(1, abs=2e-3)
