from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from vision_longformer.prediction.draw_segmentation import draw_classes

GRAY = Image.new("RGB", (90, 60), (128, 128, 128))
CLASSES = ("background", "water", "a forest of many trees", "road")


def test_classes_are_tinted_and_the_background_is_not() -> None:
    labels = np.zeros((60, 90), np.uint8)
    labels[10:20, 30:50], labels[40:, 70:] = 1, 2
    drawn = np.array(draw_classes(GRAY, labels, classes=CLASSES, legend=False))
    assert drawn.shape == (60, 90, 3)
    assert (drawn[labels == 0] == 128).all()
    colours = [np.unique(drawn[labels == number], axis=0) for number in (1, 2)]
    assert [len(own) for own in colours] == [1, 1]
    assert np.abs(colours[0].astype(int) - colours[1]).max() > 30
    everything = np.array(draw_classes(GRAY, labels, classes=CLASSES, background=None, legend=False))
    assert (everything[labels == 0] != 128).any()


def test_the_legend_stands_below_and_grows_with_the_classes() -> None:
    labels = np.zeros((60, 90), np.uint8)
    assert draw_classes(GRAY, labels, classes=CLASSES).size == (90, 60)  # nothing to tell
    labels[:, 30:60], labels[:, 60:] = 1, 3
    two = draw_classes(GRAY, labels, classes=CLASSES)
    labels[30:, 60:] = 2
    three = draw_classes(GRAY, labels, classes=CLASSES)
    assert two.width == three.width == 90
    assert 60 < two.height < three.height


def test_sizes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"labels: have the size 90×60 \(height×width\), and the image 60×90"):
        draw_classes(GRAY, np.zeros((90, 60), np.uint8), classes=CLASSES)
