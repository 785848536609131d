"""Turning the kernel's sources into a library, with whatever C++ compiler there is.

Used when the package is built, by setup.py, and on first use, by build.py. So it imports nothing but Python's own.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

SOURCES = ("forward.cpp", "backward.cpp")
PREBUILT = "prebuilt"  # the folder of libraries made with the package, no package itself, so nothing imports them
HEADERS = ("neighbourhood.h", "layout.h", "threads.h", "vectors.h")
TIMEOUT = 900  # seconds for the compiler, which takes about ten where nothing else runs
VERSION_TIMEOUT = 30  # seconds, for a compiler to say what it is

_FLAGS = ("-std=c++20", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-fPIC", "-shared")
# The functions of OpenMP are found when the library is loaded, see threads.h. Linkers of other systems let that pass.
_LINK_FLAGS = ("-undefined", "dynamic_lookup") if sys.platform == "darwin" else ()
# What the processor can do, as PyTorch names it. Without these flags vectors are made of narrower ones.
_CAPABILITY_FLAGS = {
    "AVX2": ("-mavx2", "-mfma"),
    "AVX512": ("-mavx2", "-mfma", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"),
}


class BuildError(RuntimeError):
    """There is no library, or it cannot be used; the message says why."""


def find_compiler() -> list[str]:
    """Return the C++ compiler's path and arguments: of the variable CXX, as PyTorch's own extensions use, or `c++`.

    Raises:
        BuildError: There is none.
    """
    try:
        name, *arguments = shlex.split(os.environ.get("CXX") or "") or ["c++"]
    except ValueError as error:
        raise BuildError(f"the variable CXX is no command ({error})") from error
    path = shutil.which(name)
    if path is None:
        raise BuildError(f"no C++ compiler, {name!r} is not on the path")
    return [path, *arguments]


def compiler_flags(capability: str) -> list[str]:
    """Return the flags for processors that can do what PyTorch calls by this name."""
    return [*_FLAGS, *_LINK_FLAGS, *_CAPABILITY_FLAGS.get(capability, ())]


def capabilities() -> tuple[str, ...]:
    """Return those that libraries are made for when the package is built; the other processors compile their own."""
    return tuple(_CAPABILITY_FLAGS) if platform.machine() in ("x86_64", "AMD64") else ("DEFAULT",)


def prebuilt_name(capability: str) -> str:
    """Return what the library for such processors is called in a package, without suffix."""
    return f"windowed_attention_{capability.lower()}"


def version(compiler: list[str]) -> str:
    """Return what a compiler says of itself.

    Raises:
        BuildError: It says nothing for too long.
    """
    return _output([*compiler, "--version"], seconds=VERSION_TIMEOUT).stdout


def compile_library(compiler: list[str], flags: list[str], target: Path) -> None:
    """Write the library to the file `target`.

    Raises:
        BuildError: The compiler failed.
    """
    sources = [str(source_folder() / name) for name in SOURCES]
    done = _output([*compiler, *flags, *sources, "-o", str(target)], seconds=TIMEOUT)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
        raise BuildError(f"{compiler[0]} failed: {errors[0] if errors else f'exit code {done.returncode}'}")


def source_folder() -> Path:
    """Return where the sources lie, and in a package that was built with a compiler the libraries too."""
    return Path(__file__).parent


def digest_file(library: Path) -> Path:
    """Return the file beside a library that holds its digest."""
    return library.with_suffix(".sha256")


def digest(library: Path) -> str:
    """Return the digest of a library as it is."""
    return hashlib.sha256(library.read_bytes()).hexdigest()


def _output(command: list[str], *, seconds: float) -> subprocess.CompletedProcess[str]:
    """Run a compiler, whose messages may be in any language and encoding."""
    try:
        return subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, timeout=seconds)
    except subprocess.TimeoutExpired as error:
        raise BuildError(f"{command[0]} took longer than {seconds:g} s") from error
