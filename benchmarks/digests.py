"""What digests cost: time to load and save weights, and to read features, with and without them.

Each is done many times in turn, with and without, in one process, of files that are in the system's cache; what is
printed are the ratios of the medians, of elapsed time and of processor time. Saving waits for the disk.

    python benchmarks/digests.py
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast
from unittest import mock

import numpy as np
import torch
from PIL import Image

from vision_longformer import Encoder, VisionLongformer, create_model, load, save
from vision_longformer.features.extract import encode_files
from vision_longformer.features.load import load_features
from vision_longformer.images.find import find_images
from vision_longformer.utils import tensor_files
from vision_longformer.utils.digests import LENGTH, BlockDigests


class NoDigests(BlockDigests):
    """Gives zeros in place of digests."""

    def add(self, data: memoryview) -> Iterator[str]:
        """Count bytes."""
        self._filled += len(data)
        while self._filled >= self.block:
            self._filled -= self.block
            yield "0" * LENGTH

    def close(self) -> Iterator[str]:
        """Give the last one."""
        if self._filled:
            self._filled = 0
            yield "0" * LENGTH


def ratios(one: Callable[[], object], other: Callable[[], object], *, times: int) -> dict[str, float]:
    """Return by how much the first takes longer."""
    clocks = {"elapsed": time.perf_counter, "processor": time.process_time}
    taken: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in clocks}
    for attempt in range(times + 1):
        for number, call in enumerate((one, other)):
            begun = {name: clock() for name, clock in clocks.items()}
            call()
            for name, clock in clocks.items():
                taken[name][number].extend([clock() - begun[name]] if attempt else [])
    return {name: statistics.median(first) / statistics.median(second) for name, (first, second) in taken.items()}


@contextlib.contextmanager
def without_digests() -> Iterator[None]:
    """Let files be written without the time that digests take."""
    with mock.patch.object(tensor_files, "BlockDigests", NoDigests):
        yield


def main() -> None:
    """Print the ratios as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vision_longformer_base_deep", help="whose weights are loaded and saved")
    parser.add_argument("--side", type=int, default=2048, help="of the image whose features are read, in pixels")
    parser.add_argument("--times", type=int, default=15, help="how often, after one that does not count")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = cast(VisionLongformer, create_model(given.model))
        path = save(model, folder / "m.safetensors")

        def saved_without() -> None:
            with without_digests():
                save(model, folder / "n.safetensors")

        found: dict[str, dict[str, float]] = {
            "weights loaded": ratios(lambda: load(path), lambda: load(path, verify=False), times=given.times),
            "weights saved": ratios(lambda: save(model, folder / "o.safetensors"), saved_without, times=given.times),
        }
        pixels = np.random.default_rng(0).integers(0, 256, (given.side, given.side, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "i.png")
        encoder = Encoder(cast(VisionLongformer, create_model("vision_longformer_nano")), stages=[1, 2, 3, 4])
        list(encode_files(find_images([str(folder / "i.png")]), folder, encoder, model_name="nano", dtype="float32"))
        file = folder / "i.png.safetensors"

        def read(*, verify: bool) -> None:
            for array in load_features(file, verify=verify).maps:
                array.tensor()

        def read_rows(*, verify: bool) -> None:
            for array in load_features(file, verify=verify).maps:
                for top in range(0, array.shape[1], 32):
                    array[:, top : top + 32]

        found["maps of features read"] = ratios(
            lambda: read(verify=True), lambda: read(verify=False), times=given.times
        )
        found["the same, 32 rows at a time"] = ratios(
            lambda: read_rows(verify=True), lambda: read_rows(verify=False), times=given.times
        )
        found["megabytes"] = {"weights": path.stat().st_size / 1e6, "features": file.stat().st_size / 1e6}
    print(json.dumps({name: {key: round(x, 2) for key, x in each.items()} for name, each in found.items()}, indent=1))


if __name__ == "__main__":
    main()
