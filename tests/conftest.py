from __future__ import annotations

from pathlib import Path

import pytest
import torch

# Small tensors gain nothing from threads, and lose much where the machine is shared.
torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden-dir",
        type=Path,
        default=Path(__file__).parent / "golden" / "data",
        help="folder of golden cases: layers.json and models.json, each beside its .safetensors",
    )


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
