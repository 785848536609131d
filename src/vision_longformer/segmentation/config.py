"""What a semantic segmentation model is made of."""

from __future__ import annotations

from dataclasses import dataclass

from vision_longformer.config import _require, _require_integer
from vision_longformer.fpn.strides import require_strides


@dataclass(frozen=True)
class SemanticConfig:
    """A feature pyramid with a class for every pixel (Kirillov et al., https://arxiv.org/abs/1901.02446).

    Attributes:
        num_classes: Classes of pixels.
        strides: Of the backbone's maps, each twice the one before.
        pyramid_width: Channels of the pyramid.
        head_width: Channels in which its levels are added up.
        norm_groups: Groups of channels that are normalised together; divides `head_width`.
        ignored_label: Label of pixels that no loss is taken of; None where every pixel has a class.
    """

    num_classes: int
    strides: tuple[int, ...] = (4, 8, 16, 32)
    pyramid_width: int = 256
    head_width: int = 128
    norm_groups: int = 32
    ignored_label: int | None = 255

    def __post_init__(self) -> None:
        object.__setattr__(self, "strides", tuple(self.strides))
        for field in ("num_classes", "pyramid_width", "head_width", "norm_groups"):
            _require_integer(getattr(self, field), field=field, minimum=1)
        require_strides(self.strides)
        _require(
            self.head_width % self.norm_groups == 0,
            field="norm_groups",
            value=self.norm_groups,
            rule=f"must divide the head width {self.head_width}",
        )
        _require(
            self.ignored_label is None
            or (isinstance(self.ignored_label, int) and not 0 <= self.ignored_label < self.num_classes),
            field="ignored_label",
            value=self.ignored_label,
            rule=f"must be null or an integer that is no class number, 0 to {self.num_classes - 1}",
        )
