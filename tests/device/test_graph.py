"""Graphs: what a captured step repeats, and the memory that the host fills for it."""

import numpy as np
import pytest

from minigpt2.device.devices import stream_of
from minigpt2.device.graph import COPIES, Slot, capture, memory_of_graphs
from minigpt2.device.products import matmul
from minigpt2.ops.gelu import gelu
from tests.kernels.support import device, machine, needs_device, single

pytestmark = needs_device


@pytest.fixture
def xp():
    with device(machine()) as library, stream_of(library):
        yield library


def test_a_graph_repeats_launches_on_what_lies_in_their_memory_now(xp):
    x, w = xp.asarray(single(5, 8)), xp.asarray(single(8, 8, seed=1))

    def work():
        return gelu(matmul(x, w), backward=False)[0]

    with memory_of_graphs(xp):
        eager = xp.asnumpy(work())
        graph, result = capture(xp, work)
    x.set(single(5, 8, seed=2))
    graph.launch(xp.cuda.get_current_stream())
    again = xp.asnumpy(work())
    np.testing.assert_array_equal(xp.asnumpy(result), again)
    assert (again != eager).any()


def test_an_error_during_a_capture_leaves_the_stream_free(xp):
    def work():
        raise ZeroDivisionError

    for _ in range(2):
        with memory_of_graphs(xp), pytest.raises(ZeroDivisionError):
            capture(xp, work)
    assert not xp.cuda.get_current_stream().is_capturing()


def test_a_copy_from_the_host_cannot_be_captured(xp):
    with memory_of_graphs(xp), pytest.raises(Exception, match=r"(?i)captur"):
        capture(xp, lambda: xp.asnumpy(xp.empty(3, np.float32)))
    assert not xp.cuda.get_current_stream().is_capturing()


def test_a_slot_holds_its_arrays_and_each_copy_is_whole(xp):
    slot = Slot(xp, [3, 40, 0, 1])
    views = slot.views([np.int32, np.float32, np.int32, np.int32])
    for k in range(2 * COPIES + 1):
        arrays = [
            np.arange(3, dtype=np.int32) + k,
            np.linspace(0, k, 40, dtype=np.float32),
            np.empty(0, np.int32),
            np.array([k], np.int32),
        ]
        slot.fill(arrays)
        for view, array in zip(views, arrays, strict=True):
            np.testing.assert_array_equal(xp.asnumpy(view), array)
