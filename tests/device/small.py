"""The small kernels of small.cu: how they are launched, and how one line of them is replaced."""

from pathlib import Path

import numpy as np

from tests.kernels.support import single

SMALL = (Path(__file__).parent / "small.cu").read_text(encoding="utf-8")
i32 = np.int32
A, B = single(33, 40), single(40, 20)
X = single(64)
ROWS = single(3, 64)
ROWS[2, 56:] = 0


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
    "in_place": ((1,), (32,), lambda: (X[:32].copy(),)),
    "staged": (
        (1,),
        (64,),
        lambda: (ROWS.ravel()[:184].copy(), np.empty_like(X), i32(184), i32(3)),
    ),
}
EXPECTED = {
    "matmul": lambda a: (a[2], A @ B),
    "reverse": lambda a: (a[1], X[::-1]),
    "neighbours": lambda a: (a[1], X.reshape(-1, 2)[:, ::-1].ravel()),
    "halves": lambda a: (a[1], X[:32].reshape(-1, 2)[:, ::-1].ravel()),
    "total": lambda a: (a[1], [single(300).sum()]),
    "shuffled": lambda a: (a[1], np.repeat(X.reshape(-1, 2).sum(-1), 2)),
    "wide": lambda a: (a[0][:4], [1, 2, 3, 4]),
    "in_place": lambda a: (a[0], 1 + X[:32]),
    "staged": lambda a: (a[1], [1, 2, 3] @ ROWS[:, ::-1]),
}


def run(on, text, name, arguments=None, **sizes):
    """Launch a kernel, with another grid or block if `sizes` has one; returns its arguments."""
    grid, block, make_arguments = LAUNCHES[name]
    arguments = arguments or make_arguments()
    function = on.compile(text).get_function(name)
    function(sizes.get("grid", grid), sizes.get("block", block), arguments)
    return arguments
