"""Devices: where the numbers are computed.

cpu       NumPy
cuda      the first GPU: CuPy, and the kernels in kernels/
emulated  the kernels again, on this machine's processor, one CUDA thread after the other:
          slow, for tiny models, and to see that they are right
auto      cuda where there is a GPU that works, else cpu
"""

from types import ModuleType
from typing import Any, Literal

import numpy as np

from minigpt2.backend import Array, array_module, import_cupy, register
from minigpt2.errors import UserError

Device = Literal["auto", "cpu", "cuda", "emulated"]


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
    library = stand_in() if device == "emulated" else cupy()
    from minigpt2.device.fused import FUSED

    register(library, FUSED)
    return library


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
        found, reason = library.cuda.runtime.getDeviceCount(), "there is none"
    except Exception as error:  # CuPy's own classes, which differ with its version
        found, reason = 0, str(error).strip().splitlines()[0]
    if not found:
        raise UserError(f"--device cuda finds no GPU ({reason}): is the NVIDIA driver installed?")
    return library


def stand_in() -> Any:
    """Return the stand-in for CuPy.  Raises UserError if no compiler for the kernels is found."""
    from minigpt2.device import compile, stand_in

    if not compile.compiler():
        raise UserError(
            "--device emulated compiles kernels with g++ (or what CXX names): install it"
        )
    return stand_in


def on_device(library: ModuleType, array: Array) -> Array:
    """Return an array on a device; if it is there, itself."""
    return array if array_module(array) is library else library.asarray(array)


def on_host(array: Array) -> np.ndarray:
    """Return an array as NumPy's; if it is one, itself."""
    xp = array_module(array)
    return array if xp is np else xp.asnumpy(array)
