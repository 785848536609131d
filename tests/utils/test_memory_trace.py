from __future__ import annotations

import time

import pytest
import torch

from vision_longformer.utils import memory_trace
from vision_longformer.utils.memory_trace import Sample, thinned, trace_memory
from vision_longformer.utils.system_memory import resident_memory

pytestmark = pytest.mark.skipif(resident_memory() is None, reason="the system does not tell")


def test_what_is_held_for_a_while_is_seen() -> None:
    with trace_memory() as trace:
        time.sleep(0.3)
        before = trace.samples[0].bytes
        held = torch.ones(300, 2**20 // 4)  # 300 MiB
        time.sleep(0.5)
        del held
    peak = max(sample.bytes for sample in trace.samples)
    assert 250 * 2**20 < peak - before < 400 * 2**20
    assert [sample.seconds for sample in trace.samples] == sorted(sample.seconds for sample in trace.samples)


def test_long_runs_keep_few_samples_and_their_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_trace, "INTERVAL", 0.001)
    monkeypatch.setattr(memory_trace, "MAX_SAMPLES", 20)
    with trace_memory() as trace:
        time.sleep(0.5)
    assert 10 <= len(trace.samples) <= 21
    assert trace.samples[-1].seconds - trace.samples[0].seconds > 0.4


def test_thinning_keeps_peaks() -> None:
    samples = [Sample(float(number), size) for number, size in enumerate([3, 9, 4, 4, 8, 2, 5])]
    assert [sample.bytes for sample in thinned(samples)] == [9, 4, 8, 5]


def test_where_the_system_does_not_tell_there_are_no_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_trace, "resident_memory", lambda: None)
    with trace_memory() as trace:
        pass
    assert trace.samples == []
