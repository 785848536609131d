"""A streamed image has the features of a pass over the whole image."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model_helpers import MODELS, build, config
from streaming.streaming_helpers import assert_same, holes, picture, reader, whole
from vision_longformer import GlobalOnly, Linformer, ModelConfig, VisionLongformer, Windowed
from vision_longformer.config import Attention
from vision_longformer.images import ArrayReader, ImageError
from vision_longformer.streaming import Progress, WorkFolderError, stream
from vision_longformer.streaming.checkpoint import FILE

STREAMABLE = [
    name
    for name in MODELS
    if not any(word in name for word in ("full", "published", "cyclic", "linformer", "spatial", "performer"))
]


@st.composite
def models(draw: st.DrawFn) -> ModelConfig:
    stages = draw(st.integers(3, 4))
    attention: list[Attention] = []
    num_global: list[int] = []
    for _ in range(stages):
        tokens = draw(st.integers(0, 4))
        shared = draw(st.booleans())
        if tokens and draw(st.integers(0, 4)) == 0:
            attention.append(GlobalOnly(shared_global_projections=shared))
        else:
            attention.append(
                Windowed(
                    window_size=draw(st.integers(1, 7)),
                    shape=draw(st.sampled_from(["chunk", "exact"])),
                    neighbours=draw(st.sampled_from(["all", "all", "all", "own"])),
                    shared_global_projections=shared,
                )
            )
        num_global.append(tokens)
    return config(
        *attention,
        num_global_tokens=tuple(num_global),
        position=draw(st.sampled_from(["relative", "absolute", "none"])),
        global_pool="token" if num_global[-1] and draw(st.booleans()) else draw(st.sampled_from(["avg", ""])),
        in_chans=draw(st.sampled_from([1, 3, 5])),
        norm_embed=draw(st.booleans()),
    )


@pytest.mark.slow
@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(
    model_config=models(),
    size=st.one_of(*[st.tuples(*[st.integers(1, side)] * 2) for side in (40, 150, 700)]),
    dtype=st.sampled_from([torch.float64, torch.float32]),
    masked=st.booleans(),
    spilled=st.booleans(),
    band_rows=st.sampled_from([None, 1, 2, 3, 8]),
    band_bytes=st.sampled_from([1, 2**18, 2**27]),
    every_block=st.booleans(),
    resume=st.booleans(),
)
def test_streaming_equals_a_pass_over_the_whole_image(
    model_config: ModelConfig,
    size: tuple[int, int],
    dtype: torch.dtype,
    masked: bool,
    spilled: bool,
    band_rows: int | None,
    band_bytes: int,
    every_block: bool,
    resume: bool,
) -> None:
    model = build(model_config, dtype=dtype)
    array = picture(*size, model.in_chans)
    valid = holes(*size) if masked else None
    with tempfile.TemporaryDirectory() as folder:
        features = stream(
            model,
            reader(array, valid),
            work_folder=folder if spilled else None,
            resume=resume and spilled,
            every_block=every_block,
            band_rows=band_rows,
            band_bytes=band_bytes,
        )
        assert_same(features, whole(model, array, valid))
        for stage_map in features.maps:
            stage_map.remove()
        assert {path.name for path in Path(folder).iterdir()} <= {FILE}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shape", ["chunk", "exact"])
@pytest.mark.parametrize("position", ["relative", "absolute"])
def test_images_of_many_bands(
    position: Literal["relative", "absolute"], shape: Literal["chunk", "exact"], dtype: torch.dtype, tmp_path: Path
) -> None:
    """Most of the random images above are small, and few have relative positions."""
    attention = (Windowed(window_size=5, shape=shape),) * 4
    model = build(config(*attention, num_global_tokens=(4, 1, 3, 0), position=position), dtype=dtype)
    array, valid = picture(700, 523), holes(700, 523)
    expected = whole(model, array, valid)
    assert_same(stream(model, reader(array, valid), band_rows=2), expected)
    assert_same(stream(model, reader(array, valid), band_rows=3, work_folder=tmp_path), expected)


@pytest.mark.parametrize("band_rows", [1, 2, 5])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", STREAMABLE)
def test_every_model_that_can_be_streamed(name: str, masked: bool, band_rows: int) -> None:
    model, array = build(MODELS[name]), picture(101, 83)
    valid = holes(101, 83) if masked else None
    assert_same(stream(model, reader(array, valid), band_rows=band_rows), whole(model, array, valid))


@pytest.mark.parametrize("name", [name for name in MODELS if name not in STREAMABLE])
def test_other_models_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="only windowed attention with chunk or exact windows"):
        stream(build(MODELS[name]), reader(picture(20, 30)))


def test_the_refusal_names_stage_and_form() -> None:
    model = build(config(*[Windowed(window_size=2)] * 2, Linformer(num_features=3), position="absolute"))
    with pytest.raises(ValueError, match=r"stage 3: LinformerAttention needs the whole map.*--windowed"):
        stream(model, reader(picture(20, 30)))


def test_only_the_stages_asked_for_are_kept(tmp_path: Path) -> None:
    model, array = build(MODELS["windowed"]), picture(67, 90)
    expected = whole(model, array)
    for stages in [(), (2,), (4, 1, 1), (3,)]:
        features = stream(model, reader(array), stages=stages, work_folder=tmp_path, band_rows=2)
        assert features.stages == tuple(sorted(set(stages)))
        assert_same(features, expected)
        assert len(list(tmp_path.iterdir())) == len(features.stages)
        for stage_map in features.maps:
            stage_map.remove()


def test_opacity_and_missing_values_are_not_valid() -> None:
    model = build(MODELS["windowed"])
    array = picture(50, 41, 4)
    array[10:40, 5:30, 3] = 0
    assert_same(stream(model, reader(array), band_rows=1), whole(model, array))
    floats = array[..., :3].astype(np.float32) / 255
    floats[:20, ::3] = np.nan
    assert_same(stream(model, reader(floats), band_rows=1), whole(model, floats))


def test_values_of_other_types_need_a_range() -> None:
    model = build(MODELS["windowed"])
    array = picture(30, 41)
    raised = array.astype(np.int16) * 10 - 500
    with pytest.raises(ImageError, match="the image: values of type int16 have no defined range"):
        stream(model, reader(raised))
    features = stream(model, ArrayReader(raised, value_range=(-500, 2050)))
    expected = stream(model, reader(array))
    assert torch.allclose(features.embedding, expected.embedding, rtol=1e-5)


def test_what_is_not_valid_may_hold_anything() -> None:
    model, array, valid = build(MODELS["windowed"]), picture(50, 41).astype(np.float64) / 255, holes(50, 41)
    clean = stream(model, reader(array, valid))
    array[~valid] = -9999
    assert torch.equal(stream(model, reader(array, valid)).embedding, clean.embedding)


def test_an_image_of_nothing_is_refused() -> None:
    with pytest.raises(ImageError, match="the image: all of its pixels are transparent or missing"):
        stream(build(MODELS["windowed"]), reader(picture(20, 30), np.zeros((20, 30), dtype=np.bool_)))


def test_maps_say_what_is_real() -> None:
    model, array, valid = build(MODELS["windowed"]), picture(50, 41), holes(50, 41)
    features = stream(model, reader(array, valid))
    seen = features.maps[0].valid
    assert seen is not None
    padded = np.pad(valid, ((0, 1), (0, 1)))
    assert np.array_equal(seen.numpy(), padded.reshape(17, 3, 14, 3).any(axis=(1, 3)))
    assert not features.maps[0].tensor()[:, ~seen].any()


def test_progress_ends_at_one() -> None:
    seen: list[Progress] = []
    stream(build(MODELS["windowed"]), reader(picture(120, 83)), band_rows=2, progress=seen.append)
    fractions = [step.fraction for step in seen]
    assert fractions == sorted(fractions)
    assert fractions[-1] == pytest.approx(1)
    assert {(step.stage, step.block) for step in seen} == {(1, 1), (2, 1), (2, 2), (3, 1), (4, 1)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stages": [5]}, "stages: there is no stage 5"),
        ({"band_rows": 0}, "band_rows=0: must be at least 1"),
        ({"band_bytes": 0}, "band_bytes=0: must be at least 1"),
        ({"resume": True}, "resume=True: needs a work_folder"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stream(build(MODELS["windowed"]), reader(picture(20, 30)), **options)  # type: ignore[arg-type]


def test_a_model_in_training_mode_is_refused() -> None:
    with pytest.raises(ValueError, match=r"training mode: call model.eval\(\) first"):
        stream(build(MODELS["windowed"]).train(), reader(picture(20, 30)))


def test_channels_must_fit() -> None:
    with pytest.raises(ImageError, match="the image: it has 5 channels, and the model takes 3"):
        stream(build(MODELS["windowed"]), reader(picture(20, 30, 5)))


def test_a_work_folder_that_cannot_be_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WorkFolderError, match=r"file/below: not a directory"):
        stream(build(MODELS["windowed"]), reader(picture(20, 30)), work_folder=tmp_path / "file" / "below")


def test_a_model_of_the_family_at_a_size_of_its_own() -> None:
    from vision_longformer import create_model

    model = create_model("vision_longformer_nano", num_classes=0).eval()
    assert isinstance(model, VisionLongformer)
    array = picture(301, 250)
    assert_same(stream(model, reader(array), band_rows=2), whole(model, array))
