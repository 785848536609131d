"""Pictures of an image that is never whole in memory, and of its maps, made a band at a time.

H×W image or map, n rows, C channels
"""

from __future__ import annotations

import dataclasses

from vision_longformer.features.formats.encoded import Encoded
from vision_longformer.features.small_pictures import small_map, small_photograph
from vision_longformer.features.stage_pictures import STAGE_WIDTH
from vision_longformer.images import ImageError, Reader
from vision_longformer.images.thumbnails import encode_picture
from vision_longformer.reports.encoding_page import PHOTO_WIDTH, Entry, Figure


def streamed_entry(entry: Entry, encoded: Encoded, reader: Reader, *, channels: int) -> Entry:
    """Return `entry` with figures of the image, which is read once more, and of the stages whose maps were kept.

    Features need no picture: of an image that can no longer be read, the message says that its own is missing.

    Args:
        entry: Without figures.
        encoded: The image's features.
        reader: The image.
        channels: That the model takes.
    """
    figures, message = [], entry.message
    try:
        photo = encode_picture(small_photograph(reader, channels, max_width=PHOTO_WIDTH), max_width=PHOTO_WIDTH)
        figures.append(Figure("Image", "As the model sees it.", photo))
    except ImageError as error:
        reason = str(error).removeprefix(f"{reader.info.name}: ")
        missing = f"its picture is missing from the report, as it could not be read again: {reason}"
        message = f"{message}; {missing}" if message else missing
    for stage, stride, features in zip(encoded.stages, encoded.strides, encoded.maps, strict=True):
        height, width, _ = features.shape
        picture = encode_picture(small_map(features, max_width=STAGE_WIDTH), max_width=STAGE_WIDTH)
        caption = f"{width} × {height} tokens. Alike colours are alike features."
        figures.append(Figure(f"Stage {stage}", caption, picture, width * stride / encoded.size[1]))
    return dataclasses.replace(entry, message=message, figures=tuple(figures))
