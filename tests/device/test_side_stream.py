"""Side stream: its launches leave the bits as they are, and the arrays that they read are held."""

import numpy as np
import pytest

from minigpt2.backend import Target
from minigpt2.device import fused_columns, fused_linear
from minigpt2.device import side_stream as side
from minigpt2.device.devices import stream_of
from minigpt2.device.fake_copies import set_bits
from minigpt2.device.graph import capture, memory_of_graphs
from minigpt2.device.products import matmul
from minigpt2.device.side_stream import on_side_stream, wait_for_side_stream
from minigpt2.ops.linear import Saved, linear_backward
from tests.kernels.support import device, emulated_only, machine, needs_device, single

pytestmark = needs_device
ROWS, C = 6, 8


@pytest.fixture
def xp():
    with device(machine()) as library, stream_of(library):
        yield library


def results_of(xp, layers=4, aside="all"):
    """The gradients and dx of linear maps one behind the other.

    As they are when launched one by one, and after each of two launches of a graph.  The memory of
    a dy is used again as soon as it is free.
    """
    w, start = xp.asarray(single(C, C, scale=0.3)), xp.asarray(single(ROWS, C, seed=layers))
    inputs = [xp.asarray(single(ROWS, C, seed=k)) for k in range(layers)]
    weights = [xp.empty((C, C), xp.float32) for _ in inputs]
    biases = [xp.empty(C, xp.float32) for _ in inputs]
    outputs = [*weights, *biases]

    def work():
        dy = matmul(start, w)
        for x, dw, db in zip(inputs, weights, biases, strict=True):
            dy, *_ = linear_backward(dy, Saved(x, w), weight=Target(dw), bias=Target(db))
        return dy

    with memory_of_graphs(xp):
        dx = work()
        results = [[xp.asnumpy(a) for a in (dx, *outputs)]]
        graph, dx = capture(xp, work, aside=aside)
    for _ in range(2):
        for array in outputs:
            array.fill(np.nan)
        graph.launch(xp.cuda.get_current_stream())
        results.append([xp.asnumpy(a) for a in (dx, *outputs)])
    return results


def same(results, others):
    """Whether two lists of arrays have the same bits."""
    return all(np.array_equal(a, b) for a, b in zip(results, others, strict=True))


@pytest.mark.parametrize("aside", ["all", "small"])
@pytest.mark.parametrize("ahead", [1, 2, 5])
def test_gradients_from_the_side_stream_have_the_same_bits(xp, monkeypatch, ahead, aside):
    monkeypatch.setattr(side, "AHEAD", ahead)
    eager, *graphs = results_of(xp, aside=aside)
    assert all(same(eager, graph) for graph in graphs)


@emulated_only
def test_sums_that_are_written_over_too_early_change_bits_where_the_side_stream_is_late(
    xp, monkeypatch
):
    """Partial sums, whose memory is given to the next ones as soon as nobody holds it."""
    monkeypatch.setattr(side, "AHEAD", 9)
    monkeypatch.setattr(
        fused_columns,
        "on_side_stream",
        lambda library, *used, small: on_side_stream(library, small=small),
    )
    eager, early, late = results_of(xp, aside="small")
    assert same(eager, early) and not same(eager, late)


@emulated_only
def test_only_small_launches_go_aside_where_a_step_is_at_the_power_limit(xp):
    def in_main_stream(aside):
        x, w = xp.asarray(single(ROWS, C)), xp.asarray(single(C, C))

        def work():
            linear_backward(x, Saved(x, w))

        with memory_of_graphs(xp):
            work()
            graph, _ = capture(xp, work, aside=aside)
        launches = [launch for launch in graph.launches if launch.function is not set_bits]
        return [launch.first for launch in launches]

    # the products for dw, the sums of each block of threads, their totals, the product for dx
    assert in_main_stream("small") == [True, True, False, True]
    assert in_main_stream("all") == [False, False, False, True]


@emulated_only
def test_memory_that_is_not_held_changes_bits_where_the_side_stream_is_late(xp, monkeypatch):
    monkeypatch.setattr(side, "AHEAD", 9)
    monkeypatch.setattr(
        fused_linear, "on_side_stream", lambda library, *read: on_side_stream(library)
    )
    eager, early, late = results_of(xp)
    assert same(eager, early) and not same(eager, late)


@emulated_only
def test_a_group_within_a_group_is_a_part_of_it(xp):
    a, b = xp.asarray(single(2, 2)), xp.asarray(single(2, 2))

    def work():
        main = xp.cuda.get_current_stream()
        with on_side_stream(xp, a):
            inner = xp.cuda.get_current_stream()
            with on_side_stream(xp, b):
                assert xp.cuda.get_current_stream() is inner is not main
                a.fill(1)
            assert xp.cuda.get_current_stream() is inner
        assert xp.cuda.get_current_stream() is main
        assert len(side._groups[xp].under_way) == 1
        wait_for_side_stream(xp)

    with memory_of_graphs(xp):
        capture(xp, work, aside="all")


def test_a_capture_has_a_side_stream_only_where_it_is_asked_for(xp):
    def work():
        assert not side._groups

    with memory_of_graphs(xp):
        capture(xp, work)
    assert side.pays(10**6, 4) and side.pays(960, 2) and not side.pays(4096, 2)
    assert side.what_goes_aside(960, 2) == "all" and side.what_goes_aside(4096, 2) == "small"


def test_without_a_capture_there_is_no_side_stream(xp):
    stream = xp.cuda.get_current_stream()
    with on_side_stream(xp):
        assert xp.cuda.get_current_stream() == stream
    wait_for_side_stream(xp)


def test_an_error_in_a_capture_closes_the_side_stream(xp):
    def work():
        with on_side_stream(xp):
            raise ZeroDivisionError

    with memory_of_graphs(xp), pytest.raises(ZeroDivisionError):
        capture(xp, work, aside="all")
    assert not side._groups
    assert len(results_of(xp)) == 3
