"""Backend: an op is replaced on a device and nowhere else, and a device is asked once."""

from types import SimpleNamespace

import numpy as np
import pytest

from minigpt2 import backend
from minigpt2.backend import array_module, fusible, register, send_to_host, to_host
from minigpt2.device import fake_cupy


class DeviceArray:
    """An array of a device: NumPy's, in a box."""

    def __init__(self, host):
        self.host = host


@pytest.fixture
def device(monkeypatch):
    """A device's library."""
    library = SimpleNamespace(ndarray=DeviceArray)
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


@pytest.fixture
def copies(device):
    """The copies to the host of a device that behaves as CuPy."""
    register(fake_cupy)
    fake_cupy.copies.clear()
    return fake_cupy.copies


def test_arrays_come_back_in_one_copy(copies):
    parts = [np.arange(n, dtype=np.float32).reshape(-1, 1) for n in (3, 1, 4)]
    there = [fake_cupy.asarray(part) for part in parts]
    for found, part in zip(to_host(*there), parts, strict=True):
        np.testing.assert_array_equal(found, part.ravel())
    assert dict(copies) == {"get": 1}
    for found, part in zip(to_host(*parts), parts, strict=True):
        np.testing.assert_array_equal(found, part.ravel())
    np.testing.assert_array_equal(to_host(parts[0], 2.5)[1], [2.5])
    assert dict(copies) == {"get": 1}
    here = np.arange(6.0).reshape(2, 3)
    mixed = to_host(here, None, there[0])
    np.testing.assert_array_equal(mixed[0], here.ravel())  # what is on the host stays there
    np.testing.assert_array_equal(mixed[2], parts[0].ravel())
    assert mixed[1] is to_host(None)[0] is None
    assert dict(copies) == {"get": 2}


def test_what_was_sent_to_the_host_is_what_was_there_when_it_was_sent(copies):
    there = fake_cupy.asarray(np.arange(3, dtype=np.float32))
    first = send_to_host(there)
    there += 5
    second = send_to_host(there)
    np.testing.assert_array_equal(first()[0], [0, 1, 2])
    np.testing.assert_array_equal(second()[0], [5, 6, 7])
    assert dict(copies) == {"get": 2}


def test_nobody_waits_for_what_came_behind_a_copy(copies, monkeypatch):
    """Neither for the whole stream, nor for later copies."""
    monkeypatch.setattr(fake_cupy.cuda.Stream, "synchronize", lambda _: pytest.fail("waited"))
    first, second = (send_to_host(fake_cupy.asarray(np.ones(2))) for _ in range(2))
    queue = fake_cupy.cuda.get_current_stream().copies
    sent = queue.sent
    first()
    assert (queue.arrived, queue.sent) == (sent - 1, sent)
    second()
    assert queue.arrived == sent
