"""Run by test_split: encodes images in one process and on several, which are forks of it; prints JSON lines.

python -m features.split_ranks FOLDER
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import tifffile
import torch
import zarr

from model_helpers import MODELS, build
from processes import in_ranks
from streaming.streaming_helpers import holes, picture
from vision_longformer.features import figures
from vision_longformer.features.encoder import Encoder
from vision_longformer.features.extract import encode_files
from vision_longformer.features.failures import OutputError
from vision_longformer.features.formats import zarr_folder, zarr_strips
from vision_longformer.features.split import encode_split
from vision_longformer.features.strategies import Limits
from vision_longformer.images.find import find_images
from vision_longformer.utils.distributed import Processes, join, leave

SIZES = {"large": (400, 130), "small": (30, 40)}


def make_images(folder: Path) -> Path:
    """Write two images, of which parts are missing, and one that is damaged."""
    folder.mkdir()
    for number, (name, size) in enumerate(SIZES.items()):
        opacity = 255 * holes(*size).astype(np.uint8)
        pixels = np.concatenate([picture(*size, seed=number), opacity[..., None]], axis=2)
        tifffile.imwrite(
            folder / f"{name}.tif", pixels, photometric="rgb", extrasamples=["unassalpha"], rowsperstrip=16
        )
    (folder / "damaged.tif").write_bytes((folder / "large.tif").read_bytes()[:90_000])
    return folder


def encoder() -> Encoder:
    """Return an encoder of a small model."""
    return Encoder(build(MODELS["windowed"], dtype=torch.float32), stages=(1, 3))


def split(images: Path, output: Path, processes: Processes, **options: Any) -> list[dict[str, Any]]:
    """Encode on all processes; return what became of the images."""
    sources = find_images([str(images)])
    results = encode_split(sources, output, encoder(), processes, model_name="", dtype="float32", **options)
    return [
        {"name": result.source.name, "status": result.status, "message": result.message, "figures": len(result.figures)}
        for result in results
    ]


def arrays(folder: Path) -> dict[str, Any]:
    """Return all arrays of a Zarr group by their paths."""
    group = zarr.open_group(folder, mode="r")
    return {str(path.relative_to(folder).parent): group[str(path.relative_to(folder).parent)][...]
            for path in folder.rglob("zarr.json") if json.loads(path.read_text())["node_type"] == "array"}  # fmt: skip


def differences(output: Path, expected: Path) -> dict[str, float]:
    """Return the largest difference of each array, over the largest magnitude; colours as they are."""
    found = {}
    for name in SIZES:
        one, other = (arrays(folder / f"{name}.tif.zarr") for folder in (output, expected))
        assert {path: (array.shape, array.dtype) for path, array in one.items()} == {
            path: (array.shape, array.dtype) for path, array in other.items()
        }
        for path, values in one.items():
            error = np.abs(values.astype(float) - other[path]).max(initial=0)
            scale = 1.0 if values.dtype in (bool, np.uint8) else np.abs(other[path]).max(initial=1e-9)
            found[f"{name}/{path}"] = float(error / scale)
    return found


def compare(images: Path, folder: Path, count: int) -> dict[str, Any]:
    """Encode on `count` processes, twice, and compare with what one writes."""
    folder.mkdir()
    alone = encode_files(
        find_images([str(images)]), folder / "one", encoder(), model_name="", dtype="float32", kind="zarr"
    )
    statuses = {result.source.name: result.status for result in alone}

    def work(_rank: int) -> list[Any]:
        processes = join("cpu")
        lives = [split(images, folder / "split", processes, pictures=True) for _ in range(2)]
        leave(processes)
        return lives

    ranks = in_ranks(count, folder, work)
    left = sorted(path.name for path in (folder / "split").iterdir())
    return {
        "alone": statuses,
        "ranks": ranks,
        "left": left,
        "differences": differences(folder / "split", folder / "one"),
    }


def kill(images: Path, folder: Path) -> dict[str, Any]:
    """Kill the second process late, and run again; return what is there before and after."""
    folder.mkdir()
    limits = Limits("spilled")
    whole = images.parent / "two" / "split"

    def killed(rank: int) -> None:
        def stop(_source: Any, share: float, _pixels: int) -> None:
            if rank == 1 and share > 0.6:
                os.kill(os.getpid(), signal.SIGKILL)

        split(images, folder, join("cpu"), limits=limits, on_band=stop)

    def again(_rank: int) -> dict[str, Any]:
        shares: list[float] = []
        processes = join("cpu")
        results = split(images, folder, processes, limits=limits, on_band=lambda *band: shares.append(band[1]))
        leave(processes)
        return {"results": results, "first": shares[0]}

    in_ranks(2, folder / "ranks", killed, killed=1)
    before = sorted(path.name for path in folder.iterdir())
    ranks = in_ranks(2, folder / "ranks", again)
    left = sorted(path.name for path in folder.iterdir())
    return {"before": before, "ranks": ranks, "left": left, "differences": differences(folder, whole)}


def fail(images: Path, folder: Path) -> list[str]:
    """Return what each process says where features cannot be written by one of them."""
    folder.mkdir()

    def work(rank: int) -> str:
        processes = join("cpu")
        full = OSError(28, "No space left on device")
        said = ""
        with mock.patch.object(zarr_strips, "write_rows", side_effect=full if rank == 1 else None):
            try:
                split(images, folder / "out", processes)
            except OutputError as error:
                said = str(error)
        leave(processes)
        return said

    said: list[str] = in_ranks(2, folder, work)
    return [*said, *(path.name for path in (folder / "out").iterdir())]


def main(folder: Path) -> None:
    """Run all, and print."""
    torch.set_num_threads(1)
    images = make_images(folder / "images")
    assert len(SIZES) <= figures.MAX_PICTURED
    print(json.dumps(compare(images, folder / "two", 2)), flush=True)
    with (
        mock.patch.object(zarr_folder, "choose_chunk", return_value=(16, 32)),
        mock.patch.object(zarr_folder, "MASK_CHUNK", 64),
        mock.patch.object(zarr_strips, "MASK_CHUNK", 64),
    ):
        print(json.dumps(compare(images, folder / "three", 3)), flush=True)
        print(json.dumps(fail(images, folder / "full")), flush=True)
    print(json.dumps(kill(images, folder / "killed")), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
