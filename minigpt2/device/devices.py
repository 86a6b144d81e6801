"""Devices: where the numbers are computed.

cpu       NumPy
cuda      the first GPU: CuPy and the kernels in kernels/
emulated  the same kernels on this machine's processor, one CUDA thread after the other: slow, for
          tiny models, to see that they are right
auto      cuda if there is a GPU that works, else cpu
"""

from types import ModuleType
from typing import Any, Literal

import numpy as np

from minigpt2.backend import import_cupy, register
from minigpt2.errors import UserError

Device = Literal["auto", "cpu", "cuda", "emulated"]


def describe_device(library: ModuleType) -> str:
    """Return a one-line description of the device of an array library."""
    if library is np:
        return "cpu: NumPy"
    if hasattr(library, "machine"):
        return "emulated: the GPU's kernels, on this machine's processor, one thread at a time"
    name = library.cuda.runtime.getDeviceProperties(library.cuda.Device().id)["name"]
    return f"{name.decode()}: CuPy {library.__version__}, and the kernels of this project"


def open_device(device: Device) -> ModuleType:
    """Return the array library of a device, ready for use.

    Raises UserError where the device cannot be used.
    """
    if device == "cpu":
        return np
    if device == "auto":
        try:
            return open_device("cuda")
        except UserError:
            return np
    library = fake_cupy() if device == "emulated" else cupy()
    from minigpt2.device.captured import CAPTURED
    from minigpt2.device.fused import FUSED

    register(library, {**FUSED, **CAPTURED})
    stream_of(library).use()
    return library


_streams: list[Any] = []  # held here, so that they live as long as the program


def stream_of(library: Any) -> Any:
    """Return the stream that all work goes into: CUDA's own first one cannot capture a graph."""
    stream = library.cuda.get_current_stream()
    if stream == library.cuda.Stream.null:
        stream = library.cuda.Stream(non_blocking=True)
        _streams.append(stream)
    return stream


def cupy() -> ModuleType:
    """Return CuPy.  Raises UserError if it is not installed, or finds no GPU."""
    try:
        library = import_cupy()
    except ImportError:
        raise UserError(
            "--device cuda needs CuPy: pip install 'minigpt2[cuda12]' or 'minigpt2[cuda13]', "
            "by the CUDA version that nvidia-smi shows"
        ) from None
    try:
        gpus, reason = library.cuda.runtime.getDeviceCount(), "there is none"
    except Exception as error:  # CuPy's own classes, which differ with its version
        gpus, reason = 0, str(error).strip().splitlines()[0]
    if not gpus:
        raise UserError(f"--device cuda finds no GPU ({reason}): is the NVIDIA driver installed?")
    return library


def fake_cupy() -> Any:
    """Return the fake CuPy.  Raises UserError if there is no compiler for the kernels."""
    from minigpt2.device import compile, fake_cupy

    if not compile.compiler():
        raise UserError(
            "--device emulated compiles kernels with g++ (or what CXX names): install it"
        )
    return fake_cupy
