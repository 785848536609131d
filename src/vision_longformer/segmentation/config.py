"""What a semantic segmentation model is made of."""

from __future__ import annotations

from dataclasses import dataclass

from vision_longformer.fpn.strides import require_strides
from vision_longformer.utils.checks import impossible, require_integers

UNLABELLED = -100  # label of pixels that no loss is taken of, whatever the settings say: there is no pixel


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
        require_integers(self, "num_classes", "pyramid_width", "head_width", "norm_groups")
        require_strides(self.strides)
        if self.head_width % self.norm_groups != 0:
            raise impossible("norm_groups", self.norm_groups, f"must divide the head width {self.head_width}")
        ignored = self.ignored_label
        if ignored is not None and (not isinstance(ignored, int) or 0 <= ignored < self.num_classes):
            rule = f"must be null or an integer that is no class number, 0 to {self.num_classes - 1}"
            raise impossible("ignored_label", ignored, rule)
