"""What commands print, where, and how much of it; and what makes shells complete them."""

from __future__ import annotations

import ast
import io
import json
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.progress import TextColumn

import vil
import vision_longformer
from vision_longformer.commands import completion
from vision_longformer.commands.options import COMMANDS
from vision_longformer.commands.terminal import PACKAGE, error_console, progress, speaking, tell, warn

WITHOUT_RESULT = ("explore", "demo", "completion")
SOURCES = sorted(Path(vision_longformer.__file__).parent.rglob("*.py"))
Ran = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ran:
    """Return what runs a command in a folder with a photograph, and gives its exit code and what it printed."""
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (40, 32), (9, 99, 199)).save("a.png")

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        return (vil.main(list(arguments)), *capsys.readouterr())

    return run


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_can_be_quiet_verbose_and_give_json(command: str) -> None:
    options = COMMANDS[command]()._option_string_actions
    assert {"--quiet", "-q", "--verbose", "-v"} <= set(options)
    assert ("--json" in options) == (command not in WITHOUT_RESULT)


@pytest.mark.parametrize("command", ["models", "plan --size 64x64", "doctor", "encode a.png --output o --no-report"])
def test_json_is_all_that_goes_to_standard_output(command: str, ran: Ran) -> None:
    code, out, _ = ran(*command.split(), "--json")
    assert code == 0
    assert json.loads(out)


def test_json_says_what_the_sentence_says(ran: Ran) -> None:
    Path("b.png").write_text("no image")
    code, out, err = ran("encode", "a.png", "b.png", "--output", "o", "--json")
    found = json.loads(out)
    assert code == 1
    assert (found["encoded"], found["failed"], found["skipped"]) == (1, 1, 0)
    assert (found["output"], found["page"]) == ("o", "o/index.html")
    assert "b.png: it is not an image that can be read" in err


def test_quiet_says_what_failed_and_nothing_else(ran: Ran) -> None:
    Path("b.png").write_text("no image")
    assert ran("encode", "a.png", "--output", "o", "--quiet") == (0, "", "")
    code, out, err = ran("encode", "a.png", "b.png", "--output", "o", "-q")
    assert (code, out) == (1, "")
    (line,) = err.splitlines()
    assert line.startswith("vil: failed: ")
    assert "b.png: " in line


def test_quiet_gives_the_result(ran: Ran) -> None:
    code, out, err = ran("plan", "--size", "64x64", "--quiet")
    assert (code, err) == (0, "")
    assert "64×64" in out


def test_verbose_says_what_is_decided_and_by_whom(ran: Ran) -> None:
    _, _, remarks = ran("encode", "a.png", "--output", "o")
    code, _, err = ran("encode", "a.png", "--output", "p", "--verbose")
    assert code == 0
    assert re.search(r"^vil: images\.open: .*a\.png: read by PillowReader$", err, re.MULTILINE)
    assert re.search(r"^vil: features\.strategies: .*a\.png: whole, as \d+ MB of memory fit$", err, re.MULTILINE)
    assert "images.open" not in remarks


def test_quiet_and_verbose_exclude_each_other(ran: Ran) -> None:
    assert ran("models", "-q", "-v") == (2, "", "vil: --quiet and --verbose: give one of them\n")


@pytest.mark.parametrize(
    ("how", "said"), [({}, ["r", "w", "l"]), ({"quiet": True}, []), ({"verbose": True}, [*"rwli"])]
)
def test_levels(how: dict[str, bool], said: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    library = logging.getLogger(f"{PACKAGE}.some.room")
    with speaking(**how):
        tell("r")
        warn("w")
        library.warning("l")
        library.info("i")
    library.error("afterwards")
    lines = [line for line in capsys.readouterr().err.splitlines() if line != "afterwards"]
    assert [line.rpartition(" ")[2] for line in lines] == said
    if said:
        assert lines[:3] == ["vil: r", "vil: warning: w", "vil: l"]


@pytest.mark.parametrize("variables", [{}, {"FORCE_COLOR": "1"}, {"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_bars_are_never_drawn_into_files(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", file := io.StringIO())
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with speaking(), progress(TextColumn("x"), console=error_console()) as bar:
        bar.advance(bar.add_task("", total=3))
    assert file.getvalue() == ""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("how", "drawn"), [({}, True), ({"quiet": True}, False)])
def test_bars_are_drawn_on_terminals_unless_quiet(
    how: dict[str, bool], drawn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", file := Terminal())
    monkeypatch.setenv("TERM", "xterm")
    with speaking(**how), progress(TextColumn("working"), console=error_console()) as bar:
        bar.advance(bar.add_task("", total=3))
    assert ("working" in file.getvalue()) == drawn


def test_without_colour_tables_have_none(monkeypatch: pytest.MonkeyPatch, ran: Ran) -> None:
    for variable, colours in (("FORCE_COLOR", True), ("NO_COLOR", False)):
        monkeypatch.setenv(variable, "1")  # the second one wins
        _, out, _ = ran("doctor")
        assert ("\x1b[3" in out) == colours


def test_evaluation_writes_json_into_a_file_or_prints_it() -> None:
    parse: Any = COMMANDS["evaluate"]().parse_args
    assert parse(["w", "--data", "d"]).json is None
    assert parse(["w", "--data", "d", "--json"]).json == "-"
    assert parse(["w", "--data", "d", "--json", "e.json"]).json == "e.json"


def test_only_commands_print_and_each_module_has_its_own_logger() -> None:
    for path in SOURCES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        prints = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == "print"]
        assert not prints or "commands" in path.parts or path.name == "worker.py", path  # that one talks to its parent
        made = [
            ast.unparse(node) for node in tree.body if isinstance(node, ast.Assign) and "getLogger" in ast.unparse(node)
        ]
        assert made in ([], ["logger = logging.getLogger(__name__)"]), path


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion_knows_commands_and_options(shell: str, ran: Ran) -> None:
    code, out, err = ran("completion", shell)
    assert (code, err) == (0, "")
    assert all(word in out for word in ("encode", "max-side", "completion", "safetensors"))


@pytest.mark.process
@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["enc"], ["encode"]),
        (["encode", "--max-p"], ["--max-pixels"]),
        (["encode", "--format", ""], ["auto", "safetensors", "zarr", "geotiff", "parquet"]),
        (["predict", "--checkpoint", "wei"], ["weights.safetensors"]),
        (["encode", "--output", "fol"], ["folder"]),
    ],
)
def test_bash_completes(words: list[str], found: list[str], tmp_path: Path) -> None:
    (tmp_path / "weights.safetensors").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folly").touch()
    (tmp_path / "vil.bash").write_text(completion.script("bash"))
    typed = " ".join(f"'{word}'" for word in ("vil", *words))
    program = (
        f'. ./vil.bash; COMP_WORDS=({typed}); COMP_CWORD={len(words)}; _shtab_vil; printf "%s\\n" "${{COMPREPLY[@]}}"'
    )
    shown = subprocess.run(
        ["bash", "-c", program], cwd=tmp_path, env=os.environ, capture_output=True, text=True, check=True
    )
    assert shown.stdout.split() == found


def test_completion_needs_no_torch() -> None:
    program = "import sys, vil; vil.script(); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program, "completion", "zsh"], check=True, capture_output=True)
