"""Run by test_split: streams drawn images in one process and in several, which are forks of it; prints JSON lines.

python -m streaming.split_ranks FOLDER [CASES]
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model_helpers import MODELS, build, relative_error
from processes import in_ranks
from streaming.streaming_helpers import holes, picture, reader, streamed_tensors
from vision_longformer.images import ImageError, Reader
from vision_longformer.images.reader import Array, Mask
from vision_longformer.streaming import Progress, StreamedFeatures, WorkFolderError, stream
from vision_longformer.utils.distributed import Processes, join, leave

NAMES = (
    "windowed",
    "windowed absolute",
    "exact",
    "own chunk",
    "global only absolute",
    "no global tokens",
    "token pooled",
)


@dataclass(frozen=True)
class Case:
    """An image, a model, and how many processes share the image."""

    model: str
    height: int
    width: int
    count: int
    masked: bool
    spilled: bool
    band_rows: int | None

    @property
    def image(self) -> tuple[Array, Mask | None]:
        """The image, and what of it is there."""
        valid = holes(self.height, self.width) if self.masked else None
        return picture(self.height, self.width), valid


def drawn(number: int) -> Case:
    """Draw a case: strips begin at multiples of 24 to 48 pixels, so there are fewer strips than processes in some."""
    generator = np.random.default_rng(number)

    def flag() -> bool:
        return bool(generator.random() < 0.5)

    return Case(
        NAMES[number % len(NAMES)],
        int(generator.integers(1, 260)),
        int(generator.integers(1, 90)),
        2 + number % 3,
        flag(),
        flag(),
        int(generator.integers(1, 4)) if flag() else None,
    )


def compare(case: Case, folder: Path) -> dict[str, Any]:
    """Return how far several processes are from one, and the rows that each had."""
    model, image = build(MODELS[case.model], dtype=torch.float32), reader(*case.image)
    expected = streamed_tensors(stream(model, image))

    def work(_rank: int) -> dict[str, Any]:
        processes = join("cpu")
        work_folder = folder / "work" if case.spilled else None
        features = stream(
            model,
            image,
            work_folder=work_folder,
            resume=case.spilled,
            band_rows=case.band_rows,
            processes=processes,
        )
        leave(processes)
        return {"errors": errors(features, expected), "rows": [list(span(one)) for one in features.maps]}

    return {"case": vars(case), "ranks": in_ranks(case.count, folder, work)}


def span(stage_map: Any) -> tuple[int, int]:
    """Return the rows of a strip."""
    return stage_map.top, stage_map.top + stage_map.shape[0]


def errors(features: StreamedFeatures, expected: dict[str, torch.Tensor]) -> dict[str, float]:
    """Return the relative error of what a process has."""
    found, tops = streamed_tensors(features), {f"map{stage}": span(one) for stage, one in zip(
        features.stages, features.maps, strict=True
    )}  # fmt: skip
    wanted = {name: tensor[:, slice(*tops[name])] if name in tops else tensor for name, tensor in expected.items()}
    assert {name: tensor.shape for name, tensor in found.items()} == {
        name: tensor.shape for name, tensor in wanted.items()
    }
    return {name: relative_error(found[name], wanted[name]) for name in wanted if wanted[name].numel()}


def run_of(image: Reader, folder: Path) -> Callable[..., tuple[StreamedFeatures, int]]:
    """Return what streams an image on two processes and tells how many bands it took."""
    model = build(MODELS["windowed"], dtype=torch.float32)

    def run(processes: Processes, *, stop_at: tuple[int, int] | None = None) -> tuple[StreamedFeatures, int]:
        bands = 0

        def count(progress: Progress) -> None:
            nonlocal bands
            bands += 1
            if (progress.stage, progress.block) == stop_at:
                os.kill(os.getpid(), signal.SIGKILL)

        options: dict[str, Any] = {"work_folder": folder, "resume": True, "band_rows": 1, "progress": count}
        return stream(model, image, processes=processes, **options), bands

    return run


def kill(folder: Path, *, stop_at: tuple[int, int]) -> dict[str, Any]:
    """Kill the second process at a block, run again, and compare with a run that nothing disturbed."""
    image = reader(picture(200, 50), holes(200, 50))
    whole, broken = run_of(image, folder / "whole"), run_of(image, folder / "broken")

    def undisturbed(_rank: int) -> int:
        processes = join("cpu")
        features, bands = whole(processes)
        torch.save(streamed_tensors(features), folder / f"expected-{processes.rank}.pt")
        leave(processes)
        return bands

    def killed(rank: int) -> None:
        broken(join("cpu"), stop_at=stop_at if rank == 1 else None)

    def again(rank: int) -> dict[str, Any]:
        processes = join("cpu")
        features, bands = broken(processes)
        leave(processes)
        found, expected = streamed_tensors(features), torch.load(folder / f"expected-{rank}.pt")
        return {"bands": bands, "same": all(torch.equal(found[name], expected[name]) for name in expected)}

    folder.mkdir()
    bands = in_ranks(2, folder / "a", undisturbed)
    in_ranks(2, folder / "b", killed, killed=1)
    return {"bands": bands, "again": in_ranks(2, folder / "c", again)}


class Damaged:
    """A reader whose rows from `row` on cannot be read."""

    def __init__(self, image: Reader, row: int) -> None:
        self.info, self._image, self._row = image.info, image, row

    def read_rows(self, top: int, bottom: int) -> Any:
        """Read rows."""
        if bottom > self._row:
            raise ImageError("scene.tif: is damaged")
        return self._image.read_rows(top, bottom)

    def close(self) -> None:
        """Do nothing."""


def fail(folder: Path) -> list[str]:
    """Return what each process says of an image whose lower half cannot be read, and of a folder that is a file."""
    image: Any = Damaged(reader(picture(200, 50)), 150)
    (folder / "file").write_text("")

    def work(_rank: int) -> list[str]:
        processes, said = join("cpu"), []
        for place in (folder / "work", folder / "file"):
            try:
                run_of(image, place)(processes)
            except (ImageError, WorkFolderError) as error:
                said.append(str(error))
        leave(processes)
        return said

    said: list[str] = in_ranks(2, folder, work)
    return said


def main(folder: Path, cases: int) -> None:
    """Run all, and print."""
    torch.set_num_threads(1)
    for number in range(cases):
        print(json.dumps(compare(drawn(number), folder / f"case-{number}")), flush=True)
    print(json.dumps(kill(folder / "early", stop_at=(2, 1))), flush=True)
    print(json.dumps(kill(folder / "late", stop_at=(4, 1))), flush=True)
    (folder / "damaged").mkdir()
    print(json.dumps(fail(folder / "damaged")), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 7)
