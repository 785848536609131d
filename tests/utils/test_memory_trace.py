from __future__ import annotations

import time

import pytest
import torch

from vision_longformer.utils import memory_trace
from vision_longformer.utils.memory_trace import Sample, thinned, watch_memory
from vision_longformer.utils.system_memory import resident_memory

pytestmark = pytest.mark.skipif(resident_memory() is None, reason="the system does not tell")


def test_what_is_held_for_a_while_is_seen() -> None:
    with watch_memory() as course:
        time.sleep(0.3)
        before = course.samples[0].bytes
        held = torch.ones(300, 2**20 // 4)  # 300 MiB
        time.sleep(0.5)
        del held
    peak = max(sample.bytes for sample in course.samples)
    assert 250 * 2**20 < peak - before < 400 * 2**20
    assert [sample.seconds for sample in course.samples] == sorted(sample.seconds for sample in course.samples)


def test_long_runs_keep_few_samples_and_their_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_trace, "INTERVAL", 0.001)
    monkeypatch.setattr(memory_trace, "MAX_SAMPLES", 20)
    with watch_memory() as course:
        time.sleep(0.5)
    assert 10 <= len(course.samples) <= 21
    assert course.samples[-1].seconds - course.samples[0].seconds > 0.4


def test_thinning_keeps_peaks() -> None:
    samples = [Sample(float(number), size) for number, size in enumerate([3, 9, 4, 4, 8, 2, 5])]
    assert [sample.bytes for sample in thinned(samples)] == [9, 4, 8, 5]


def test_images_have_spans() -> None:
    with watch_memory() as course:
        time.sleep(0.05)
        with pytest.raises(KeyError), course.span(forecast=5, whole=None):
            raise KeyError
        with course.span(forecast=None, whole=7):
            time.sleep(0.1)
    failed, done = course.spans
    assert (failed.forecast, failed.whole) == (5, None)
    assert (done.forecast, done.whole) == (None, 7)
    assert failed.end <= done.start
    assert done.end - done.start >= 0.1


def test_where_the_system_does_not_tell_there_are_no_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_trace, "resident_memory", lambda: None)
    with watch_memory() as course:
        pass
    assert course.samples == []
