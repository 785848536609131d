"""Pictures of an encoded image for people: itself, its stages, and where a global token looks.

Of an image that is never whole in memory they are made a band at a time, and it is read once more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from vision_longformer.backbone import VisionLongformer
from vision_longformer.features.formats.encoded import Encoded
from vision_longformer.features.small_pictures import small_map, small_photograph
from vision_longformer.features.stage_pictures import STAGE_WIDTH, StagePicture, StagePictures
from vision_longformer.features.strategies import EncodedImage
from vision_longformer.images import ImageError, Pixels, Reader
from vision_longformer.images.thumbnails import Picture, encode_picture, heat_overlay, photograph

MAX_PICTURED = 300  # images of a run; those beyond are only listed
NAMES = 5  # classes that are named
PHOTO_WIDTH = 960  # pixels of the photograph and of the attention laid over it


@dataclass(frozen=True)
class Figure:
    """A picture, what it shows, and a sentence on how to read it.

    Attributes:
        title: What it shows.
        caption: How to read it.
        picture: The picture.
        extent: Its width over that of the image: the last tokens of a map may reach past the image's edge.
    """

    title: str
    caption: str
    picture: Picture
    extent: float = 1.0


def figures_of(image: EncodedImage, model: VisionLongformer) -> tuple[tuple[Figure, ...], str]:
    """Return what is to be seen of an image, and a sentence on what is not.

    Features need no picture: an image that can no longer be read merely lacks its own.

    Args:
        image: The image, encoded with pictures.
        model: That encoded it.
    """
    names = seen_in(image.encoded.embedding, model)
    if image.reader is not None:
        return streamed_figures(image.encoded, image.reader, channels=model.in_chans, names=names)
    if image.pixels is None or image.pictures is None:
        return (), ""
    return whole_figures(image.pixels, image.pictures, names=names), ""


@torch.inference_mode()
def seen_in(embedding: Tensor, model: VisionLongformer) -> str:
    """Say which classes a classifier takes an image for, the most probable first; "" if the classes have no names."""
    names = getattr(model, "pretrained_cfg", {}).get("label_names")
    if names is None or len(names) != model.num_classes:
        return ""
    head = cast(nn.Linear, model.head)
    best = head(embedding.to(head.weight)).softmax(0).topk(min(NAMES, len(names)))
    shown = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return "Taken for " + ", ".join(f"{names[index]} ({share:.0%})" for index, share in shown) + "."


def whole_figures(pixels: Pixels, pictures: StagePictures, *, names: str = "") -> tuple[Figure, ...]:
    """Return figures of an image, its stages, what looks like its middle, and the attention of the global token."""
    photo = photograph(pixels.values, pixels.valid, max_width=PHOTO_WIDTH)
    height, width = pixels.valid.shape
    caption = f"As the model sees it, turned upright. {names}".strip()
    figures = [Figure("Image", caption, encode_picture(photo, max_width=PHOTO_WIDTH))]
    for number, stage in enumerate(pictures.stages, start=1):
        figures.append(_of_stage(number, stage.picture, stage.tokens, stage.tokens[1] * stage.stride / width))

    def overlay(heat: Tensor, stage: StagePicture) -> Picture:
        covered = (height / (stage.tokens[0] * stage.stride), width / (stage.tokens[1] * stage.stride))
        return encode_picture(heat_overlay(photo, heat, covered=covered), max_width=PHOTO_WIDTH)

    if pictures.alike is not None:
        title = f"Like the middle, stage {len(pictures.stages)}"
        caption = "Bright: features like those in the middle of the image, by the cosine of their differences from all."
        figures.append(Figure(title, caption, overlay(pictures.alike, pictures.stages[-1])))
    if pictures.attention is not None:
        seen = pictures.attention[pictures.attention > 0]
        title = f"Global token, stage {pictures.attention_stage}"
        least, most = (
            f"{float(share):.2g}" if share < 100 else f"{float(share):.0f}" for share in (seen.min(), seen.max())
        )
        caption = f"Bright: much attention. From {least} to {most} times an even share, on a logarithmic scale."
        picture = overlay(_logarithmic(pictures.attention), pictures.stages[pictures.attention_stage - 1])
        figures.append(Figure(title, caption, picture))
    return tuple(figures)


def _logarithmic(attention: Tensor) -> Tensor:
    """Return (H, W) attention, which a few tokens have a hundredfold of, for a picture: above 0 where any is seen."""
    least = attention[attention > 0].min()
    return torch.where(attention > 0, (attention / least).log().clamp(min=1e-6), 0)


def streamed_figures(
    encoded: Encoded, reader: Reader, *, channels: int, names: str = ""
) -> tuple[tuple[Figure, ...], str]:
    """Return figures of an image that is read by rows, and of the stages whose maps were kept; see `figures_of`."""
    figures, missing = [], ""
    try:
        photo = encode_picture(small_photograph(reader, channels, max_width=PHOTO_WIDTH), max_width=PHOTO_WIDTH)
        figures.append(Figure("Image", f"As the model sees it. {names}".strip(), photo))
    except ImageError as error:
        reason = str(error).removeprefix(f"{reader.info.name}: ")
        missing = f"its picture is missing from the report, as it could not be read again: {reason}"
    for stage, stride, features in zip(encoded.stages, encoded.strides, encoded.maps, strict=True):
        height, width, _ = features.shape
        picture = encode_picture(small_map(features, max_width=STAGE_WIDTH), max_width=STAGE_WIDTH)
        figures.append(_of_stage(stage, picture, (height, width), width * stride / encoded.size[1]))
    return tuple(figures), missing


def _of_stage(number: int, picture: Picture, tokens: tuple[int, int], extent: float) -> Figure:
    caption = f"{tokens[1]} × {tokens[0]} tokens. Alike colours are alike features."
    return Figure(f"Stage {number}", caption, picture, extent)
