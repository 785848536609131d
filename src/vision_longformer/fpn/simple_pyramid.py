"""A pyramid from a single map, for backbones without stages, such as a plain ViT.

Li et al., Exploring Plain Vision Transformer Backbones for Object Detection, ECCV 2022,
https://arxiv.org/abs/2203.16527: deconvolutions make the finer maps, max pooling the coarser ones.
"""

from __future__ import annotations

from collections.abc import Sequence

from timm.layers import LayerNorm2d
from torch import Tensor, nn


class SimplePyramid(nn.Module):
    """Turn one map into maps of several strides.

    Args:
        channels: Of the map; each step to a finer one halves them.
        stride: Of the map.
        strides: Of the maps that are made: up to four times finer, or coarser by factors of 2.

    Raises:
        ValueError: A stride cannot be made.
    """

    def __init__(self, channels: int, *, stride: int, strides: Sequence[int]) -> None:
        super().__init__()
        branches, self.channels = [], tuple[int, ...]()
        for wanted in strides:
            out = channels
            if wanted >= stride and wanted % stride == 0:
                branch: nn.Module = nn.MaxPool2d(wanted // stride) if wanted > stride else nn.Identity()
            elif wanted * 2 == stride:
                out = channels // 2
                branch = nn.ConvTranspose2d(channels, out, kernel_size=2, stride=2)
            elif wanted * 4 == stride:
                out = channels // 4
                branch = nn.Sequential(
                    nn.ConvTranspose2d(channels, channels // 2, kernel_size=2, stride=2),
                    LayerNorm2d(channels // 2),
                    nn.GELU(),
                    nn.ConvTranspose2d(channels // 2, out, kernel_size=2, stride=2),
                )
            else:
                raise ValueError(f"strides={tuple(strides)}: {wanted} cannot be made from a single map of {stride}")
            branches.append(branch)
            self.channels += (out,)
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the maps of a (B, C, H, W) map."""
        return [branch(x) for branch in self.branches]
