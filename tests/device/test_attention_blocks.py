"""Attention's blocks: their shapes are those of the kernels, their tables those of the forest."""

import subprocess
from math import ceil

import numpy as np
import pytest
from hypothesis import given, settings

from minigpt2.device.attention_blocks import (
    ALIGNED,
    FORWARD_ROWS,
    SLAB_QUERIES,
    TILE,
    are_small,
    dkv_rows,
    dkv_shared,
    dkv_stage,
    dq_rows,
    dq_shared,
    dq_stored_shared,
    forest_tables,
    forward_shared,
    simple_shared,
    size_of_tables,
    stores_ds,
    tables_in,
)
from minigpt2.device.compile import compiler
from minigpt2.device.kernel_specs import HEAD_SIZES
from minigpt2.shipped import shipped
from tests.kernels.support import needs_compiler
from tests.ops.cases import ends
from tests.ops.test_attention import forests
from tests.plain import visible_pairs

quick = settings(deadline=None, max_examples=40)
LONG = ends((300, (50, (9,)), (70,), *[(1,)] * 20), (64,), (129,))  # 643 rows


def lines_of(text, *beginnings):
    """Definitions of a text: those lines, and its structs of these names to their last line."""
    kept, inside = [], False
    for line in text.splitlines():
        inside = inside or line.startswith(beginnings)
        if inside or line.startswith(("#if", "#ifndef", "#else", "#endif", "#define")):
            kept.append(line)
        inside = inside and not line.startswith("};")
    return "\n".join(kept)


def printed_by(files, definitions, numbers, folder):
    """The numbers that a program prints which knows the sizes and the structs of these files."""
    texts = [(shipped("kernels") / name).read_text(encoding="utf-8") for name in files]
    structs = ("struct Shared", "struct Rows", "struct Weights", "template <int M> struct")
    known = "\n".join(lines_of(text, *structs) for text in texts)
    program = f"""
#include <cstdio>
{definitions}
{known}
#ifndef STAGE
#define STAGE 0
#endif
const int numbers[] = {{{numbers}}};
int main() {{ for (int number : numbers) printf("%d ", number); }}
"""
    command = [compiler(), "-x", "c++", "-", "-o", folder / "sizes"]
    subprocess.run(command, input=program, text=True, check=True)
    done = subprocess.run([folder / "sizes"], capture_output=True, text=True, check=True)
    return tuple(map(int, done.stdout.split()))


@needs_compiler
@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("d", HEAD_SIZES)
def test_rows_and_bytes_are_those_of_the_source(d, small, tmp_path):
    n = {"D": d}
    expected = {
        "attention_mma.cu": (FORWARD_ROWS, TILE, 0, forward_shared(n, 2)),
        "attention_mma_dq.cu": (dq_rows(d, small), TILE, 0, dq_shared(n, 2, small)),
        "attention_mma_dq_stored.cu": (dq_rows(d, False), TILE, 0, dq_stored_shared(n, 2)),
        "attention_mma_dkv.cu": (
            *(dkv_rows(small), TILE, dkv_stage(d, small)),
            dkv_shared(n, 2, small),
        ),
    }
    for file, sizes in expected.items():
        definitions = f"#define D {d}\n#define SMALL {int(small)}\ntypedef short real;"
        numbers = "ROWS, KEYS, STAGE, (int)sizeof(Shared)"
        files = ("attention_tile.cuh", "stored_ds.cuh", file)
        assert printed_by(files, definitions, numbers, tmp_path) == sizes, file


@needs_compiler
@pytest.mark.parametrize("d", HEAD_SIZES)
def test_bytes_without_tensor_cores_are_those_of_the_source(d, tmp_path):
    for file, backward in (("attention.cu", False), ("attention_backward.cuh", True)):
        files = ("attention_threads.cuh", file)
        sizes = printed_by(files, f"#define D {d}", "(int)sizeof(Shared)", tmp_path)
        assert sizes == (simple_shared({"D": d}, 4, backward),), file


def test_blocks_are_small_for_few_rows_alone():
    assert are_small(997, 12) and not are_small(4096, 20) and not are_small(8184, 12)


