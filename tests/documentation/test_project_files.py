"""The files around the package say the same version, and keep to the forms that other programs read."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

import vision_longformer

ROOT = Path(__file__).parent.parent.parent


def test_one_version_is_said_everywhere() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    noted = re.findall(r"^## (\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert cited["version"] == noted[0] == vision_longformer.__version__


def test_the_citation_names_the_project_and_its_paper() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["cff-version"] == "1.2.0"
    assert [list(author) for author in cited["authors"]] == [["name"]]
    assert cited["preferred-citation"]["authors"][0]["family-names"] == "Zhang"
