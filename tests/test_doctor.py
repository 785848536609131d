"""What `vil doctor` finds, and the mend it names."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path

import pytest
import torch

from vil import main
from vision_longformer import doctor, pretrained
from vision_longformer.attention.fused import build


def _named(topic: str, folder: Path = Path()) -> doctor.Finding:
    return next(finding for finding in doctor.examine(folder) if finding.topic == topic)


def test_every_topic_is_looked_at_once() -> None:
    topics = [finding.topic for finding in doctor.examine()]

    assert len(topics) == len(set(topics))
    assert {"versions", "processor", "memory", "attention on the CPU", "GPU", "weights", "reads", "disk"} < set(topics)


def test_a_missing_compiler_is_named_with_its_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    def without() -> None:
        warnings.warn(
            "windowed attention runs without its compiled kernel, which is slower: no C++ compiler, 'c++' is not on "
            "the path",
            RuntimeWarning,
            stacklevel=2,
        )

    monkeypatch.setattr(build, "kernel", without)

    found = _named("attention on the CPU")

    assert "no C++ compiler" in found.state
    assert found.troubled
    assert found.mend is not None
    assert "install a C++ compiler" in found.mend


def test_what_not_everybody_needs_is_no_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    found = _named("slides")

    assert found.mend == "pip install 'vision-longformer[slides]'"
    assert not found.troubled


def test_damaged_weights_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nuclei.safetensors").write_bytes(b"rot")
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path)
    monkeypatch.setattr(pretrained, "shipped", lambda: {"nuclei": pretrained.Shipped("nuclei", "0" * 64, "t", "s")})

    found = _named("weights")

    assert found.state == "damaged: nuclei"
    assert found.mend == "install the package again"


def test_little_memory_is_a_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "free_memory", lambda device: 3 * 10**8)

    found = _named("memory")

    assert "0.30 GB free" in found.state
    assert found.troubled


def test_more_threads_than_processors_are_a_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "describe_machine", lambda: {"processor": "P", "capability": "AVX2", "threads": 64})
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)

    found = _named("processor")

    assert found.mend is not None
    assert "OMP_NUM_THREADS=2" in found.mend


def test_a_gpu_of_an_older_kind_is_served_by_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "V100")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 0))
    monkeypatch.setattr(doctor, "free_memory", lambda device: 16 * 10**9)

    found = _named("GPU")

    assert found.state.startswith("V100, 16.0 GB free, capability 7.0")
    assert "operators" in found.state
    assert found.mend is None


def test_the_disk_of_a_folder_that_is_not_there_yet_is_looked_at(tmp_path: Path) -> None:
    assert _named("disk", tmp_path / "new" / "features").state.endswith(f"free in {tmp_path}")


def test_the_command_prints_json_and_says_by_its_code_whether_something_is_to_mend(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fine = doctor.Finding("memory", "16 GB free")
    optional = doctor.Finding("slides", "not installed", "pip install", optional=True)
    trouble = doctor.Finding("disk", "full", "free some space")
    for findings, code in (([fine, optional], 0), ([fine, trouble], 1)):
        monkeypatch.setattr("vision_longformer.commands.doctor.examine", lambda folder, findings=findings: findings)

        assert main(["doctor", "--json"]) == code
        assert [entry["state"] for entry in json.loads(capsys.readouterr().out)] == [f.state for f in findings]

        assert main(["doctor"]) == code
        assert str(findings[1].mend) in capsys.readouterr().out.replace("\n", " ")
