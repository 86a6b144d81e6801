"""Emulator: right kernels run as on a GPU, wrong ones are told with the line that is wrong."""

import re
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from minigpt2.device import compile as compiling
from minigpt2.device.compile import EmulatorError, build
from minigpt2.device.emulator import Machine
from minigpt2.errors import UserError
from minigpt2.shipped import shipped
from tests.kernels.support import machine, needs_compiler, single

pytestmark = needs_compiler
SMALL = (Path(__file__).parent / "small.cu").read_text(encoding="utf-8")
i32 = np.int32
A, B = single(33, 40), single(40, 20)
X = single(64)


def line_of(mark, text=SMALL):
    """The number of the line that bears a mark."""
    return next(n for n, line in enumerate(text.splitlines(), 1) if mark in line)


def spoilt(mark, instead=""):
    """The small kernels with the line that bears a mark exchanged for another."""
    lines = SMALL.splitlines()
    lines[line_of(f"[{mark}]") - 1] = instead
    return f'#line 1 "small.cu"\n{chr(10).join(lines)}\n'


GOOD = f'#line 1 "small.cu"\n{SMALL}'
LAUNCHES = {
    "matmul": (
        (2, 3),
        (16, 16),
        lambda: (A, B, np.full((33, 20), np.nan, "f4"), *map(i32, (33, 20, 40))),
    ),
    "reverse": ((1,), (64,), lambda: (X, np.empty_like(X), i32(64))),
    "neighbours": ((1,), (64,), lambda: (X, np.empty_like(X))),
    "halves": ((1,), (32,), lambda: (X[:32].copy(), np.empty(32, "f4"))),
    "total": ((5,), (64,), lambda: (single(300), np.zeros(1, "f4"), i32(300))),
    "shuffled": ((1,), (64,), lambda: (X, np.empty_like(X))),
    "collectives": ((1,), (64,), lambda: (np.zeros((64, 12), "i4"),)),
    "wide": ((1,), (1,), lambda: (np.empty(8, "f4"),)),
}
EXPECTED = {
    "matmul": lambda a: (a[2], A @ B),
    "reverse": lambda a: (a[1], X[::-1]),
    "neighbours": lambda a: (a[1], X.reshape(-1, 2)[:, ::-1].ravel()),
    "halves": lambda a: (a[1], X[:32].reshape(-1, 2)[:, ::-1].ravel()),
    "total": lambda a: (a[1], [single(300).sum()]),
    "shuffled": lambda a: (a[1], np.repeat(X.reshape(-1, 2).sum(-1), 2)),
    "wide": lambda a: (a[0][:4], [1, 2, 3, 4]),
}


def run(on, text, name, arguments=None, **how):
    """Launch a kernel; returns its arguments."""
    grid, block, make = LAUNCHES[name]
    arguments = arguments or make()
    function = on.compile(text).get_function(name)
    function(how.get("grid", grid), how.get("block", block), arguments)
    return arguments


def checked(text, name, **how):
    """What the checks find in a kernel."""
    on = Machine(check=True, **how)
    run(on, text, name)
    return on.findings


WAYS = [
    {},
    {"order": "descending"},
    {"order": "random", "seed": 4},
    {"ucontext": True},
    {"check": True, "traffic": True},
    {"check": True, "ucontext": True, "order": "random"},
    {"coverage": True},
]


@pytest.mark.parametrize("how", WAYS, ids=str)
@pytest.mark.parametrize("name", EXPECTED)
def test_a_kernel_does_what_it_says_however_it_is_run(name, how):
    on = Machine(**how)
    found, expected = EXPECTED[name](run(on, GOOD, name))
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)
    assert not on.findings


@pytest.mark.parametrize("name", [name for name in EXPECTED if name != "total"])
def test_every_way_gives_the_same_bits(name):
    ways = [how for how in WAYS if not how.get("coverage") and not how.get("check")]
    found = [EXPECTED[name](run(machine(**how), GOOD, name))[0].tobytes() for how in ways]
    assert found.count(found[0]) == len(found)


# Faults: what is spoilt, in which kernel, and what must be said of which lines.

