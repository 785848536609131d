"""Compiling the kernel: on first use, into the user's cache, once for each kind of machine.

A finished library appears under its final name at once, by renaming, so a build that is killed leaves nothing that
looks finished, and processes that build at the same time do not disturb each other. A lock saves them the work; the
system frees the lock of a process that dies. A library that is not the one that was compiled, by the digest beside it,
is compiled again: loading a damaged one can end the process. To load a library is to run its code. So it is loaded only
if no other user but root could have put it there or changed it.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import logging
import os
import platform
import shlex
import shutil
import stat
import subprocess
import tempfile
import threading
import warnings
from pathlib import Path

import torch

from vision_longformer.utils.atomic_files import replacing
from vision_longformer.utils.locks import Lock, LockedError

SOURCES = ("forward.cpp", "backward.cpp")
HEADERS = ("neighbourhood.h", "layout.h", "vectors.h")
FORWARD = "vision_longformer_windowed_attention"
BACKWARD = "vision_longformer_windowed_attention_backward"
TIMEOUT = 900  # seconds for the compiler, which takes about ten where nothing else runs
VERSION_TIMEOUT = 30  # seconds, for a compiler to say what it is

_FLAGS = ("-std=c++20", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-fPIC", "-shared", "-fopenmp")
# What the processor can do, as PyTorch names it. Without these flags vectors are made of narrower ones.
_CAPABILITY_FLAGS = {
    "AVX2": ("-mavx2", "-mfma"),
    "AVX512": ("-mavx2", "-mfma", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"),
}

logger = logging.getLogger(__name__)
_one_thread_at_a_time = threading.Lock()


class BuildError(RuntimeError):
    """The kernel could not be compiled; the message says why."""


def kernel() -> ctypes.CDLL | None:
    """Return the compiled kernel, or None, after one warning for each process, where there can be none."""
    with _one_thread_at_a_time:
        return _kernel()


@functools.cache
def _kernel() -> ctypes.CDLL | None:
    try:
        return load(cache_folder())
    except (BuildError, OSError) as error:
        warnings.warn(
            f"windowed attention runs without its compiled kernel, which is slower: {error}",
            RuntimeWarning,
            stacklevel=2,
        )
        return None


def cache_folder() -> Path:
    """Return where compiled kernels are kept: `TORCH_EXTENSIONS_DIR`, or the user's cache.

    Raises:
        BuildError: The user has no home folder.
    """
    if root := os.environ.get("TORCH_EXTENSIONS_DIR"):
        return Path(root) / "vision_longformer"
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vision_longformer"
    except RuntimeError as error:
        raise BuildError("there is no home folder to keep it in: set TORCH_EXTENSIONS_DIR to one") from error


def load(cache: Path) -> ctypes.CDLL:
    """Return the kernel from the folder `cache`, compiled first if it is not there.

    Raises:
        BuildError: There is no compiler, or it failed.
        OSError: The folder cannot be written.
    """
    compiler = find_compiler()
    flags = compiler_flags()
    target = cache / f"windowed_attention_{build_key(compiler, flags)}.so"
    _make_private(cache)
    if not _is_whole(target):
        with _lock(target.with_suffix(".lock")):
            if not _is_whole(target):
                _compile(compiler, flags, target)
    return _open(target)


def _make_private(cache: Path) -> None:
    """Make a folder that none but this user can write, unless it is there.

    Raises:
        BuildError: It is there, and another user can write it.
    """
    missing = [folder for folder in (cache, *cache.parents) if not folder.exists()]
    for folder in reversed(missing):
        with contextlib.suppress(FileExistsError):  # another process was faster
            folder.mkdir(0o700)
    if _is_of_others(cache):
        raise BuildError(
            f"{cache} belongs to another user, or others may write it, and so could have put any code there: take "
            "that from them (chmod go-w), or set TORCH_EXTENSIONS_DIR to a folder of your own"
        )


def _is_of_others(path: Path) -> bool:
    """Tell whether another user than root owns, or can write, a file or folder."""
    if not hasattr(os, "geteuid"):  # Windows, where a user's folders are closed to others
        return False
    found = path.stat()
    return found.st_uid not in (os.geteuid(), 0) or bool(found.st_mode & (stat.S_IWGRP | stat.S_IWOTH))


def _is_whole(library: Path) -> bool:
    """Tell whether a library is there as it was compiled, by this user or by root."""
    try:
        place = library.resolve(strict=True)  # where it is a link, what it leads to
        if any(map(_is_of_others, (place, place.parent, _digest_file(library)))):
            return False
        return _digest_file(library).read_text() == _digest(library)
    except (OSError, ValueError):  # there is none yet, or it is no text
        return False


def _digest_file(library: Path) -> Path:
    return library.with_suffix(".sha256")


def _digest(library: Path) -> str:
    return hashlib.sha256(library.read_bytes()).hexdigest()


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


def compiler_flags() -> list[str]:
    """Return the flags for this processor and this PyTorch."""
    torch_folder = Path(torch.__file__).parent
    capability = torch.backends.cpu.get_cpu_capability()
    return [
        *_FLAGS,
        *_CAPABILITY_FLAGS.get(capability, ()),
        "-isystem",
        str(torch_folder / "include"),
        f"-L{torch_folder / 'lib'}",
    ]


def build_key(compiler: list[str], flags: list[str]) -> str:
    """Return a name for what the compiler would make: it depends on versions, processor, flags and sources."""
    version = _output([*compiler, "--version"], seconds=VERSION_TIMEOUT).stdout
    parts = [torch.__version__, *compiler, version, platform.machine(), torch.backends.cpu.get_cpu_capability(), *flags]
    digest = hashlib.sha256("\0".join(parts).encode())
    for name in SOURCES + HEADERS:
        digest.update(source_folder().joinpath(name).read_bytes())
    return digest.hexdigest()[:32]


def source_folder() -> Path:
    return Path(__file__).parent


def _compile(compiler: list[str], flags: list[str], target: Path) -> None:
    logger.warning("Compiling the kernel of windowed attention. This takes a moment and is done once.")
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / target.name
        sources = [str(source_folder() / name) for name in SOURCES]
        done = _output([*compiler, *flags, *sources, "-o", str(result), "-lc10", "-ltorch_cpu"], seconds=TIMEOUT)
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
            raise BuildError(f"{compiler[0]} failed: {errors[0] if errors else f'exit code {done.returncode}'}")
        with replacing(target, private=True) as temporary:
            shutil.copyfile(result, temporary)
            _open(temporary)  # a library that cannot be loaded must not reach the cache
            with replacing(_digest_file(target), private=True) as digest:
                digest.write_text(_digest(temporary))


def _output(command: list[str], *, seconds: float) -> subprocess.CompletedProcess[str]:
    """Run a compiler, whose messages may be in any language and encoding."""
    try:
        return subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, timeout=seconds)
    except subprocess.TimeoutExpired as error:
        raise BuildError(f"{command[0]} took longer than {seconds:g} s") from error


def _open(path: Path) -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(str(path))
        functions = [getattr(library, name) for name in (FORWARD, BACKWARD)]
    except (OSError, AttributeError) as error:
        raise BuildError(f"{path} cannot be loaded: {error}") from error
    for function in functions:
        function.restype = ctypes.c_int
    return library


def _lock(path: Path) -> Lock:
    """Return the lock of those who compile the same. Where there are no locks, they may do the same work."""
    path.touch(0o600)
    try:
        return Lock(path)
    except LockedError:
        logger.warning("Waiting for another process, which compiles the kernel of windowed attention.")
        return Lock(path, wait=True)
