"""Segmentation by strokes: a head that was fitted to what a person painted, with the frozen backbone that it is for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from vision_longformer.backbone import VisionLongformer
from vision_longformer.config import ModelConfig
from vision_longformer.datasets.labels import Split, Wanted, read_labels
from vision_longformer.evaluation.loop import EvaluationSetup
from vision_longformer.evaluation.segmentation import SemanticResult, evaluate_semantic
from vision_longformer.images import MAX_PIXELS
from vision_longformer.padding import Size
from vision_longformer.segmentation.config import SemanticConfig
from vision_longformer.segmentation.token_grid import TokenGrid
from vision_longformer.segmentation.token_head import TokenHead, tokens_to_pixels
from vision_longformer.training.trained import Trained
from vision_longformer.utils.steps import finish
from vision_longformer.utils.tensor_files import write_tensors
from vision_longformer.utils.words import shown
from vision_longformer.weights import (
    METADATA_KEY,
    check_class_names,
    check_fit,
    check_preprocessing,
    load_exactly,
    read_tensors,
    weights_digest,
)

FORMAT_VERSION = 1
TASK = "stroke_segmentation"
DTYPES = {"float16": torch.float16, "float32": torch.float32}
HEAD_PARTS = ("weight", "mean", "std")


@dataclass(frozen=True)
class HeadFacts:
    """What a head was fitted to.

    Attributes:
        stages: Of the backbone, counted from 1, whose features it takes.
        dtype: In which they were stored; others are rounded so before the head sees them.
        backbone_sha256: Digest of the backbone's weights; a head is for no others.
        pixel_size: (height, width) of the images' pixels in micrometres; None if they did not say.

    Raises:
        ValueError: Something is impossible.
    """

    stages: tuple[int, ...]
    dtype: str
    backbone_sha256: str
    pixel_size: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not self.stages or any(type(stage) is not int for stage in self.stages) or min(self.stages) < 1:
            raise ValueError(f"stages={self.stages!r}: must be numbers of stages, counted from 1")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype={self.dtype!r}: must be one of {', '.join(DTYPES)}")
        if not isinstance(self.backbone_sha256, str):
            raise ValueError(f"backbone_sha256={self.backbone_sha256!r}: must be a text")
        if self.pixel_size is not None and not all(isinstance(side, float) and side > 0 for side in self.pixel_size):
            raise ValueError(f"pixel_size={self.pixel_size!r}: must be two numbers above 0")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Build what JSON described."""
        size = values["pixel_size"]
        size = None if size is None else (float(size[0]), float(size[1]))
        return cls(tuple(values["stages"]), values["dtype"], values["backbone_sha256"], size)


