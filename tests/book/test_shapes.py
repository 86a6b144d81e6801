"""The shape tracer compares right shapes, and notices wrong ones."""

import numpy as np
import pytest

from tests.book.shapes import ShapeTracer, letter_faults, read_shapes, shapes_in
from tests.ops.cases import SIZES

SNIPPET = """
import numpy as np
from typing import NamedTuple

class Saved(NamedTuple):
    x: object  # (N, C)
    w: object  # (C,)

def halves(x):
    for i in range(0, len(x), 4):
        part = x[i : i + 4]  # (B, C)
        for j in range(0, 15, 6):
            piece = part[:, j : j + 6]  # (B, K)
            yield piece.T @ part

def f(x, w):
    y = (
        x
        * w
    )  # (N, C)
    a, b = x.T, y.T  # (C, N)
    c, d = x.T, w  # (C, N), (C,)
    y[2:4] = 0  # (2, C)
    y += w  # (N, C)
    wide = np.concatenate([y] * 3, 1)  # (N, 3C)
    again = [x.T for x in (a.T, b.T)]
    list(halves(x))
    return y.sum(0), Saved(x, w)  # (C,)
"""


def trace_snippet(text):
    """Trace f(x, w) of a snippet, with the sizes of the ops' cases."""
    space = {}
    exec(compile(text, "snippet", "exec"), space)
    tracer = ShapeTracer("snippet", text, SIZES)
    tracer.run(space["f"], np.ones((SIZES["N"], SIZES["C"])), np.ones(SIZES["C"]))
    return tracer


def test_right_shapes_are_compared_and_not_reported():
    tracer = trace_snippet(SNIPPET)
    assert tracer.faults == []
    assert len(tracer.checked) == 11 and read_shapes(SNIPPET)[2] == []


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("    )  # (N, C)", "    )  # (C, N)", ["snippet:17", "(C, N) = (15, 13)", "(13, 15)"]),
        ("x.T, y.T  # (C, N)", "x, y  # (C, N)", ["snippet:21", "a should be"]),
        ("x.T, y.T  # (C, N)", "x.T, y  # (C, N)", ["snippet:21", "b should be"]),
        ("# (C, N), (C,)", "# (C, N), (N,)", ["snippet:22", "d should be"]),
        ("# (2, C)", "# (N, C)", ["snippet:23", "y[2:4]"]),
        ("y += w  # (N, C)", "y += w  # (N, 1)", ["snippet:24"]),
        ("# (N, 3C)", "# (N, 4C)", ["snippet:25", "(13, 60)", "(13, 45)"]),
        ("# (N, 3C)", "# (N, K=4C)", ["snippet:25"]),
        ("Saved(x, w)  # (C,)", "Saved(x, w)  # (N,)", ["snippet:28", "the result"]),
        ("w: object  # (C,)", "w: object  # (N,)", ["snippet:7", "w should be"]),
        ("# (B, K)", "# (B, B)", ["snippet:13", "piece"]),
        ("# (B, K)", "# (K, B)", ["snippet:13", "(K, B) = (4, 4)", "(4, 6)"]),
        ("# (B, C)", "# (B,)", ["snippet:11", "part"]),
    ],
)
def test_a_wrong_shape_is_reported(old, new, words):
    assert old in SNIPPET
    faults = trace_snippet(SNIPPET.replace(old, new)).faults
    assert faults and all(word in faults[0] for word in words), faults


def test_a_free_name_is_the_same_within_one_call():
    text = SNIPPET.replace("y += w  # (N, C)", "y += w  # (Q, C)").replace("# (N, 3C)", "# (C, Q)")
    assert "snippet:25" in trace_snippet(text).faults[0]


def test_a_shape_where_nothing_is_assigned_is_reported():
    assert read_shapes("print(1)  # (N, C)\nx = 1  # (N, C)\n")[2] == [1]


def test_shapes_are_read_and_citations_are_not():
    assert shapes_in("# (N, 3C), (C,)  (4.1)") == [["N", "3*C"], ["C"]]
    assert shapes_in("# ()  (9.4)") == [[]]
    assert shapes_in("# (B, F=4·C)") == [["B", "F=4*C"]]
    assert shapes_in("# (4.1) (4.2)") == shapes_in("# (see there, and here)") == []


@pytest.mark.parametrize(
    ("docstring", "comment", "unknown"),
    [
        ("Twice.", "(N, C)", []),
        ("Twice.", "(N, 3*C)", []),
        ("Twice.", "(N, Q)", ["Q"]),
        ("Twice, for Q queries.", "(N, Q)", []),
        ("Twice, for Quebec.", "(N, Q)", ["Q"]),
    ],
)
def test_a_letter_that_no_list_of_symbols_has_is_noticed(docstring, comment, unknown):
    book = {
        "__init__": '"""Symbols\n    N  rows        C  features\n\nContents\n    Q  q\n"""',
        "ops/twice": f'"""{docstring}"""\n\nx = y  # {comment}\n',
    }
    expected = [f"minigpt2/ops/twice.py:3: {letter} is in no list of symbols" for letter in unknown]
    assert letter_faults(book) == expected
