"""Emulator: kernels run on this machine's processor, one CUDA thread at a time.

It takes the text of a kernel and NumPy arrays, as cupy.RawModule takes the text and CuPy arrays.
kernels/emulator/README.md explains how it runs a kernel.  A `Machine` has an order in which
threads and blocks take their turns, and checks and counts what they do on the way.

It refuses what a GPU refuses: too many threads, too large a grid, too much shared memory.  And it
checks what CuPy does not check: the number and the types of the arguments.
"""

import ctypes
from collections import Counter
from typing import Any

import numpy as np

from minigpt2.device.compile import CHECKED, COUNTED, FAST, EmulatorError, build, kernels_in
from minigpt2.device.sanitizer import KINDS, Finding, Traffic, counts_of, lines_of

ORDERS = ("ascending", "descending", "random")
STATIC_SHARED = 48 << 10  # bytes of a block, unless the caller raises the limit
MAX_SHARED = 99 << 10  # to which it may be raised: what sm_86, 89 and 120 have
MAX_THREADS = 1024
MAX_BLOCK = (1024, 1024, 64)
MAX_GRID = (2**31 - 1, 65535, 65535)
MOVED = ("requests", "actual", "ideal")  # counts of an access, as in Traffic


class Machine:
    """An emulated GPU.

    Args:
        check: look for races, accesses out of bounds, misaligned accesses, writes to const arrays,
            and reads of shared memory that was never written
        traffic: count the sectors of global memory and the passes through the shared banks
        order: the order of threads and blocks: ascending, descending or random
        seed: of the random order
        ucontext: switch threads by the operating system instead of a few instructions
        coverage: count how often each line of a kernel runs; see `Module.line_counts`
        shared_limit: the largest shared memory of a block, in bytes
    """

    def __init__(
        self,
        check: bool = False,
        traffic: bool = False,
        order: str = "ascending",
        seed: int = 0,
        ucontext: bool = False,
        coverage: bool = False,
        shared_limit: int = MAX_SHARED,
    ):
        self.checks = int(check) + 2 * int(traffic)
        self.order = ORDERS.index(order)
        self.seed = seed
        self.ucontext = ucontext
        self.coverage = coverage
        self.shared_limit = shared_limit
        self.modules: list[Module] = []
        self._times: Counter[tuple[Any, ...]] = Counter()  # of each finding
        self._first: dict[tuple[Any, ...], tuple[int, int, int]] = {}
        self._moved: Counter[tuple[Any, ...]] = Counter()

    def compile(self, code: str, options: tuple[str, ...] = ()) -> "Module":
        """Compile a kernel's text; of the options only -D, -U and -I count.

        Raises EmulatorError if it does not compile.
        """
        self.modules.append(Module(self, code, options))
        return self.modules[-1]

    @property
    def findings(self) -> list[Finding]:
        """The findings of the checks in all launches."""
        return [
            Finding(KINDS[kind], kernel, line, other or None, times, block, (first, second))
            for (kind, kernel, line, other), times in self._times.items()
            for block, first, second in [self._first[kind, kernel, line, other]]
        ]

    @property
    def traffic(self) -> list[Traffic]:
        """What all launches have moved."""
        keys = sorted({key[:-1] for key in self._moved})
        return [Traffic(*key, *(self._moved.get((*key, c), 0) for c in MOVED)) for key in keys]

    def gather(self, function: "Function") -> None:
        """Add the findings and the traffic of a launch."""
        module, name = function.module, function.name
        rows = module.rows("findings_into")
        places = [(int(at), int(other)) for at, other, *_ in rows]
        known = module.lines(address for pair in places for address in pair if address)
        for (at, other), (_, _, kind, times, block, *threads) in zip(places, rows, strict=True):
            key = (int(kind), name, known[at], known.get(other, ""))
            self._times[key] += int(times)
            first, second = map(int, threads)
            self._first.setdefault(key, (int(block), first, second))
        rows = module.rows("traffic_into")
        known = module.lines(int(row[0]) for row in rows)
        for at, shared, size, write, *counts in rows:
            space, kind = "shared" if shared else "global", "store" if write else "load"
            for what, count in zip(MOVED, counts, strict=True):
                self._moved[name, known[int(at)], space, kind, int(size), what] += int(count)


class Module:
    """A kernel's text, compiled."""

    def __init__(self, machine: Machine, code: str, options: tuple[str, ...]):
        self.machine = machine
        self.names = tuple(kernels_in(code))
        mode = COUNTED if machine.coverage else CHECKED if machine.checks else FAST
        self.path = build(code, options, mode, machine.ucontext)
        self.library = ctypes.CDLL(str(self.path))
        self.library.launch.restype = ctypes.c_char_p
        self._lines: dict[int, str] = {}

    def get_function(self, name: str) -> "Function":
        """Return one of the kernels.  Raises EmulatorError if there is none of that name."""
        if name not in self.names:
            raise EmulatorError(f"no kernel {name!r}; there are {', '.join(self.names)}")
        return Function(self, name)

    def rows(self, function: str) -> np.ndarray:
        """Return the rows of numbers that one of the machine's functions has from a launch."""
        copy_rows = getattr(self.library, function)
        copy_rows.restype = ctypes.c_size_t
        rows = np.zeros((copy_rows(None, ctypes.c_size_t(0)), 7), np.uint64)
        copy_rows(ctypes.c_void_p(rows.ctypes.data), ctypes.c_size_t(len(rows)))
        return rows

    def lines(self, addresses: Any) -> dict[int, str]:
        """Return the source lines of addresses in the code."""
        unknown = sorted(set(addresses) - set(self._lines))
        if unknown:
            self._lines |= dict(zip(unknown, lines_of(self.path, unknown), strict=True))
        return self._lines

    def line_counts(self) -> Counter[tuple[str, int]]:
        """Return how often each line has run, by file and number; needs a machine for coverage."""
        return counts_of(self.path, self.library.write_counts)


