from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from datasets.coco_cases import random_content, write_images
from datasets.mutations import check_mutation


@pytest.mark.slow
@pytest.mark.parametrize("count", [300, pytest.param(2000, marks=pytest.mark.long)])
def test_spoilt_annotation_files_are_read_or_refused_by_name(tmp_path: Path, count: int) -> None:
    content = random_content()
    folder = write_images(tmp_path, content)
    outcomes = Counter(check_mutation(folder, content, seed) for seed in range(count))
    assert outcomes["read"] >= 5  # some changes do no harm
    assert outcomes["refused"] >= count * 2 // 3
