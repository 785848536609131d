from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vision_longformer.attention.fused import build

# Small tensors gain nothing from threads, and lose much where the machine is shared.
torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden-dir",
        type=Path,
        default=Path(__file__).parent / "golden" / "data",
        help="folder of golden cases: layers.json and models.json, each beside its .safetensors",
    )


@pytest.fixture(scope="session", autouse=True)
def _compiled() -> None:
    """Compile the kernel before the tests, where it can be: none of them then waits for it, or sees it announced."""
    build.kernel()


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
