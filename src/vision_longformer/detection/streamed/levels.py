"""The levels of RetinaNet's pyramid, each through the head by bands of rows.

H×W level, A anchors of a position, K classes, n candidates
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import cast

from torch import Tensor

from vision_longformer.detection.anchors import rows_of_image
from vision_longformer.detection.candidates import Candidates, merge
from vision_longformer.detection.retinanet import Head, RetinaNet
from vision_longformer.detection.streamed.head import StreamedHead
from vision_longformer.fpn.pyramid import FeaturePyramid
from vision_longformer.fpn.streamed.pyramid import StreamedPyramid
from vision_longformer.padding import Size, size_at
from vision_longformer.streaming.maps import StageMap


class Levels:
    """The levels of a detector's pyramid for one image.

    Args:
        model: In evaluation mode.
        size: (height, width) of the image in pixels.
        band_bytes: What a band may hold. One row is taken even if it holds more.
        band_rows: Rows in a band, in place of `band_bytes`.

    Attributes:
        work: Multiply-adds of each level, those of the 3×3 convolutions.
        bytes: What is held at most beside the backbone's maps.
    """

    def __init__(self, model: RetinaNet, size: Size, *, band_bytes: int, band_rows: int | None) -> None:
        self.model, self.size = model, size
        self.band_bytes, self.band_rows = band_bytes, band_rows
        self._strides = cast(FeaturePyramid, model.backbone).strides
        self._anchors: int = model.anchor_generator.num_anchors_per_location()[0]
        sizes = [size_at(size, stride) for stride in self._strides]
        position = self._work_of_position()
        self.work = [position * height * width for height, width in sizes]
        # The finest level has the widest rows.
        rows = min(self._rows_of_band(sizes[0][1]), sizes[0][0])
        self.bytes = sizes[0][1] * (rows * self._position_bytes() + self._kept_bytes())

    def run(self, maps: Sequence[StageMap], *, progress: Callable[[float], None]) -> list[tuple[Candidates, Tensor]]:
        """Return the best candidates of each level, and their (n, 4) anchors.

        Args:
            maps: Of the backbone, finest first.
            progress: Called after each band with the multiply-adds that are done.
        """
        device = next(self.model.parameters()).device
        pyramid = StreamedPyramid(cast(FeaturePyramid, self.model.backbone), maps, self.size, device=device)
        levels, done = [], 0.0
        for level, work in enumerate(self.work):
            found: Candidates | None = None
            for band, bottom in self._bands(pyramid, level):
                if band is not None:
                    found = band if found is None else merge([found, band], self.model.topk_candidates)
                progress(done + work * bottom / pyramid.sizes[level][0])
            done += work
            assert found is not None
            levels.append((found, self._anchors_of(found, level, width=pyramid.sizes[level][1])))
        return levels

    def _bands(self, pyramid: StreamedPyramid, level: int) -> Iterator[tuple[Candidates | None, int]]:
        """Yield the best candidates of each band, None where no row is finished yet, and where the band ended."""
        height, width = pyramid.sizes[level]
        head = StreamedHead(cast(Head, self.model.head), height, pyramid.real[level])
        step, first = self._rows_of_band(width), 0
        for top in range(0, height, step):
            bottom = min(top + step, height)
            logits, offsets = head.push(pyramid.rows(level, top, bottom))
            yield self._choose(logits, offsets, pyramid.real[level], first), bottom
            first += logits.shape[2]

    def _choose(self, logits: Tensor, offsets: Tensor, real: Tensor | None, first: int) -> Candidates | None:
        """Return the best of (1, A×K, n, W) logits, whose first row is number `first` of the level."""
        rows, width, classes = logits.shape[2], logits.shape[3], self.model.config.num_classes
        if rows == 0:
            return None
        if real is not None:
            logits = logits.masked_fill(~real[first : first + rows], float("-inf"))
        return self.model.choose(
            rows_of_image(logits, 0, (rows, width), width=classes),
            rows_of_image(offsets, 0, (rows, width), width=4),
            first=first * width * self._anchors * classes,
        )

    def _anchors_of(self, found: Candidates, level: int, *, width: int) -> Tensor:
        boxes: Tensor = self.model.anchor_generator.of_places(
            found.places // self.model.config.num_classes,
            level=level,
            stride=self._strides[level],
            width=width,
            like=found.offsets,
        )
        return boxes

    # --- what it costs ----------------------------------------------------------------------------------------

    @property
    def _outputs(self) -> int:
        """Logits and offsets of a position."""
        return self._anchors * (self.model.config.num_classes + 4)

    def _inputs(self) -> list[int]:
        """Channels that each convolution of a tower sees."""
        config = self.model.config
        return [config.pyramid_width, *(config.head_width,) * config.head_depth]

    def _work_of_position(self) -> int:
        *towers, last = self._inputs()
        width = self.model.config.pyramid_width
        return 9 * (width**2 + 2 * sum(towers) * self.model.config.head_width + last * self._outputs)

    def _rows_of_band(self, width: int) -> int:
        if self.band_rows is not None:
            return self.band_rows
        return max(1, self.band_bytes // (width * self._position_bytes()))

    def _position_bytes(self) -> int:
        """Return what one position of a band holds at most while it goes through pyramid and head.

        That is a level's map, what a convolution reads and writes, each with a copy of its own in which it is
        reordered; logits and offsets in several orders, and what is done with their scores.
        """
        config = self.model.config
        inside = config.pyramid_width + 4 * max(config.pyramid_width, config.head_width)
        return self._itemsize * (inside + 4 * self._outputs)

    def _kept_bytes(self) -> int:
        """Return what the towers keep of one column between two bands."""
        return self._itemsize * 2 * 2 * sum(self._inputs())

    @property
    def _itemsize(self) -> int:
        parameter: Tensor = next(self.model.parameters())
        return parameter.itemsize
