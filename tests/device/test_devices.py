"""Devices: each opens its library, or says why it cannot."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from minigpt2 import backend
from minigpt2.device.devices import describe_device, open_device
from minigpt2.device.fake_stream import Stream
from minigpt2.errors import UserError


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    """Leave no device in use."""
    monkeypatch.setattr(backend, "LIBRARIES", [])
    monkeypatch.setattr(backend, "FUSED", {})


def no_driver():
    """What CuPy does where there is no driver."""
    raise RuntimeError("cudaErrorInsufficientDriver: CUDA driver version is insufficient\nmore")


def cupy_with(count):
    """A CuPy that finds this many GPUs."""
    runtime = SimpleNamespace(
        getDeviceCount=count, getDeviceProperties=lambda number: {"name": b"A100"}
    )
    cuda = SimpleNamespace(
        runtime=runtime,
        Device=lambda: SimpleNamespace(id=0),
        Stream=Stream,
        get_current_stream=lambda: Stream.current,
    )
    return SimpleNamespace(cuda=cuda, ndarray=type("array", (), {}), __version__="14.2.0")


@pytest.mark.parametrize("cupy", [None, cupy_with(no_driver), cupy_with(lambda: 0)])
def test_auto_is_numpy_without_a_gpu(monkeypatch, cupy):
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    assert open_device("auto") is np
    assert not backend.LIBRARIES and describe_device(np) == "cpu: NumPy"


def test_auto_is_the_gpu_that_there_is(monkeypatch):
    cupy = cupy_with(lambda: 1)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    assert open_device("auto") is cupy and [cupy] == backend.LIBRARIES
    assert describe_device(cupy) == "A100: CuPy 14.2.0, and the kernels of this project"


def test_without_a_compiler_the_emulator_says_so(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match="compiles kernels with g"):
        open_device("emulated")
