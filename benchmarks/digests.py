"""What digests cost: processor time of loading and saving weights and features with and without them.

Each is done many times in turn, with and without, in one process, of files that are in the system's cache; what is
printed is the ratio of the medians.

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


def ratio(one: Callable[[], object], other: Callable[[], object], *, times: int) -> float:
    """Return by how much the first takes longer."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(times):
        for call, taken in zip((one, other), seconds, strict=True):
            start = time.process_time()
            call()
            taken.append(time.process_time() - start)
    return statistics.median(seconds[0][1:]) / statistics.median(seconds[1][1:])


@contextlib.contextmanager
def without_digests() -> Iterator[None]:
    """Let files be written without the time that digests take."""
    with mock.patch.object(tensor_files, "BlockDigests", NoDigests):
        yield


def main() -> None:
    """Print the ratios as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vision_longformer_base_deep", help="whose weights are loaded and saved")
    parser.add_argument("--side", type=int, default=1024, help="of the image whose features are read, in pixels")
    parser.add_argument("--times", type=int, default=7, help="how often; the first does not count")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = cast(VisionLongformer, create_model(given.model))
        path = save(model, folder / "m.safetensors")

        def saved_without() -> None:
            with without_digests():
                save(model, folder / "n.safetensors")

        found = {
            "weights loaded": ratio(lambda: load(path), lambda: load(path, verify=False), times=given.times),
            "weights saved": ratio(lambda: save(model, folder / "o.safetensors"), saved_without, times=given.times),
        }
        pixels = np.random.default_rng(0).integers(0, 256, (given.side, given.side, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "i.png")
        encoder = Encoder(cast(VisionLongformer, create_model("vision_longformer_nano")), stages=[1, 2, 3, 4])
        list(encode_files(find_images([str(folder / "i.png")]), folder, encoder, model_name="nano", dtype="float32"))
        file = folder / "i.png.safetensors"

        def read(*, verify: bool) -> None:
            for array in load_features(file, verify=verify).maps:
                array.tensor()

        found["features loaded"] = ratio(lambda: read(verify=True), lambda: read(verify=False), times=given.times)
        found["megabytes of weights"] = path.stat().st_size / 1e6
        found["megabytes of features"] = file.stat().st_size / 1e6
    print(json.dumps({name: round(value, 2) for name, value in found.items()}, indent=1))


if __name__ == "__main__":
    main()
