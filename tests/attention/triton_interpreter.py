"""Triton's interpreter, made right and faster. To be imported in a process whose TRITON_INTERPRET was 1 from the start.

Of bfloat16 the interpreter multiplies the bits as if they were integers (triton #11584), and cuts numbers off where
GPUs round to the nearest. Both are put right here, so that kernels are tested as they are compiled.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
import triton.language as tl
from triton.runtime import interpreter

_Builder = interpreter.InterpreterBuilder
_patched_modules: set[str] = set()
_multiply, _cast = _Builder.create_dot, _Builder.cast_impl


def repair() -> None:
    """Put right what is said above, once for this process."""
    _Builder.create_dot = _create_dot
    _Builder.cast_impl = _cast_impl
    # Functions that kernels call patch the language each time: half of all time. Checks of integers take a third.
    interpreter.InterpretedFunction.__call__ = _call_patched
    builder = interpreter.interpreter_builder
    builder.options = dataclasses.replace(builder.options, sanitize_overflow=False)


def _create_dot(self: Any, a: Any, b: Any, *others: Any) -> Any:
    return _multiply(self, *(_widen(x) if x.dtype == tl.bfloat16 else x for x in (a, b)), *others)


def _cast_impl(self: Any, src: Any, dst_type: Any) -> Any:
    if src.dtype.scalar == tl.float32 and dst_type.scalar == tl.bfloat16:
        numbers = torch.from_numpy(np.ascontiguousarray(src.data))
        bits = numbers.bfloat16().view(torch.int16).numpy().view(np.uint16)
        return interpreter.TensorHandle(bits.reshape(src.data.shape), tl.bfloat16)
    if src.dtype.scalar == tl.bfloat16 and dst_type.scalar == tl.float32:
        return _widen(src)
    return _cast(self, src, dst_type)


def _widen(x: Any) -> Any:
    """Return bfloat16 numbers as float32 ones: they are the upper halves of these."""
    return interpreter.TensorHandle((x.data.astype(np.uint32) << 16).view(np.float32), tl.float32)


def _call_patched(self: Any, *args: Any, **kwargs: Any) -> Any:
    if self.fn.__module__ not in _patched_modules:  # a kernel's launch patches what its own module sees
        _patched_modules.add(self.fn.__module__)
        interpreter._patch_lang(self.fn)
    return self.rewrite()(*args, **kwargs)