class StrokeSegmenter(nn.Module):
    """A backbone and a head on its frozen features.

    Args:
        backbone: The backbone.
        facts: Of the head.
        num_classes: That it tells apart.

    Raises:
        ValueError: The backbone has no such stage.
    """

    def __init__(self, backbone: VisionLongformer, facts: HeadFacts, num_classes: int) -> None:
        super().__init__()
        self.backbone, self.facts = backbone, facts
        self.config = SemanticConfig(num_classes=num_classes)
        stages = backbone.config.stages
        if max(facts.stages) > len(stages):
            raise ValueError(f"stages={facts.stages}: the backbone has {len(stages)}")
        self.bias = nn.Buffer(torch.zeros(num_classes))
        for stage in facts.stages:
            width = stages[stage - 1].width
            for name, shape in zip(HEAD_PARTS, ((width, num_classes), (width,), (width,)), strict=True):
                self.register_buffer(f"{name}{stage}", torch.ones(shape))

    @property
    def head(self) -> TokenHead:
        """The head."""
        weights, means, stds = (
            tuple(getattr(self, f"{name}{stage}").cpu().numpy() for stage in self.facts.stages) for name in HEAD_PARTS
        )
        return TokenHead(weights, self.bias.cpu().numpy(), means, stds)

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels per token of the stages that the head takes."""
        return tuple(self.backbone.config.strides[stage - 1] for stage in self.facts.stages)

    def with_head(self, head: TokenHead) -> Self:
        """Take the numbers of a head."""
        self.bias.copy_(torch.from_numpy(head.bias))
        for name, arrays in zip(HEAD_PARTS, (head.weights, head.means, head.stds), strict=True):
            for stage, array in zip(self.facts.stages, arrays, strict=True):
                getattr(self, f"{name}{stage}").copy_(torch.from_numpy(array))
        return self

    @torch.inference_mode()
    def logits(self, images: Tensor, image_sizes: Sequence[Size]) -> Tensor:
        """Return (B, K, H, W) logits of padded images, one after the other as each would be alone."""
        found = images.new_zeros(len(images), self.config.num_classes, *images.shape[2:])
        for number, (height, width) in enumerate(image_sizes):
            maps = self.backbone.forward_intermediates(
                images[number : number + 1, :, :height, :width],
                indices=[stage - 1 for stage in self.facts.stages],
                intermediates_only=True,
            )
            grid = TokenGrid([self.rounded(stage_map[0]).cpu().numpy() for stage_map in maps], self.strides)
            values = self.head.on(grid)(grid.whole)  # (h, w, K)
            pixels = tokens_to_pixels(np.asarray(values), stride=grid.stride, size=(height, width))
            found[number, :, :height, :width] = torch.from_numpy(pixels).permute(2, 0, 1)
        return found

    def rounded(self, features: Tensor) -> Tensor:
        """Return features as they were stored when the head was fitted, as float32."""
        return features.to(DTYPES[self.facts.dtype]).float()


class StrokeModel(Trained):
    """A head fitted to strokes, and its backbone."""

    gives = "pixels"

    @classmethod
    def load(cls, path: Path, about: dict[str, Any]) -> Self:
        if about.get("format_version") != FORMAT_VERSION:
            raise ValueError(
                f"{path}: format_version is {shown(about.get('format_version'))}, this version of the library reads "
                f"{FORMAT_VERSION}"
            )
        try:
            classes = check_class_names(about["class_names"], num_classes=len(about["class_names"])) or []
            config = ModelConfig.from_dict(about["config"])
            preprocessing = check_preprocessing(about["preprocessing"], in_chans=config.in_chans)
            facts = HeadFacts.from_dict(about["head"])

            def build() -> StrokeSegmenter:
                return StrokeSegmenter(VisionLongformer(config), facts, len(classes))

            check_fit(path, build)
            model = build()
        except (KeyError, TypeError, IndexError, ValueError) as error:
            raise ValueError(f"{path}: the description in its metadata is damaged: {error}") from error
        load_exactly(model, read_tensors(path)[0], source=str(path))
        if weights_digest(model.backbone) != facts.backbone_sha256:
            raise ValueError(
                f"{path}: its backbone is not the one whose features the head was fitted to; save the head anew on the "
                "page of `vil explore`"
            )
        if not all(bool((getattr(model, f"std{stage}") > 0).all()) for stage in facts.stages):
            raise ValueError(f"{path}: a deviation of its features is not above 0")
        sizes = {"side": None, "max_side": None, "scale": 1.0}
        return cls(model.eval(), tuple(classes), {"interpolation": "bilinear"} | preprocessing | sizes, TASK)

    def read(self, data: str | Path, split: str, *, skip_invalid: bool = False) -> Split:
        wanted = Wanted(
            "classes", classes=self.classes, skip_invalid=skip_invalid, read_labels=False, reading=self.reading
        )
        return finish(read_labels(Path(data), split, wanted))

    def evaluate(self, split: Split, how: EvaluationSetup, *, max_pixels: int = MAX_PIXELS) -> SemanticResult | None:
        assert self.classes is not None
        model = self.model.to(how.device)
        return evaluate_semantic(model, split, self.classes, self.preprocessing, how, max_pixels=max_pixels)


def save_stroke_model(
    model: StrokeSegmenter, path: Path, *, classes: Sequence[str], preprocessing: dict[str, Any]
) -> None:
    """Write a head and its backbone so that `load_weights` needs nothing else.

    Args:
        model: The model.
        path: A file whose name ends in .safetensors.
        classes: Names.
        preprocessing: "mean" and "std" that features were made with, and "reading" if it says more than the file does.

    Raises:
        OSError: The disk is full, or the place cannot be written; a previous file is as it was.
    """
    facts = model.facts
    head = {
        "stages": list(facts.stages),
        "dtype": facts.dtype,
        "backbone_sha256": facts.backbone_sha256,
        "pixel_size": None if facts.pixel_size is None else list(facts.pixel_size),
    }
    metadata = {
        "format_version": FORMAT_VERSION,
        "content": "strokes",
        "task": TASK,
        "config": model.backbone.config.to_dict(),
        "class_names": list(classes),
        "preprocessing": preprocessing,
        "head": head,
    }
    write_tensors(path, model.state_dict(), {METADATA_KEY: json.dumps(metadata)})
