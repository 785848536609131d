from __future__ import annotations

import base64
import io

import pytest
import torch
from PIL import Image

from vision_longformer.images.thumbnails import (
    NEUTRAL,
    encode_picture,
    heat_overlay,
    inferno,
    photograph,
    principal_colours,
    shrink_picture,
)

HEIGHT, WIDTH = 5, 7


def test_the_strongest_differences_of_features_become_the_colours() -> None:
    strongest = torch.linspace(-1, 1, HEIGHT * WIDTH).view(HEIGHT, WIDTH)
    second = torch.randn(HEIGHT, WIDTH) * 0.01
    directions = torch.linalg.qr(torch.randn(11, 2)).Q
    picture = principal_colours(
        3 + strongest[..., None] * directions[:, 0] + second[..., None] * directions[:, 1], None
    )
    red, green = (torch.corrcoef(torch.stack([a.flatten(), b.flatten().float()]))[0, 1] for a, b in (
        (strongest, picture[..., 0]), (second, picture[..., 1])
    ))  # fmt: skip
    assert abs(red) > 0.99
    assert abs(green) > 0.9


def test_the_same_features_give_the_same_colours_in_any_order() -> None:
    features = torch.randn(HEIGHT, WIDTH, 11, dtype=torch.float32)
    upside_down = principal_colours(features.flip(0), None).flip(0)
    assert (principal_colours(features, None).int() - upside_down.int()).abs().max() <= 1


def test_what_is_not_valid_is_gray_and_changes_no_colour() -> None:
    features, valid = torch.randn(HEIGHT, WIDTH, 4), torch.rand(HEIGHT, WIDTH) > 0.3
    picture = principal_colours(features, valid)
    assert (picture[~valid] == NEUTRAL).all()
    assert torch.equal(principal_colours(torch.where(valid[..., None], features, torch.nan), valid), picture)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_few_channels_and_even_maps_have_pictures_too(channels: int) -> None:
    assert principal_colours(torch.randn(HEIGHT, WIDTH, channels), None).shape == (HEIGHT, WIDTH, 3)
    assert principal_colours(torch.ones(HEIGHT, WIDTH, channels), None).unique().tolist() == [NEUTRAL]


def test_inferno_goes_from_dark_to_bright() -> None:
    colours = inferno(torch.linspace(0, 1, 50))
    brightness = colours @ torch.tensor([0.299, 0.587, 0.114])
    assert (brightness.diff() > 0).all()
    torch.testing.assert_close(colours[-1] * 255, torch.tensor([252.0, 255, 164]))


def test_heat_is_laid_where_it_belongs() -> None:
    heat = torch.ones(2, 3)
    heat[1, 2] = 5
    overlay = heat_overlay(torch.full((20, 30, 3), 90, dtype=torch.uint8), heat).float().mean(dim=-1)
    assert overlay.shape == (20, 30)
    assert overlay[-1, -1] == overlay.max() > 100
    assert overlay[0, 0] == overlay.min() < 50


def test_heat_is_aligned_with_a_photograph_that_covers_a_part_of_it() -> None:
    heat = torch.tensor([[1.0, 2.0], [3.0, 9.0]])
    photo = torch.full((20, 30, 3), 90, dtype=torch.uint8)
    part = heat_overlay(photo, heat, covered=(0.5, 1.0)).float().mean(dim=-1)
    whole = heat_overlay(torch.full((40, 30, 3), 90, dtype=torch.uint8), heat).float().mean(dim=-1)
    assert torch.equal(part, whole[:20])


def test_what_was_not_seen_has_no_heat_and_takes_no_colour() -> None:
    heat = torch.tensor([[0.0, 4.0, 5.0]])
    overlay = heat_overlay(torch.full((20, 30, 3), 90, dtype=torch.uint8), heat)
    assert overlay[:, :10].unique().tolist() == [90]
    assert torch.equal(
        overlay[:, 10:12], heat_overlay(torch.full_like(overlay, 90), torch.tensor([[4.0, 4, 5]]))[:, 10:12]
    )


def test_photographs_shrink_and_show_one_channel_as_gray() -> None:
    picture = photograph(torch.rand(20, 30, 1), torch.ones(20, 30, dtype=torch.bool), max_width=15)
    assert picture.shape == (10, 15, 3)
    assert torch.equal(picture[..., 0], picture[..., 2])


def test_pictures_are_encoded_at_most_so_wide_and_can_shrink_later() -> None:
    pixels = torch.randint(0, 256, (300, 600, 3), dtype=torch.uint8)
    picture = encode_picture(pixels, max_width=500)
    small = shrink_picture(picture, max_width=50)
    assert shrink_picture(small, max_width=50) is small
    for encoded, kind, size in ((picture, "jpeg", (500, 250)), (small, "png", (50, 25))):
        assert (encoded.kind, encoded.width, encoded.height) == (kind, *size)
        with Image.open(io.BytesIO(base64.b64decode(encoded.data))) as image:
            assert image.size == size
        assert encoded.uri.startswith(f"data:image/{kind};base64,")
