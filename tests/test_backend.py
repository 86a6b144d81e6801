"""Backend: an op is replaced on a device and nowhere else, and a device is asked once."""

from types import SimpleNamespace

import numpy as np
import pytest

from minigpt2 import backend
from minigpt2.backend import array_module, fusible, register, to_host


class DeviceArray:
    """An array of a device: NumPy's, in a box."""

    def __init__(self, host):
        self.host = host

    def __len__(self):
        return len(self.host)

    def ravel(self):
        return DeviceArray(self.host.ravel())


@pytest.fixture
def device(monkeypatch):
    """A device's library that is in use, and counts what is copied from it."""
    copies = []

    def asnumpy(array):
        copies.append(array.host.size)
        return array.host

    def concatenate(arrays):
        return DeviceArray(np.concatenate([array.host for array in arrays]))

    library = SimpleNamespace(
        ndarray=DeviceArray, asnumpy=asnumpy, concatenate=concatenate, copies=copies
    )
    monkeypatch.setattr(backend, "LIBRARIES", [])
    monkeypatch.setattr(backend, "FUSED", {})
    return library


@fusible
def double(x, times=2):
    """An op."""
    return "formula", times


def test_an_array_belongs_to_the_library_that_made_it(device):
    there = DeviceArray(np.ones(3))
    assert array_module(there) is np  # a library that is not in use is not asked
    register(device)
    assert array_module(there) is device
    assert array_module(np.ones(3)) is np
    register(device)
    assert [device] == backend.LIBRARIES


def test_a_fused_op_takes_the_place_of_its_formula_on_the_device_alone(device):
    def fused(x, times=2):
        return NotImplemented if times == 5 else ("kernel", times)

    register(device, {double: fused})
    there = DeviceArray(np.ones(3))
    assert double(there, 3) == ("kernel", 3)
    assert double(there, times=4) == ("kernel", 4)
    assert double(there, 5) == ("formula", 5)  # the kernel cannot do this one
    assert double(np.ones(3)) == ("formula", 2)
    assert double.__doc__ == "An op."


def test_without_a_fused_op_the_formula_runs_on_the_device(device):
    register(device)
    assert double(DeviceArray(np.ones(3))) == ("formula", 2)


def test_arrays_come_back_in_one_copy(device):
    register(device)
    parts = [np.arange(n, dtype=np.float32).reshape(-1, 1) for n in (3, 1, 4)]
    for found, part in zip(to_host(*map(DeviceArray, parts)), parts, strict=True):
        np.testing.assert_array_equal(found, part.ravel())
    assert device.copies == [8]
    for found, part in zip(to_host(*parts), parts, strict=True):
        np.testing.assert_array_equal(found, part.ravel())
    np.testing.assert_array_equal(to_host(parts[0], 2.5)[1], [2.5])
    assert device.copies == [8]
    here = np.arange(6.0).reshape(2, 3)
    for found, part in zip(to_host(here, DeviceArray(parts[0])), (here, parts[0]), strict=True):
        np.testing.assert_array_equal(found, part.ravel())  # what is on the host stays there
    assert device.copies == [8, 3]
