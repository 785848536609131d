from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from vision_longformer import VisionLongformer, create_model
from vision_longformer.images import ImageInfo
from vision_longformer.memory.plans import PlanError, plan
from vision_longformer.memory.speed import Speed
from vision_longformer.memory.training import plan_training

UNBOUNDED = 10**15


@pytest.fixture(scope="module")
def model() -> VisionLongformer:
    network = create_model("vision_longformer_nano").eval()
    assert isinstance(network, VisionLongformer)
    return network


def needed(model: VisionLongformer, height: int, width: int) -> dict[str, int]:
    found = plan(model, height, width, memory=UNBOUNDED, outputs=[4])
    return {forecast.strategy: forecast.memory for forecast in found.forecasts}


def test_the_fastest_way_that_fits_is_chosen(model: VisionLongformer) -> None:
    memory = needed(model, 20_000, 30_000)
    assert memory["whole"] > 2 * memory["streamed"] > 2 * memory["spilled"]
    for limit, way in ((UNBOUNDED, "whole"), (memory["streamed"] + 10**8, "streamed")):
        assert plan(model, 20_000, 30_000, memory=limit, outputs=[4]).chosen.strategy == way
    spilled = plan(model, 20_000, 30_000, memory=memory["spilled"], outputs=[4])
    assert spilled.chosen.strategy == "spilled"
    assert spilled.chosen.disk > 10**9
    assert "of memory are more than" in spilled.forecasts[0].reason


def test_bands_shrink_to_fit(model: VisionLongformer) -> None:
    roomy = plan(model, 20_000, 3000, memory=UNBOUNDED, strategies=["spilled"], outputs=[4]).chosen
    tight = plan(model, 20_000, 3000, memory=roomy.memory - 10**8, strategies=["spilled"], outputs=[4]).chosen
    assert tight.memory <= roomy.memory - 10**8
    assert tight.band_bytes is not None
    assert roomy.band_bytes is not None
    assert tight.band_bytes < roomy.band_bytes


def test_what_fits_nowhere_is_refused_with_what_would_fit(model: VisionLongformer) -> None:
    with pytest.raises(PlanError, match=r"an image of 30000×20000 pixels does not fit \(whole: ") as caught:
        plan(model, 20_000, 30_000, memory=2 * 10**7)
    assert [forecast.strategy for forecast in caught.value.forecasts] == ["whole", "streamed", "spilled"]
    least = min(forecast.memory for forecast in caught.value.forecasts)
    assert plan(model, 20_000, 30_000, memory=round(1.05 * least)).chosen.strategy == "spilled"


def test_what_decoding_a_whole_image_takes_is_counted(model: VisionLongformer) -> None:
    """A gray PNG of 484 megapixels takes as many bytes twice at first, though its bands are small."""
    image = ImageInfo("x.png", 22_000, 22_000, 1, np.dtype(np.uint8), preferred_rows=22_000, decoding_bytes=1)
    found = plan(model, *image.size, memory=UNBOUNDED, outputs=[4], image=image)
    by_rows = plan(model, *image.size, memory=UNBOUNDED, outputs=[4], image=replace(image, decoding_bytes=0))
    held = plan(model, 32, 32, memory=UNBOUNDED, outputs=[4]).forecasts[2].memory  # the model, and little else
    assert found.forecasts[2].memory > by_rows.forecasts[2].memory
    assert found.forecasts[2].memory == pytest.approx(held + 2 * 22_000**2, rel=0.05)
    with pytest.raises(PlanError, match="of memory are more than"):
        plan(model, *image.size, memory=held + 22_000**2 * 3 // 2, outputs=[4], image=image)


def test_a_small_disk_is_an_obstacle(model: VisionLongformer) -> None:
    with pytest.raises(PlanError, match=r"of files are more than the 1\.0 MB that are free\): make room") as caught:
        plan(model, 20_000, 3000, memory=UNBOUNDED, strategies=["spilled"], disk=10**6)
    assert "of memory" not in str(caught.value)


def test_every_obstacle_is_named_and_the_advice_removes_them(model: VisionLongformer) -> None:
    size = (20_000, 30_000)
    with pytest.raises(
        PlanError, match=r"\(spilled: .* of memory are more than 20\.0 MB, and .* of files are"
    ) as caught:
        plan(model, *size, memory=2 * 10**7, strategies=["spilled"], outputs=[4], disk=10**6)
    assert "or more and make room for files" in str(caught.value)

    memory = needed(model, *size)["spilled"] + 10**8
    with pytest.raises(PlanError, match=r"allow .* or more, make room for files or choose another work folder"):
        plan(model, *size, memory=memory, outputs=[4], disk=10**6)
    assert plan(model, *size, memory=memory, outputs=[4]).chosen.strategy == "spilled"


def test_models_that_cannot_be_streamed_have_one_way() -> None:
    full = create_model("vision_longformer_nano_full").eval()
    assert isinstance(full, VisionLongformer)
    found = plan(full, 300, 200, memory=UNBOUNDED)
    assert found.chosen.strategy == "whole"
    assert "stage 3: FullAttention needs the whole map" in found.forecasts[1].reason
    with pytest.raises(PlanError, match="FullAttention"):
        plan(full, 300, 200, memory=UNBOUNDED, strategies=["streamed"])


def test_times_grow_with_the_image_and_with_files(model: VisionLongformer) -> None:
    speed = Speed(multiply_adds=1e9, file_bytes=1e8)
    small, large = (plan(model, side, 2000, memory=UNBOUNDED, speed=speed).forecasts for side in (2000, 4000))
    assert small[0].seconds is not None
    assert large[0].seconds == pytest.approx(2 * small[0].seconds, rel=0.02)
    assert large[2].seconds is not None
    assert large[1].seconds is not None
    assert large[2].seconds > large[1].seconds


@pytest.mark.parametrize(("options", "message"), [({"outputs": [5]}, "no stage 5"), ({}, "width=0: must be at least")])
def test_questions_that_cannot_be_are_refused(
    model: VisionLongformer, options: dict[str, list[int]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        plan(model, 100, 100 if options else 0, memory=UNBOUNDED, **options)  # type: ignore[arg-type]


@pytest.mark.slow
def test_checkpointing_is_asked_for_where_nothing_fits_without_it(model: VisionLongformer) -> None:
    easy = plan_training(model, 160, 96, memory=UNBOUNDED)
    assert not easy.chosen.checkpointing
    plain, checkpointed = easy.forecasts
    assert checkpointed.image < 0.7 * plain.image
    limit = plain.held + 3 * plain.image
    assert plan_training(model, 160, 96, memory=limit + 10**8).chosen.batch >= 3
    with pytest.raises(PlanError, match="a training step with one image of 96×160 pixels does not fit"):
        plan_training(model, 160, 96, memory=10**7)


def test_an_image_that_is_shrunk_is_decoded_whole_first(model: VisionLongformer) -> None:
    stored = ImageInfo("large", 8000, 10_000, 3, np.dtype(np.uint16), preferred_rows=256)
    shrunk = plan(model, 400, 500, memory=UNBOUNDED, outputs=[4], image=stored).forecasts[0]
    small = plan(model, 400, 500, memory=UNBOUNDED, outputs=[4]).forecasts[0]

    assert shrunk.memory - small.memory > 8000 * 10_000 * 3 * (2 + 4)  # as stored, and as float32
