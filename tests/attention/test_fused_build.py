"""Compiling the kernel: without a compiler, with a broken one, half-way, twice at once.

A script plays the compiler: it copies the kernel that this machine has already compiled.
"""

from __future__ import annotations

import functools
import os
import signal
import stat
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from attention.cases import EXAMPLE, relative_error
from vision_longformer import set_attention_backend
from vision_longformer.attention.dense import dense_windowed_attention
from vision_longformer.attention.fused import build, compiler
from vision_longformer.attention.gathered import gathered_windowed_attention

pytestmark = pytest.mark.process

LOAD = "import pathlib, runpy, sys; runpy.run_path(sys.argv[1])['load'](pathlib.Path(sys.argv[2]))"


@pytest.fixture
def compiled() -> Path:
    library = build.kernel()
    if library is None:
        pytest.skip("no compiler")
    return Path(library._name)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return an empty cache, and forget the kernel of this process for one test."""
    build.kernel()  # so that none but these tests compiles into a cache that is thrown away
    remembered = build._kernel
    monkeypatch.setattr(build, "_kernel", functools.cache(remembered.__wrapped__))
    monkeypatch.setattr(build, "prebuilt_folder", lambda: tmp_path / "package")
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "cache"))
    yield tmp_path / "cache" / "vision_longformer"
    set_attention_backend("auto")


def play_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: str) -> Path:
    """Make a compiler that notes each of its runs in the file returned, and then does `action` with $target."""
    runs, script = tmp_path / "runs", tmp_path / "compiler"
    lines = (
        "#!/bin/sh",
        'if [ "$1" = --version ]; then echo played 1.0; exit; fi',
        f"echo run >> {runs}",
        'while [ "$1" != -o ]; do shift; done',
        'target="$2"',
        action,
    )
    script.write_text("\n".join(lines) + "\n")
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    return runs


def assert_answers_are_right() -> None:
    tensors: dict[str, Any] = EXAMPLE.tensors(torch.float32)
    exact: dict[str, Any] = EXAMPLE.tensors()
    out = gathered_windowed_attention(**tensors, **EXAMPLE.settings())
    assert relative_error(out, dense_windowed_attention(**exact, **EXAMPLE.settings())) <= 2e-6


def assert_one_warning(message: str) -> None:
    with pytest.warns(RuntimeWarning, match=message) as caught:
        assert_answers_are_right()
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_answers_are_right()
    with pytest.raises(RuntimeError, match="cannot be compiled"):
        set_attention_backend("fused")


def test_without_a_compiler(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "")
    assert_one_warning(r"without its compiled kernel.*no C\+\+ compiler")
    assert not cache.exists()


def test_a_build_that_fails(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = play_compiler(tmp_path, monkeypatch, "echo 'forward.cpp:1: error: no such thing' >&2; exit 1")
    assert_one_warning("failed: forward.cpp:1: error: no such thing")
    assert runs.read_text().split() == ["run"]
    assert not list(cache.glob("*.so"))


def test_a_failure_in_another_encoding(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play_compiler(tmp_path, monkeypatch, r"printf 'error: \351chec\n' >&2; exit 1")
    assert_one_warning("failed: error: .chec")


def test_a_compiler_with_arguments(
    compiled: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = play_compiler(tmp_path, monkeypatch, f'cp {compiled} "$target"')
    (name,) = compiler.find_compiler()
    monkeypatch.setenv("CXX", f"env {name}")
    assert compiler.find_compiler()[1:] == [name]
    assert build.load(cache)
    assert runs.read_text().split() == ["run"]


@pytest.mark.usefixtures("cache")
def test_a_compiler_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "compiler"
    script.write_text("#!/bin/sh\nexec sleep 60\n")
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    monkeypatch.setattr(compiler, "VERSION_TIMEOUT", 0.2)
    assert_one_warning("compiler took longer than 0.2 s")


@pytest.mark.usefixtures("cache")
def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("TORCH_EXTENSIONS_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", none)
    assert_one_warning("there is no home folder to keep it in: set TORCH_EXTENSIONS_DIR to one")


def test_a_build_that_cannot_be_loaded(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play_compiler(tmp_path, monkeypatch, 'echo nonsense > "$target"')
    assert_one_warning("cannot be loaded")
    assert not list(cache.glob("*.so"))


def test_a_cache_that_cannot_be_written(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play_compiler(tmp_path, monkeypatch, "exit 1")
    cache.parent.write_text("a file where the folder should be")
    assert_one_warning("Not a directory|File exists")


def test_is_compiled_once(compiled: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = play_compiler(tmp_path, monkeypatch, f'cp {compiled} "$target"')
    for _ in range(2):
        build.load(cache)
        assert runs.read_text().split() == ["run"]
    assert len(list(cache.glob("*.so"))) == 1
    assert sorted(path.suffix for path in cache.iterdir()) == [".lock", ".sha256", ".so"]
    set_attention_backend("fused")
    assert_answers_are_right()


def test_two_processes_at_once(compiled: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = play_compiler(tmp_path, monkeypatch, f'sleep 2; cp {compiled} "$target"')
    command = [sys.executable, "-c", LOAD, build.__file__, str(cache)]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    messages = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], messages
    assert sorted("Waiting for another process" in message for message in messages) == [False, True]
    assert len(list(cache.glob("*.so"))) == 1
    assert runs.read_text().split() == ["run"]


def test_a_build_that_is_killed(compiled: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = play_compiler(
        tmp_path,
        monkeypatch,
        f'if [ -e {tmp_path}/second ]; then cp {compiled} "$target"; else echo half > "$target"; exec sleep 20; fi',
    )
    process = subprocess.Popen([sys.executable, "-c", LOAD, build.__file__, str(cache)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not runs.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=60)
    assert not list(cache.glob("*.so"))
    (tmp_path / "second").touch()
    build.load(cache)
    assert runs.read_text().split() == ["run", "run"]
    assert sorted(path.suffix for path in cache.iterdir()) == [".lock", ".sha256", ".so"]


@pytest.mark.parametrize("damage", ["cut", "changed", "no digest"])
def test_a_damaged_library_is_compiled_again(
    damage: str, compiled: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = play_compiler(tmp_path, monkeypatch, f'cp {compiled} "$target"')
    build.load(cache)
    (library,), (digest,) = cache.glob("*.so"), cache.glob("*.sha256")
    whole = library.read_bytes()
    match damage:
        case "cut":  # not the file that this process has mapped, which would end it
            library.unlink()
            library.write_bytes(whole[: len(whole) // 2])
        case "changed":
            library.unlink()
            library.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        case "no digest":
            digest.unlink()
    build.load(cache)
    assert library.read_bytes() == whole
    assert runs.read_text().split() == ["run", "run"]


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_what_is_compiled_belongs_to_this_user_alone(
    umask: int, compiled: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play_compiler(tmp_path, monkeypatch, f'cp {compiled} "$target"')
    before = os.umask(umask)
    try:
        build.load(cache)
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in (cache, cache.parent)} == {0o700}
    assert {stat.S_IMODE(path.stat().st_mode) for path in cache.iterdir()} == {0o600}


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o770])
def test_a_folder_that_others_can_write_is_not_used(mode: int, cache: Path) -> None:
    cache.mkdir(parents=True)
    cache.chmod(mode)
    assert_one_warning("others may write it, and so could have put any code there")
    assert list(cache.iterdir()) == []


@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="files are given to another user")
@pytest.mark.parametrize("planted", ["folder", "library", "digest", "through a link"])
def test_code_of_another_user_does_not_run(
    planted: str, compiled: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = play_compiler(tmp_path, monkeypatch, f'cp {compiled} "$target"')
    build.load(cache)
    (library,) = cache.glob("*.so")
    evil = tmp_path / "evil.so"
    evil.write_bytes(b"no library, as if it were one")
    place = evil if planted == "through a link" else library
    library.unlink()  # not the file that this process has mapped, which would end it
    if place is evil:
        library.symlink_to(evil)
    else:
        library.write_bytes(evil.read_bytes())
    compiler.digest_file(library).write_text(compiler.digest(library))
    of_another = {"folder": cache, "digest": compiler.digest_file(library)}.get(planted, place)
    os.chown(of_another, 1234, 1234)
    if planted == "folder":
        with pytest.raises(compiler.BuildError, match="belongs to another user"):
            build.load(cache)
        return
    assert build.load(cache)
    assert not library.is_symlink()
    assert library.read_bytes() == compiled.read_bytes()
    assert library.stat().st_uid == os.geteuid()
    assert runs.read_text().split() == ["run", "run"]


@pytest.mark.parametrize("command", ["'unclosed", "/bin/true", "/bin/false", "nothing-here; touch {}", "$(touch {})"])
def test_a_variable_that_is_no_compiler(
    command: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", command.format(tmp_path / "made"))
    with pytest.raises((compiler.BuildError, OSError)):
        build.load(cache)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("change", ["capability", "compiler", "version", "flags", "sources"])
def test_each_kind_of_machine_has_its_own(change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play_compiler(tmp_path, monkeypatch, "exit 1")
    flags = compiler.compiler_flags("AVX2")
    before = build.build_key(compiler.find_compiler(), flags)
    assert build.build_key(compiler.find_compiler(), flags) == before
    match change:
        case "capability":
            monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "SOMETHING")
        case "compiler":
            script = tmp_path / "other"
            script.write_bytes((tmp_path / "compiler").read_bytes())
            script.chmod(0o755)
            monkeypatch.setenv("CXX", str(script))
        case "version":
            script = tmp_path / "compiler"
            script.write_text(script.read_text().replace("played 1.0", "played 2.0"))
        case "flags":
            flags.append("-g")
        case "sources":
            (tmp_path / "sources").mkdir()
            for name in compiler.SOURCES + compiler.HEADERS:
                (tmp_path / "sources" / name).write_text("// other")
            monkeypatch.setattr(compiler, "source_folder", lambda: tmp_path / "sources")
    assert build.build_key(compiler.find_compiler(), flags) != before


@pytest.fixture
def package(compiled: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the kernel as it came with a package; no compiler is to be needed for it."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    capability = torch.backends.cpu.get_cpu_capability()
    library = tmp_path / "package" / f"{compiler.prebuilt_name(capability)}.so"
    library.parent.mkdir(mode=0o755)
    library.write_bytes(compiled.read_bytes())
    library.chmod(0o644)
    compiler.digest_file(library).write_text(compiler.digest(library))
    return library


def test_the_packages_kernel_is_used(package: Path, cache: Path) -> None:
    set_attention_backend("fused")
    assert_answers_are_right()
    kernel = build.kernel()
    assert kernel is not None
    assert kernel._name == str(package)
    assert not cache.exists()


def test_the_packages_kernel_is_for_this_processor(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "ANOTHER")
    with pytest.raises(compiler.BuildError, match=r"none came with the package for this processor \(ANOTHER\)"):
        build.load_prebuilt()


@pytest.mark.parametrize("damage", ["changed", "no digest", "writable", "folder writable", "of another group"])
def test_a_packages_kernel_that_may_not_be_what_was_built_is_not_loaded(damage: str, package: Path) -> None:
    match damage:
        case "changed":
            whole = package.read_bytes()
            package.unlink()
            package.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
            package.chmod(0o644)
        case "no digest":
            compiler.digest_file(package).unlink()
        case "writable":
            package.chmod(0o666)
        case "folder writable":
            package.parent.chmod(0o777)
        case "of another group":
            package.chmod(0o664)
            if os.geteuid() == 0:
                os.chown(package, -1, 1234)
    reason = "is damaged" if damage in ("changed", "no digest") else "others may write it"
    with pytest.raises(compiler.BuildError, match=reason):
        build.load_prebuilt()
    assert_one_warning(r"no C\+\+ compiler")  # it would be compiled, then


@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="a file is given to another user")
def test_a_packages_kernel_of_another_user_is_not_loaded(package: Path) -> None:
    os.chown(package, 1234, -1)
    with pytest.raises(compiler.BuildError, match="belongs to another user"):
        build.load_prebuilt()


@pytest.mark.parametrize("open_too", [True, False])
def test_a_group_may_write_the_kernel_if_it_may_write_the_code(
    open_too: bool, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "build.py"
    module.touch()
    module.chmod(0o664 if open_too else 0o644)
    monkeypatch.setattr(build, "__file__", str(module))
    package.chmod(0o664)
    if open_too:
        assert build.load_prebuilt()._name == str(package)
    else:
        with pytest.raises(compiler.BuildError, match="others may write it"):
            build.load_prebuilt()


def test_only_pytorchs_threads_are_used(compiled: Path) -> None:
    """A kernel that brought an OpenMP runtime of its own would have twice as many threads as processors."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("the system does not tell what is loaded")
    runtimes = {
        line.split()[-1] for line in maps.read_text().splitlines() if Path(line.split()[-1]).name.startswith("libgomp")
    }
    assert {path for path in runtimes if "site-packages" not in path} == set()  # scikit-learn brings one of its own
    assert b"libgomp" not in compiled.read_bytes()
