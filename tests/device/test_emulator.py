"""Emulator: right kernels run as on a GPU, and a launch that a GPU would refuse is refused."""

import re

import numpy as np
import pytest

from minigpt2.device.compile import EmulatorError
from minigpt2.device.emulator import Machine
from minigpt2.device.includes import text_of
from tests.device.small import EXPECTED, GOOD, LAUNCHES, A, i32, run
from tests.kernels.support import machine, needs_compiler

pytestmark = needs_compiler
MACHINES = [
    {},
    {"order": "descending"},
    {"order": "random", "seed": 4},
    {"ucontext": True},
    {"check": True, "traffic": True},
    {"check": True, "ucontext": True, "order": "random"},
    {"coverage": True},
]


@pytest.mark.parametrize("options", MACHINES, ids=str)
@pytest.mark.parametrize("name", EXPECTED)
def test_a_kernel_gives_the_right_result_on_every_machine(name, options):
    on = Machine(**options)
    result, expected = EXPECTED[name](run(on, GOOD, name))
    np.testing.assert_allclose(result, expected, rtol=2e-5, atol=2e-5)
    assert not on.findings


@pytest.mark.parametrize("name", [name for name in EXPECTED if name != "total"])
def test_every_order_gives_the_same_bits(name):
    fast = [options for options in MACHINES if not {"coverage", "check"} & set(options)]
    results = [EXPECTED[name](run(machine(**options), GOOD, name))[0].tobytes() for options in fast]
    assert len(results) == 4 and len(set(results)) == 1


def test_collectives_are_those_of_a_gpu():
    (out,) = run(machine(), GOOD, "collectives")
    lane = np.arange(64) % 32
    multiples = sum(1 << i for i in range(0, 32, 3))
    expected = [
        np.full(64, 5),
        lane // 8 * 8 + 3,
        np.where(lane >= 4, lane - 4, lane),
        np.where(lane % 16 < 12, lane + 4, lane),
        np.full(64, np.array(multiples, "u4").view("i4")),
        np.zeros(64),
        np.ones(64),
        np.full(64, 13),
        np.ones(64),
        np.zeros(64),
        31 - lane,
        np.arange(64),
    ]
    np.testing.assert_array_equal(out, np.transpose(expected))


def test_float16_is_converted_as_numpy_does():
    bits = np.arange(1 << 16, dtype="u2")
    y, back = np.empty(bits.size, "f4"), np.empty_like(bits)
    run = machine().compile(GOOD).get_function("convert")
    run((256,), (256,), (bits, y, back, i32(bits.size)))
    exact = bits.view("f2").astype("f4")
    np.testing.assert_array_equal(y, exact)
    number = ~np.isnan(exact)
    np.testing.assert_array_equal(back[number], bits[number])


# The wrappers of copy_async.cuh: a warp copies the first n of its 32 pieces, in two groups.

COPIES = """
extern "C" __global__ void pieces(const unsigned char* x, unsigned char* y, int n) {
    __shared__ __align__(32) unsigned char s[2][32 * 16];
    for (int half = 0; half < 2; half++) {
        const shared_address to = flipped(address_of(&s[half][16 * threadIdx.x]), 16);
        copy_async<SIZE>(to, x + 16 * threadIdx.x, (int)threadIdx.x < n + half);
        commit_copies();
    }
    wait_for_copies<1>();
    __syncwarp();
    for (int i = 0; i < SIZE; i++) y[SIZE * threadIdx.x + i] = s[0][16 * threadIdx.x + i];
    wait_for_copies<0>();
}
"""


@pytest.mark.parametrize("options", [{}, {"check": True, "traffic": True}], ids=str)
@pytest.mark.parametrize("size", [4, 8, 16])
def test_copies_of_each_size_arrive(size, options):
    on, x, y = Machine(**options), np.arange(512).astype("u1"), np.zeros((32, size), "u1")
    kernel = on.compile(text_of("copy_async.cuh") + COPIES, (f"-DSIZE={size}",))
    kernel.get_function("pieces")((1,), (32,), (x, y, i32(9)))
    sent = np.where(np.arange(32)[:, None] < 9, x.reshape(32, 16)[:, :size], 0)
    np.testing.assert_array_equal(y, sent.reshape(16, 2, size)[:, ::-1].reshape(32, size))
    assert not on.findings


# What a GPU refuses.

LIMITS = {
    "1 to 1024": ({"block": (1025,)}, "a block of"),
    "no thread": ({"block": (0,)}, "a block of"),
    "deep block": ({"block": (1, 1, 65)}, "a block of"),
    "no block": ({"grid": (0,)}, "a grid of"),
    "tall grid": ({"grid": (1, 65536)}, "a grid of"),
    "launch bound": ({"block": (16, 17)}, r"272 threads a block; __launch_bounds__\(256\)"),
}


@pytest.mark.parametrize("limit", LIMITS)
def test_a_launch_beyond_a_limit_is_refused(limit):
    sizes, message = LIMITS[limit]
    with pytest.raises(EmulatorError, match=message):
        run(machine(), GOOD, "matmul", **sizes)


def test_threads_without_a_launch_bound_end_at_1024():
    with pytest.raises(EmulatorError, match="1056 threads a block; 1024 is the most"):
        run(machine(), GOOD, "shuffled", block=(33, 32))


def test_shared_memory_ends_at_48_kib_unless_more_is_asked_for():
    function = machine().compile(GOOD).get_function("column")
    y = np.empty(32, "f4")
    function((1,), (32,), (y, i32(32)), shared_mem=48 << 10)
    with pytest.raises(
        EmulatorError, match=r"0 \+ 49153 bytes of shared memory; 49152 is the most"
    ):
        function((1,), (32,), (y, i32(32)), shared_mem=49153)
    function.max_dynamic_shared_size_bytes = 200 << 10
    function((1,), (32,), (y, i32(32)), shared_mem=99 << 10)
    with pytest.raises(EmulatorError, match="101376 is the most"):
        function((1,), (32,), (y, i32(32)), shared_mem=(99 << 10) + 1)


def test_static_shared_memory_counts():
    function = machine().compile(GOOD).get_function("matmul")
    assert function.shared_size_bytes == 2 * 16 * 16 * 4
    with pytest.raises(EmulatorError, match=r"2048 \+ 47105 bytes"):
        function((2, 3), (16, 16), LAUNCHES["matmul"][2](), shared_mem=47105)


# Arguments.

ARGUMENTS = {
    "float64": (lambda a: (a[0].astype("f8"), *a[1:]), "points to f4; the array holds float64"),
    "a view": (lambda a: (A.T, *a[1:]), "must be a contiguous array"),
    "int64": (lambda a: (*a[:3], np.int64(33), *a[4:]), "must be a numpy.int32, not int64"),
    "Python's int": (lambda a: (*a[:3], 33, *a[4:]), "must be a numpy.int32, not int"),
    "a list": (lambda a: ([1.0], *a[1:]), "must be a contiguous array"),
    "one too few": (lambda a: a[:5], "takes 6 arguments, not 5"),
}


@pytest.mark.parametrize("what", ARGUMENTS)
def test_an_argument_that_the_kernel_does_not_take_is_refused(what):
    change, message = ARGUMENTS[what]
    with pytest.raises(TypeError, match=re.escape(message)):
        run(machine(), GOOD, "matmul", change(LAUNCHES["matmul"][2]()))


def test_an_unknown_kernel_is_an_error_that_lists_the_known_ones():
    with pytest.raises(EmulatorError, match="no kernel 'matmull'; there are matmul, reverse"):
        machine().compile(GOOD).get_function("matmull")
