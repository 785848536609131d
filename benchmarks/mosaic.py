"""An image of any size: a photograph repeated, as a tiled BigTIFF that is written a row of tiles at a time.

python benchmarks/mosaic.py OUTPUT.tif [--size 32768x32768] [--tile 512] [--compression none|deflate]

Every other copy is mirrored, so that edges meet, and each row of copies begins elsewhere.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from vision_longformer.utils.atomic_files import replacing

PHOTO = Path(__file__).parent.parent / "examples" / "seeding_by_Clements_Engelhardt.jpg"
SHIFT = 997  # pixels by which each row of copies begins further left


class Mosaic:
    """Gives rows of the mosaic.

    Args:
        photo: (H, W, 3) uint8.
        width: Of the mosaic in pixels.
    """

    def __init__(self, photo: NDArray[np.uint8], width: int) -> None:
        self._pair = np.concatenate([photo, photo[:, ::-1]], axis=1)
        self._width = width

    def rows(self, top: int, bottom: int) -> NDArray[np.uint8]:
        """Return rows `top` to `bottom`, (n, width, 3)."""
        return np.stack([self._row(number) for number in range(top, bottom)])

    def _row(self, number: int) -> NDArray[np.uint8]:
        height = len(self._pair)
        copy, inside = divmod(number, height)
        source = self._pair[height - 1 - inside if copy % 2 else inside]
        row: NDArray[np.uint8] = source[(np.arange(self._width) + SHIFT * copy) % len(source)]
        return row


def tiles(mosaic: Mosaic, height: int, width: int, side: int) -> Iterator[NDArray[np.uint8]]:
    """Yield the mosaic's tiles row by row; those at the edges are filled with zeros."""
    for top in range(0, height, side):
        rows = mosaic.rows(top, min(top + side, height))
        padded = np.zeros((side, -(-width // side) * side, 3), np.uint8)
        padded[: len(rows), :width] = rows
        for left in range(0, padded.shape[1], side):
            yield np.ascontiguousarray(padded[:, left : left + side])


def write_mosaic(path: Path, height: int, width: int, *, side: int = 512, compression: str = "none") -> None:
    """Write the mosaic of the sample photograph; after an error, what was at `path` is as it was."""
    photo = np.asarray(Image.open(PHOTO).convert("RGB"))
    options: dict[str, Any] = {} if compression == "none" else {"compression": "zlib", "predictor": True}
    with replacing(path) as temporary, tifffile.TiffWriter(temporary, bigtiff=True) as file:
        file.write(
            tiles(Mosaic(photo, width), height, width, side),
            shape=(height, width, 3),
            dtype=np.uint8,
            tile=(side, side),
            photometric="rgb",
            **options,
        )


def parse_size(text: str) -> tuple[int, int]:
    """Return (height, width) of text such as 32768x32768."""
    match = re.fullmatch(r"([1-9]\d*)[x×]([1-9]\d*)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text}: write height and width in pixels, such as 32768x32768")
    return int(match[1]), int(match[2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--size", type=parse_size, default=(32768, 32768), help="HEIGHTxWIDTH in pixels")
    parser.add_argument("--tile", type=int, default=512, help="side of a tile in pixels, a multiple of 16")
    parser.add_argument("--compression", choices=["none", "deflate"], default="none")
    arguments = parser.parse_args()
    write_mosaic(arguments.output, *arguments.size, side=arguments.tile, compression=arguments.compression)
    print(f"{arguments.output}: {arguments.output.stat().st_size / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