FAULTS = {
    "no first barrier": (spoilt("first barrier"), "matmul", "race", ("As[threadIdx.y][k]",)),
    "no second barrier": (spoilt("second barrier"), "matmul", "race", ("As[threadIdx.y][k]",)),
    "half of the tile is never filled": (
        spoilt("fill", "if (threadIdx.x < 32) s[threadIdx.x] = x[threadIdx.x];"),
        "reverse",
        "read before it is written",
        ("s[63 - threadIdx.x]",),
    ),
    "no barrier of the warp": (
        spoilt("warp barrier"),
        "neighbours",
        "race",
        ("s[threadIdx.x ^ 1]",),
    ),
    "over the border of two halves": (
        spoilt("within a half", "y[threadIdx.x] = s[31 - threadIdx.x];"),
        "halves",
        "race",
        ("[a half writes]", "[within a half]"),
    ),
    "a shuffle is no barrier": (
        spoilt("warp barrier", "__shfl_sync(ALL, 0, 0);"),
        "neighbours",
        "race",
        ("s[threadIdx.x ^ 1]",),
    ),
    "blocks add without an atomic": (
        spoilt("atomic", "if (i < n) sum[0] += x[i];"),
        "total",
        "race",
        ("[atomic]",),
    ),
    "a write to a const array": (
        spoilt("shuffle", "((float*)x)[threadIdx.x] = v;"),
        "shuffled",
        "const",
        ("[shuffle]",),
    ),
    "an address that is not a multiple of 16": (
        spoilt("aligned", "float4* p = (float4*)(y + 1);"),
        "wide",
        "misaligned",
        ("p[0] = make_float4",),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_at_its_line(fault):
    text, name, kind, marks = FAULTS[fault]
    findings = [found for found in checked(text, name) if kind in found.kind]
    told = " ".join(f"{found.line} {found.other}" for found in findings)
    for mark in marks:
        assert f"small.cu:{line_of(mark)}" in told, told
    assert all(found.kernel == name and found.times > 0 for found in findings)


STOPPED = {
    "no test of the bounds": (
        spoilt("bounds"),
        "matmul",
        r"out of bounds: a write .*\n.*small\.cu",
    ),
    "a barrier that not all reach": (
        spoilt("first barrier", "if (threadIdx.x < 8) __syncthreads();"),
        "matmul",
        "others wait|waits for ever",
    ),
    "two barriers for one": (
        spoilt("first barrier", "if (threadIdx.x < 8) __syncthreads(); else\n__syncthreads();"),
        "matmul",
        r"divergent __syncthreads\(\)",
    ),
    "some leave before the barrier": (
        spoilt("leave early", "if (row >= M) return;"),
        "matmul",
        r"waits for ever in __syncthreads\(\); \d+ of 256 threads have returned",
    ),
    "half a warp under a full mask": (
        spoilt("shuffle", "if (threadIdx.x < 16) v += __shfl_xor_sync(ALL, v, 1);"),
        "shuffled",
        "waits for ever in an operation of its warp",
    ),
    "a lane that its mask leaves out": (
        spoilt("shuffle", "v += __shfl_xor_sync(0x0000ffffu, v, 1);"),
        "shuffled",
        "whose mask leaves it out",
    ),
    "a lane that takes no part": (
        spoilt(
            "shuffle",
            "if (threadIdx.x % 32 < 16) v += __shfl_sync(0x0000ffffu, v, 20);",
        ),
        "shuffled",
        "reads a lane that takes no part",
    ),
}


@pytest.mark.parametrize("fault", STOPPED)
def test_a_fault_that_cannot_go_on_stops_the_kernel(fault):
    text, name, said = STOPPED[fault]
    with pytest.raises(EmulatorError, match=said):
        checked(text, name)


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
    how, said = LIMITS[limit]
    with pytest.raises(EmulatorError, match=said):
        run(machine(), GOOD, "matmul", **how)


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
    "a view": (lambda a: (A.T, *a[1:]), "whose numbers stand together"),
    "int64": (lambda a: (*a[:3], np.int64(33), *a[4:]), "must be a numpy.int32, not int64"),
    "Python's int": (lambda a: (*a[:3], 33, *a[4:]), "must be a numpy.int32, not int"),
    "a list": (lambda a: ([1.0], *a[1:]), "must be an array"),
    "one too few": (lambda a: a[:5], "takes 6 arguments, not 5"),
}


@pytest.mark.parametrize("what", ARGUMENTS)
def test_an_argument_that_the_kernel_does_not_take_is_refused(what):
    change, said = ARGUMENTS[what]
    with pytest.raises(TypeError, match=re.escape(said)):
        run(machine(), GOOD, "matmul", change(LAUNCHES["matmul"][2]()))


def test_a_kernel_that_is_not_there_is_told():
    with pytest.raises(EmulatorError, match="no kernel 'matmull'; there are matmul, reverse"):
        machine().compile(GOOD).get_function("matmull")


def test_a_text_that_does_not_compile_is_told_with_its_line():
    with pytest.raises(EmulatorError, match=rf"small\.cu:{line_of('[fill]')}"):
        machine().compile(spoilt("fill", "s[threadIdx.x] = nothing;"))


# Traffic, by counts that can be made by hand.


def counts(name, *arguments, block=(32,), shared=0):
    """got and ideal of every access of a kernel by space and kind, in one block."""
    on = Machine(traffic=True)
    on.compile(GOOD).get_function(name)((1,), block, arguments, shared_mem=shared)
    return {(t.space, t.kind): (t.got, t.ideal) for t in on.traffic}


@pytest.mark.parametrize(("stride", "sectors"), [(1, 4), (2, 8), (8, 32), (32, 32)])
def test_sectors_of_a_strided_load(stride, sectors):
    found = counts("copy", single(32 * stride), np.empty(32, "f4"), i32(stride))
    assert found == {("global", "load"): (sectors, 4), ("global", "store"): (4, 4)}


def test_sectors_of_a_wide_load():
    found = counts("quads", single(128), np.empty(128, "f4"))
    assert found == {("global", "load"): (16, 16), ("global", "store"): (16, 16)}


@pytest.mark.parametrize(("width", "passes"), [(32, 32), (33, 1), (34, 2), (36, 4)])
def test_bank_conflicts_of_a_column(width, passes):
    found = counts("column", np.empty(32, "f4"), i32(width), shared=4 * 32 * width)
    assert found["shared", "load"] == (passes, 1)
    assert found["shared", "store"] == (32, 32)


@pytest.mark.parametrize("order", ["ascending", "random"])
def test_lanes_are_served_by_their_numbers_in_whatever_order_they_ran(order):
    on = Machine(traffic=True, order=order)
    on.compile(GOOD).get_function("fours")((1,), (32,), (np.empty((32, 4), "f4"),))
    assert {(t.space, t.kind): (t.got, t.ideal) for t in on.traffic} == {
        ("shared", "store"): (4, 4),
        ("shared", "load"): (4, 4),
        ("global", "store"): (16, 16),
    }


def test_the_readme_shows_what_its_example_prints(capsys):
    page = (shipped("kernels") / "emulator" / "README.md").read_text(encoding="utf-8")
    blocks = (re.findall(f"```{kind}\n(.*?)```", page, re.S) for kind in ("python", "text"))
    (example,), (printed,) = blocks
    exec(example, {})
    assert capsys.readouterr().out == printed
    exec(example.replace("    y[", "    __syncthreads();\n    y["), {})
    assert capsys.readouterr().out == ""


# Compiling.


def test_float16_is_converted_as_numpy_does():
    bits = np.arange(1 << 16, dtype="u2")
    y, back = np.empty(bits.size, "f4"), np.empty_like(bits)
    run = machine().compile(GOOD).get_function("convert")
    run((256,), (256,), (bits, y, back, i32(bits.size)))
    exact = bits.view("f2").astype("f4")
    np.testing.assert_array_equal(y, exact)
    number = ~np.isnan(exact)
    np.testing.assert_array_equal(back[number], bits[number])


def test_lines_are_counted():
    on = Machine(coverage=True)
    module = on.compile(GOOD)
    module.line_counts()  # from here on, whatever ran before in this process
    run(on, GOOD, "matmul")
    counts = {n: count for (file, n), count in module.line_counts().items() if file == "small.cu"}
    (blocks_x, blocks_y), (wide, high), make = LAUNCHES["matmul"]
    threads, k = blocks_x * blocks_y * wide * high, int(make()[-1])
    assert counts[line_of("[first barrier]")] == threads * -(-k // 16)
    assert counts[line_of("[shuffle]")] == 0


def build_small(folder):
    """Build the small kernels with the cache in a folder; for another process."""
    compiling.cache_folder = lambda: Path(folder)
    return str(build(GOOD, (), compiling.FAST))


def test_two_processes_build_one_kernel_at_once(tmp_path):
    with ProcessPoolExecutor(2) as pool:
        one, two = pool.map(build_small, [str(tmp_path)] * 2)
    assert one == two and Path(one).is_file()
    assert sorted(path.suffix for path in Path(one).parent.iterdir()) == [".cu", ".o", ".so"]
    assert all(re.fullmatch("[0-9a-f]{24}", path.name) for path in tmp_path.iterdir())  # no rests


def test_without_a_compiler_the_user_is_told(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match="compiles kernels with g"):
        build(GOOD + "// not built before\n", (), compiling.FAST)


def test_shared_memory_has_a_section_for_each_kernel_and_lines_stay_what_they_are():
    lines = compiling.for_the_cpu(GOOD).splitlines()
    number = 0
    for text in lines:
        found = re.match(r"#line (\d+)", text)
        number = int(found[1]) - 1 if found else number + 1
        if "[first barrier]" in text:
            assert number == line_of("[first barrier]")
    assert sum("shared_matmul" in text for text in lines) == 1
