"""Compiling the kernel for CPUs when a wheel is built. All else is in pyproject.toml.

The kernel is a library that Python loads through ctypes, so one wheel serves every version of Python and of PyTorch.
Without a C++ compiler the wheel is built without it, and says so: it is then compiled on first use, if it can be.
An editable installation always compiles on first use.
"""

import importlib.util
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

FOLDER = "src/vision_longformer/attention/fused"

spec = importlib.util.spec_from_file_location("compiler", f"{FOLDER}/compiler.py")
compiler = importlib.util.module_from_spec(spec)
spec.loader.exec_module(compiler)


class KernelExtension(Extension):
    """The kernel for processors of one capability."""

    def __init__(self, capability):
        super().__init__(
            f"vision_longformer.attention.fused.{compiler.PREBUILT}.{compiler.prebuilt_name(capability)}",
            sources=[f"{FOLDER}/{name}" for name in compiler.SOURCES],
            depends=[f"{FOLDER}/{name}" for name in compiler.HEADERS],
            optional=True,
        )
        self.capability = capability


class BuildKernel(build_ext):
    """Compiles as the package itself does on first use."""

    def get_ext_filename(self, fullname):
        return f"{fullname.replace('.', '/')}.so"

    def run(self):
        if not (self.inplace or self.editable_mode):  # a library beside sources would outlive a change of them
            super().run()

    def build_extension(self, extension):
        target = Path(self.get_ext_fullpath(extension.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            compiler.compile_library(compiler.find_compiler(), compiler.compiler_flags(extension.capability), target)
        except compiler.BuildError as error:
            raise CompileError(
                f"the kernel for {extension.capability} is compiled on first use instead: {error}"
            ) from error
        compiler.digest_file(target).write_text(compiler.digest(target))


class AnyPythonWheel(bdist_wheel):
    """A wheel for one system and every Python 3."""

    def get_tag(self):
        *_, system = super().get_tag()
        return "py3", "none", system


setup(
    ext_modules=[KernelExtension(capability) for capability in compiler.capabilities()],
    cmdclass={"build_ext": BuildKernel, "bdist_wheel": AnyPythonWheel},
)
