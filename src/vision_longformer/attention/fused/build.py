"""The kernel's library: the one that came with the package, or one that is compiled on first use into the user's cache.

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
import shutil
import stat
import tempfile
import threading
import warnings
from pathlib import Path

import torch

from vision_longformer.attention.fused import compiler
from vision_longformer.attention.fused.compiler import BuildError
from vision_longformer.utils.atomic_files import replacing
from vision_longformer.utils.locks import Lock, LockedError

FORWARD = "vision_longformer_windowed_attention"
BACKWARD = "vision_longformer_windowed_attention_backward"

logger = logging.getLogger(__name__)
_one_thread_at_a_time = threading.Lock()


def kernel() -> ctypes.CDLL | None:
    """Return the kernel, or None, after one warning for each process, where there can be none."""
    with _one_thread_at_a_time:
        return _kernel()


@functools.cache
def _kernel() -> ctypes.CDLL | None:
    try:
        return load_prebuilt()
    except BuildError as error:
        logger.info("The kernel of windowed attention that came with the package is not used: %s", error)
    try:
        return load(cache_folder())
    except (BuildError, OSError) as error:
        warnings.warn(
            f"windowed attention runs without its compiled kernel, which is slower: {error}",
            RuntimeWarning,
            stacklevel=2,
        )
        return None


def load_prebuilt() -> ctypes.CDLL:
    """Return the kernel that was compiled when the package was built.

    Raises:
        BuildError: There is none for this processor, it is damaged, or others could have changed it.
    """
    capability = _capability()
    library = prebuilt_folder() / f"{compiler.prebuilt_name(capability)}.so"
    if not library.exists():
        raise BuildError(f"none came with the package for this processor ({capability})")
    place = library.resolve()  # where it is a link, what it leads to
    if any(_is_of_others(path) and not _is_as_open_as_this_module(path) for path in (place, place.parent)):
        raise BuildError(f"{library} belongs to another user, or others may write it")
    if not _has_digest(library):
        raise BuildError(f"{library} is damaged: install the package again")
    return _open(library)


def prebuilt_folder() -> Path:
    """Return where libraries lie that came with the package."""
    return compiler.source_folder() / compiler.PREBUILT


def _capability() -> str:
    """Return what this processor can do, as PyTorch names it."""
    return str(torch.backends.cpu.get_cpu_capability())


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
    command = compiler.find_compiler()
    flags = compiler.compiler_flags(_capability())
    target = cache / f"windowed_attention_{build_key(command, flags)}.so"
    _make_private(cache)
    if not _is_whole(target):
        with _lock(target.with_suffix(".lock")):
            if not _is_whole(target):
                _compile(command, flags, target)
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


def _is_as_open_as_this_module(path: Path) -> bool:
    """Tell whether nobody can write it but this user, root, and the group that can write this module, which runs too.

    Packages are installed so where the umask is 002, as it is where each user has a group.
    """
    found, module = path.stat(), Path(__file__).stat()
    of_others = found.st_uid not in (os.geteuid(), 0) or bool(found.st_mode & stat.S_IWOTH)
    return not of_others and bool(module.st_mode & stat.S_IWGRP) and found.st_gid == module.st_gid


def _is_whole(library: Path) -> bool:
    """Tell whether a library is there as it was compiled, by this user or by root."""
    try:
        place = library.resolve(strict=True)  # where it is a link, what it leads to
        if any(map(_is_of_others, (place, place.parent, compiler.digest_file(library)))):
            return False
    except OSError:  # there is none yet
        return False
    return _has_digest(library)


def _has_digest(library: Path) -> bool:
    """Tell whether a library is the one that was compiled."""
    try:
        return compiler.digest_file(library).read_text() == compiler.digest(library)
    except (OSError, ValueError):  # there is none, or it is no text
        return False


def build_key(command: list[str], flags: list[str]) -> str:
    """Return a name for what the compiler would make: it depends on versions, processor, flags and sources."""
    parts = [*command, compiler.version(command), platform.machine(), _capability(), *flags]
    digest = hashlib.sha256("\0".join(parts).encode())
    for name in compiler.SOURCES + compiler.HEADERS:
        digest.update(compiler.source_folder().joinpath(name).read_bytes())
    return digest.hexdigest()[:32]


def _compile(command: list[str], flags: list[str], target: Path) -> None:
    logger.warning("Compiling the kernel of windowed attention. This takes a moment and is done once.")
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / target.name
        compiler.compile_library(command, flags, result)
        with replacing(target, private=True) as temporary:
            shutil.copyfile(result, temporary)
            _open(temporary)  # a library that cannot be loaded must not reach the cache
            with replacing(compiler.digest_file(target), private=True) as digest:
                digest.write_text(compiler.digest(temporary))


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
