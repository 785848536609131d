from __future__ import annotations

from pathlib import Path

import pytest

from vision_longformer.features.shards import Shard, parse_shard
from vision_longformer.images.find import Source

SOURCES = [Source(Path("/x") / f"{number}.png", f"{number}.png") for number in range(200)]


@pytest.mark.parametrize("count", [1, 3, 16])
def test_each_image_is_in_one_share_and_shares_are_alike(count: int) -> None:
    shares = [Shard(number, count).of(SOURCES) for number in range(1, count + 1)]
    found = [source for share in shares for source in share]
    assert sorted(found, key=SOURCES.index) == SOURCES
    assert min(map(len, shares)) > len(SOURCES) / count / 4


def test_a_share_stays_when_images_are_added() -> None:
    assert set(Shard(2, 5).of(SOURCES[::2])) <= set(Shard(2, 5).of(SOURCES))


@pytest.mark.parametrize(
    ("text", "environment", "expected"),
    [
        ("3/16", {}, Shard(3, 16)),
        ("auto", {"RANK": "0", "WORLD_SIZE": "4"}, Shard(1, 4)),
        ("auto", {"RANK": "3", "WORLD_SIZE": "4"}, Shard(4, 4)),
        ("auto", {"SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_COUNT": "8"}, Shard(3, 8)),
        (
            "auto",
            {
                "SLURM_ARRAY_TASK_ID": "16",
                "SLURM_ARRAY_TASK_COUNT": "4",
                "SLURM_ARRAY_TASK_MIN": "10",
                "SLURM_ARRAY_TASK_STEP": "2",
            },
            Shard(4, 4),
        ),
    ],
)
def test_a_share_is_named_or_taken_from_the_environment(
    text: str, environment: dict[str, str], expected: Shard
) -> None:
    assert parse_shard(text, environment) == expected


@pytest.mark.parametrize(
    ("text", "environment", "message"),
    [
        ("3", {}, "'3' is no share: write which of how many, such as 3/16"),
        ("a/b", {}, "'a/b' is no share"),
        ("5/4", {}, "shard 5/4: the first number must lie between 1 and the second"),
        ("auto", {}, "neither RANK and WORLD_SIZE nor SLURM_ARRAY_TASK_ID are set"),
        ("auto", {"RANK": "x", "WORLD_SIZE": "4"}, "RANK=x: expected a whole number"),
        ("auto", {"SLURM_ARRAY_TASK_ID": "9"}, "SLURM_ARRAY_TASK_COUNT=None: expected a whole number"),
        ("auto", {"SLURM_ARRAY_TASK_ID": "9", "SLURM_ARRAY_TASK_COUNT": "4"}, "shard 10/4: the first number"),
    ],
)
def test_what_names_no_share_is_refused(text: str, environment: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_shard(text, environment)