class KernelRecord(ctypes.Structure):
    """`Kernel` of thread.h."""

    _fields_ = [
        ("call", ctypes.c_void_p),
        ("signature", ctypes.c_char_p),
        ("shared_begin", ctypes.c_void_p),
        ("shared_end", ctypes.c_void_p),
        ("launch_bound", ctypes.c_int),
    ]


class Function:
    """A kernel, like cupy.RawKernel; `max_dynamic_shared_size_bytes` may be raised."""

    def __init__(self, module: Module, name: str):
        self.module = module
        self.name = name
        record = getattr(module.library, f"kernel_{name}")
        record.restype = ctypes.POINTER(KernelRecord)
        self.kernel = record()
        kernel = self.kernel.contents
        self.signature = tuple((kernel.signature or b"").decode().split())
        self.shared_size_bytes = (kernel.shared_end or 0) - (kernel.shared_begin or 0)
        self.max_dynamic_shared_size_bytes = STATIC_SHARED - self.shared_size_bytes

    def __call__(
        self, grid: tuple[int, ...], block: tuple[int, ...], args: Any, *, shared_mem: int = 0
    ) -> None:
        """Run the kernel on NumPy arrays and NumPy numbers; None is a null pointer.

        Raises TypeError for arguments that do not fit the kernel, EmulatorError for a launch that
        a GPU would refuse or that fails.
        """
        self.check_limits(tuple(grid), tuple(block), shared_mem)
        if len(args) != len(self.signature):
            raise TypeError(f"{self.name} takes {len(self.signature)} arguments, not {len(args)}")
        pairs = list(zip(args, self.signature, strict=True))
        values = [self.value(place, *pair) for place, pair in enumerate(pairs)]
        pointers = (ctypes.c_void_p * len(values))(*(v.ctypes.data for v in values))
        arrays = [
            (a.ctypes.data, a.ctypes.data + a.nbytes, tag[0] == "P")
            for a, tag in pairs
            if isinstance(a, np.ndarray)
        ]
        regions = np.array(arrays, np.int64).reshape(-1, 3)
        sizes = [np.array([*size, 1, 1][:3], np.uint32) for size in (grid, block)]
        machine = self.module.machine
        failure = self.module.library.launch(
            self.kernel,
            pointers,
            *(ctypes.c_void_p(size.ctypes.data) for size in sizes),
            ctypes.c_size_t(shared_mem),
            machine.order,
            machine.seed,
            machine.checks,
            ctypes.c_void_p(regions.ctypes.data),
            ctypes.c_size_t(len(regions)),
        )
        earlier = len(machine.findings) if machine.checks else 0
        if machine.checks:
            machine.gather(self)
        if failure is not None:
            findings = "".join(f"\n  {finding}" for finding in machine.findings[earlier:])
            raise EmulatorError(f"{self.name}: {failure.decode()}{findings}")

    def value(self, place: int, argument: Any, tag: str) -> np.ndarray:
        """Return an argument as an array of the bytes that the kernel reads."""
        what = f"argument {place} of {self.name}"
        if tag[0] in "pP":
            if argument is None:
                return np.zeros(1, np.uint64)
            if not isinstance(argument, np.ndarray) or not argument.flags.c_contiguous:
                raise TypeError(f"{what} must be a contiguous array")
            if not holds(tag[1:], argument.dtype):
                raise TypeError(f"{what} points to {tag[1:]}; the array holds {argument.dtype}")
            return np.array([argument.ctypes.data], np.uint64)
        if not isinstance(argument, np.generic) or not holds(tag, argument.dtype):
            dtype = np.dtype(tag).name
            raise TypeError(f"{what} must be a numpy.{dtype}, not {type(argument).__name__}")
        return np.array([argument])

    def check_limits(self, grid: tuple[int, ...], block: tuple[int, ...], shared: int) -> None:
        """Raise EmulatorError for a launch that a GPU would refuse."""
        for what, sizes, limits in (("grid", grid, MAX_GRID), ("block", block, MAX_BLOCK)):
            within = (1 <= size <= limit for size, limit in zip(sizes, limits, strict=False))
            if not 1 <= len(sizes) <= 3 or not all(within):
                raise EmulatorError(f"{self.name}: a {what} of {sizes}; each from 1 to {limits}")
        threads, bound = int(np.prod(block)), self.kernel.contents.launch_bound
        if threads > (bound or MAX_THREADS):
            limit = f"__launch_bounds__({bound})" if bound else f"{MAX_THREADS}"
            raise EmulatorError(f"{self.name}: {threads} threads a block; {limit} is the most")
        raised = self.shared_size_bytes + self.max_dynamic_shared_size_bytes
        most = min(max(STATIC_SHARED, raised), self.module.machine.shared_limit)
        if self.shared_size_bytes > STATIC_SHARED or self.shared_size_bytes + shared > most:
            raise EmulatorError(
                f"{self.name}: {self.shared_size_bytes} + {shared} bytes of shared memory; {most} "
                "is the most (max_dynamic_shared_size_bytes raises it)"
            )


def holds(tag: str, dtype: np.dtype) -> bool:
    """Return whether numbers of a dtype fit a tag of describe.h."""
    if tag[0] == "v":
        return dtype.itemsize == int(tag[1:])
    return dtype.kind + str(dtype.itemsize) == tag
