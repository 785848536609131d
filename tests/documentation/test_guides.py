"""The guides are followed to the letter: what they show is run from top to bottom, in an empty folder."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from documentation.test_pages import commands, plain, said_of

ROOT = Path(__file__).parent.parent.parent
GUIDES = sorted((ROOT / "docs/guides").glob("*.md"))
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```", re.DOTALL | re.MULTILINE)
NOT_HERE = (  # what a person does with a page, what is theirs, or what is somewhere else
    "vil explore",
    "vil predict explored/head.safetensors",
    "vil pretrain --recipe pretrain_nano",
    "/shared",
    "pip install",
    "python3 -m venv",
)
BEFORE = {"pretrain.md": "classify.md", "cluster.md": "classify.md"}  # whose pictures a guide takes
RENAMED = {"cluster.md": ("photos", "pictures")}


@pytest.mark.long
@pytest.mark.process
@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.stem)
def test_a_guide_leads_to_its_result(guide: Path, tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    if guide.name in BEFORE:
        _follow(guide.with_name(BEFORE[guide.name]), tmp_path, only="python", first=True)
    _follow(guide, tmp_path)


def _follow(guide: Path, folder: Path, *, only: str = "", first: bool = False) -> None:
    text = guide.read_text(encoding="utf-8")
    session: list[str] = []  # of Python: one for all blocks
    for language, block in BLOCK.findall(text):
        if only and language != only:
            continue
        if language == "python":
            session.append(f"print('---')\n{block}")
            printed = _run([sys.executable, "-c", "\n".join(session)], folder).split("---\n")[-1]
            assert all(said in plain(printed) for said in said_of(block))
        else:
            for words in commands(block):
                command = shlex.join(words)
                if not any(name in command for name in NOT_HERE):
                    assert words[0] == "vil"
                    renamed = command.replace(*RENAMED.get(guide.name, ("", "")))
                    _run([sys.executable, "-m", *shlex.split(renamed)], folder)
        if first:
            return


def _run(command: list[str], folder: Path) -> str:
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, f"{shlex.join(command[1:])}\n{ran.stdout[-2000:]}\n{ran.stderr[-2000:]}"
    return ran.stdout