@given(forests)
@quick
def test_tables_have_the_ends_of_every_tile(end):
    tables, n = forest_tables(end), len(end)
    np.testing.assert_array_equal(tables.end, end)
    assert tables.min_end.tolist() == [min(end[k : k + TILE]) for k in range(0, n, TILE)]
    for rows, max_end in tables.max_end.items():
        assert max_end.tolist() == [max(end[k : k + rows]) for k in range(0, n, rows)]


@pytest.mark.parametrize("end", [LONG, np.full(500, 500), np.zeros(130, int)])
def test_blocks_come_in_the_order_of_their_work(end):
    tables, n = forest_tables(end), len(end)
    tiles = [(k, max(end[k : k + TILE])) for k in range(0, n, TILE)]
    for rows, order in tables.queries.items():
        seen = [
            sum(k < q + rows and max_end > q for k, max_end in tiles) for q in range(0, n, rows)
        ]
        assert sorted(order) == list(range(len(seen)))
        work = [seen[block] for block in order]
        assert work == sorted(work, reverse=True)
    for rows, order in tables.keys.items():
        queries = [max(end[k : k + rows]) - k for k in range(0, n, rows)]
        assert sorted(order) == list(range(len(queries)))
        work = [queries[block] for block in order]
        assert work == sorted(work, reverse=True)


def test_ds_is_stored_in_large_blocks_where_memory_is_fast():
    h200, h100, a100 = 4.8e12, 3.35e12, 2.04e12
    assert stores_ds(4096, 20, h200) and stores_ds(8184, 12, h200)
    assert not stores_ds(997, 12, h200)
    assert not stores_ds(4096, 20, h100) and not stores_ds(4096, 20, a100)


@given(forests)
@quick
def test_each_pair_of_a_query_and_a_key_has_its_place_in_the_slabs(end):
    """No slab is of two tiles, none is left out, and the last one is counted."""
    tables, n = forest_tables(end), len(end)
    taken = set()
    for tile, k0 in enumerate(range(0, n, TILE)):
        first = tables.start[tile]
        slabs = range(first, first + ceil((max(end[k0 : k0 + TILE]) - k0) / SLAB_QUERIES))
        assert not taken & set(slabs)
        taken |= set(slabs)
        seen = np.flatnonzero(visible_pairs(end)[:, k0 : k0 + TILE].any(1))
        assert {first + (row - k0) // SLAB_QUERIES for row in seen} <= set(slabs)
    assert taken == set(range(tables.slabs))


@given(forests)
@quick
def test_a_tile_is_seen_whole_or_not_at_all_as_the_chapter_says(end):
    """(8.21) and (8.22), for tiles of three queries and of two keys."""
    visible, n = visible_pairs(end), len(end)
    for u in range(0, n - 2):
        for a in range(0, n - 1):
            pairs, (smallest, largest) = visible[u : u + 3, a : a + 2], sorted(end[a : a + 2])
            assert not pairs.any() or (a <= u + 2 and u < largest)  # (8.21)
            assert pairs.all() == (a + 1 <= u and u + 2 < smallest)  # (8.22)


@pytest.mark.parametrize("n", [0, 1, 63, 64, 65, 1000])
def test_tables_are_views_of_one_array_whose_size_depends_on_the_rows_alone(n):
    one, other = forest_tables(np.full(n, n)), forest_tables(np.arange(1, n + 1))
    assert one.flat.shape == other.flat.shape == (size_of_tables(n),)
    assert one.flat.dtype == np.int32
    again = tables_in(other.flat.copy(), n, other.slabs)
    names = "max_end", "queries", "keys"
    pairs = [(getattr(other, n), getattr(again, n)) for n in ("end", "min_end", "start")]
    for tables, copies in ((getattr(other, name), getattr(again, name)) for name in names):
        pairs += [(table, copies[rows]) for rows, table in tables.items()]
    for table, same in pairs:
        np.testing.assert_array_equal(table, same)
        assert np.shares_memory(same, again.flat) or not n
        assert (same.ctypes.data - again.flat.ctypes.data) % (4 * ALIGNED) == 0
