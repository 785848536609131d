"""Reading `.pth` files of the published code, which may come from strangers.

A `.pth` file is a pickle, which can call any function and ask for any amount of memory. Before PyTorch's own restricted
reader sees it, its pickles are read as a list of operations, without running them: they may name nothing but what a
checkpoint of the published code names. What the archive says of its sizes is compared with the file's.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

LARGEST_PICKLE = 2 * 2**20  # bytes; a checkpoint of the largest published model with its optimizer needs 0.3 MB
MOST_RECORDS = 100_000
_ZIP = b"PK\x03\x04"
_LEGACY_PICKLES = 5  # magic number, protocol, machine, contents, keys of storages; then the storages

_NUMPY_SCALAR: Any = type(np.float64(0)).__reduce__(np.float64(0))[0]
_SCALARS = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
_SAFE_GLOBALS: list[Any] = [
    (OrderedDict, "yacs.config.CfgNode"),  # the training configuration; yacs itself is not needed to read it
    *((_NUMPY_SCALAR, name) for name in _SCALARS),
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("float64", "float32", "int64", "int32", "bool")),
]
_NAMES = {
    "_codecs.encode",  # the bytes of a NumPy scalar
    "collections.OrderedDict",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_tensor_v2",
    "torch.Size",
    "numpy.dtype",
    "yacs.config.CfgNode",
    *_SCALARS,
}
_STORAGE = re.compile(r"torch\.(\w+Storage|storage\._?(Untyped|Typed)Storage)")


def load_reference_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a `.pth` file of the published code without running code from it.

    Pickles may hold NumPy scalars and the training configuration (yacs); anything else but tensors is refused.
    Tensors are read from the file when they are used, so it must stay as it is until then.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no such file, is damaged, or holds something that is not allowed.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        is_archive = _check(path)
        with torch.serialization.safe_globals(_SAFE_GLOBALS):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=is_archive)
        _check_tensors(checkpoint)
    except _RefusedError as error:
        raise ValueError(f"{path}: {error}") from None
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        what = _forbidden(found[1]) if found else "is not a PyTorch checkpoint"
        raise ValueError(f"{path}: {what}; it was not loaded, as unpickling it could run code") from error
    except Exception as error:  # an operation that does not fit its operands raises anything
        raise ValueError(f"{path}: is not a PyTorch checkpoint, or is damaged") from error
    if not isinstance(checkpoint, dict):
        raise ValueError(f"{path}: holds a {type(checkpoint).__name__}, expected a dictionary of tensors")
    return checkpoint


class _RefusedError(Exception):
    """What is wrong with the file, as the end of a sentence that begins with its name."""


def _check(path: Path) -> bool:
    """Look at the pickles and sizes of a file; return whether it is an archive, as files are since PyTorch 1.6."""
    with path.open("rb") as file:
        head = file.read(LARGEST_PICKLE)
    if not head.startswith(_ZIP):
        stream = io.BytesIO(head)
        for _ in range(_LEGACY_PICKLES):
            _check_pickle(stream)
        return False
    reader = torch._C.PyTorchFileReader(str(path))
    names = reader.get_all_records()
    if len(names) > MOST_RECORDS:
        raise _RefusedError(f"holds {len(names):,} records, more than a checkpoint has")
    held, size = sum(map(reader.get_record_size, names)), path.stat().st_size
    if held > size:
        raise _RefusedError(f"would become {held:,} bytes, but has {size:,}: its records are compressed or overlap")
    if reader.get_record_size("data.pkl") > LARGEST_PICKLE:
        raise _RefusedError(f"has a pickle of more than {LARGEST_PICKLE:,} bytes, more than a checkpoint needs")
    _check_pickle(io.BytesIO(reader.get_record("data.pkl")))
    return True


def _check_pickle(stream: io.BytesIO) -> None:
    """Read the operations of a pickle up to its end, and see what they name."""
    for operation, argument, _ in pickletools.genops(stream):
        if operation.name == "GLOBAL":
            name = str(argument).replace(" ", ".")
            if name not in _NAMES and not _STORAGE.fullmatch(name):
                what = _forbidden(name.removeprefix("__builtin__.").removeprefix("builtins."))
                raise _RefusedError(f"{what}; it was not loaded, as unpickling it could run code")


def _forbidden(name: str) -> str:
    return f"holds {name}, which is not a tensor or plain value"


def _check_tensors(value: Any) -> None:
    """Refuse tensors with more elements than their storage has: few bytes, repeated without end."""
    values = [value]
    while values:
        value = values.pop()
        if isinstance(value, dict):
            values += value.values()
        elif isinstance(value, Tensor) and value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise _RefusedError(f"holds a tensor of shape {tuple(value.shape)}, more than is stored of it")
