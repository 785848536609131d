from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vision_longformer.engines.ray_data import (
    MOST_BYTES,
    MOST_IMAGES,
    EngineError,
    RayOptions,
    _most_cpus,
    _plan,
    tasks,
)
from vision_longformer.images.find import Source
from vision_longformer.utils.remote import RemoteFile


def sources(sizes: list[int | None]) -> list[Source]:
    return [Source(Path("/x"), f"{number}", RemoteFile("s3://x", size)) for number, size in enumerate(sizes)]


@pytest.mark.parametrize(
    ("sizes", "actors", "expected"),
    [
        ([1] * 5, 2, [1] * 5),  # few images: each by itself
        ([1] * 640, 2, [10] * 64),
        ([1] * 100_000, 1, [MOST_IMAGES] * 97 + [100_000 - 97 * MOST_IMAGES]),
        ([MOST_BYTES - 1, 1, 1, 2 * MOST_BYTES, 1, 1] * 64, 1, [2, 1, 1, 2] * 64),
        ([1, None, 1] * 64, 1, [1, 1] + [2, 1] * 63 + [1]),  # of unknown size: as large as a task may be
        ([], 3, []),
    ],
)
def test_tasks_are_neither_long_nor_tiny(sizes: list[int | None], actors: int, expected: list[int]) -> None:
    given = sources(sizes)
    shared = list(tasks(given, actors=actors))
    assert [source for share in shared for source in share] == given
    assert [len(share) for share in shared] == expected


def test_a_file_that_is_gone_is_a_task_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(b"a")
    given = [Source(tmp_path / name, name) for name in ("there", "gone") * 64]
    assert {len(share) for share in tasks(given, actors=1)} == {1}


@pytest.mark.parametrize(
    ("options", "resources", "actors", "sharing", "gpus"),
    [
        (RayOptions(), {"CPU": 8.0}, 8, 8, 0.0),
        (RayOptions(cpus=3), {"CPU": 8.0}, 2, 2, 0.0),
        (RayOptions(), {"CPU": 32.0, "GPU": 4.0}, 4, 4, 1.0),
        (RayOptions(gpus=0), {"CPU": 32.0, "GPU": 4.0}, 32, 8, 0.0),
        (RayOptions(gpus=0.5), {"CPU": 32.0, "GPU": 4.0}, 8, 8, 0.5),
        (RayOptions("auto", actors=50, gpus=1), {"CPU": 2.0}, 50, 8, 1.0),  # of a cluster that grows
    ],
)
def test_as_many_actors_as_there_is_room_for(
    options: RayOptions, resources: dict[str, float], actors: int, sharing: int, gpus: float
) -> None:
    plan = _plan(options, resources, 8.0)
    assert (plan.actors, plan.sharing, plan.cpus, plan.gpus) == (actors, sharing, options.cpus, gpus)


@pytest.mark.parametrize("options", [RayOptions(cpus=9), RayOptions(gpus=1), RayOptions(actors=2, cpus=9)])
def test_actors_that_fit_nowhere_are_refused(options: RayOptions) -> None:
    with pytest.raises(EngineError, match=r"takes . CPUs and . GPUs, and the cluster has 8 and 0: let it take"):
        _plan(options, {"CPU": 8.0}, 8.0)


def test_machines_share_their_memory_between_their_own_actors() -> None:
    alive = [{"Alive": True, "Resources": {"CPU": cpus}} for cpus in (4.0, 16.0)]
    assert _most_cpus([*alive, {"Alive": False, "Resources": {"CPU": 64.0}}, {"Alive": True, "Resources": {}}]) == 16


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [("actors", 0, "actors=0"), ("cpus", 0.0, "cpus=0"), ("gpus", -1.0, "gpus=-1"), ("cpus", float("nan"), "cpus=nan")],
)
def test_impossible_numbers_are_refused(field: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RayOptions(**{field: value})
