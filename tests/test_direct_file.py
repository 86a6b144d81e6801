"""Direct files: the bytes that were written are there, past the cache or through it."""

import os
from errno import EINVAL, ENOSPC
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigpt2 import direct_file as module
from minigpt2.backend import PAGE, flat_zeros
from minigpt2.direct_file import DIRECT, direct_file

REAL = module.use_cache


class Disk:
    """A file that takes what a disk takes: blocks from aligned memory, or all if it has a cache."""

    def __init__(self, *, direct=True, most=1 << 30):
        self.direct, self.most = direct, most
        self.written, self.calls = bytearray(), []

    def write(self, contents):
        """Write some of the bytes."""
        address = np.frombuffer(contents, np.uint8).ctypes.data
        if self.direct and (address % PAGE or len(contents) % PAGE or len(self.written) % PAGE):
            raise OSError(EINVAL, os.strerror(EINVAL))
        self.calls.append((address, len(contents)))
        contents = bytes(contents)[: self.most]
        self.written += contents
        return len(contents)


@pytest.fixture(autouse=True, scope="module")
def small():
    """Little is much, and a disk of this file is one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BUFFER", 2 * PAGE)
        patch.setattr(module, "SMALL", PAGE)
        patch.setattr(module, "use_cache", use_cache)
        yield


def use_cache(disk):
    """As the system's."""
    before, disk.direct = disk.direct, False
    return before


def write_all(disk, arrays):
    """Write arrays of bytes one behind the other."""
    writer = module.DirectWriter(disk)
    for array in arrays:
        writer.write(array)
    writer.finish()


def numbers(size):
    """Bytes that begin at a page."""
    array = flat_zeros(size, np.uint8)
    array[...] = np.random.default_rng(size).integers(256, size=size)
    return array


CUTS = st.lists(st.sampled_from([0, 1, 7, PAGE - 7, PAGE, PAGE + 1, 3 * PAGE]), max_size=8)


@given(cuts=CUTS, first=st.sampled_from([0, 16, PAGE]), direct=st.booleans(), data=st.data())
def test_all_bytes_are_written_whatever_their_sizes(cuts, first, direct, data):
    most = data.draw(st.sampled_from([1 << 30, PAGE, 1000]))  # that one call takes
    array = numbers(first + sum(cuts))
    places = np.cumsum([first, *cuts])
    parts = [array[start:stop] for start, stop in pairwise(places)]
    disk = Disk(direct=direct, most=most)
    write_all(disk, parts)
    assert disk.written == array[first:].tobytes()


def test_a_disk_fetches_what_is_large_from_where_it_is():
    array = numbers(9 * PAGE + 5)
    disk = Disk()
    write_all(disk, [array[: PAGE + 9], array[PAGE + 9 :]])
    start = array.ctypes.data
    from_array = [(at - start, size) for at, size in disk.calls if 0 <= at - start < len(array)]
    assert from_array == [(0, PAGE), (2 * PAGE, 7 * PAGE)]
    assert sum(size for _, size in disk.calls) == len(array)


def test_an_error_of_the_disk_is_raised():
    class Full(Disk):
        def write(self, contents):
            raise OSError(ENOSPC, os.strerror(ENOSPC))

    with pytest.raises(OSError) as raised:
        write_all(Full(), [numbers(PAGE)])
    assert raised.value.errno == ENOSPC
    with pytest.raises(OSError) as raised:  # it was not what the memory and the place are
        disk = Disk(direct=False)
        disk.write = lambda contents: Disk().write(contents[:1])
        write_all(disk, [numbers(PAGE)])
    assert raised.value.errno == EINVAL


@pytest.mark.parametrize("known", [True, False])
def test_a_file_is_written_over_and_past_the_cache_if_its_system_knows_that(
    tmp_path, monkeypatch, known
):
    monkeypatch.setattr(module, "use_cache", REAL)
    opened, real = [], os.open

    def opening(path, flags, mode=0o777):
        if flags & DIRECT and not known:
            raise OSError(EINVAL, os.strerror(EINVAL))
        opened.append(bool(flags & DIRECT))
        return real(path, flags, mode)

    monkeypatch.setattr(os, "open", opening)
    path, array = tmp_path / "x", numbers(5 * PAGE + 3)
    path.write_bytes(b"before" * 9000)
    opened.clear()
    with direct_file(path) as file:
        file.write(array[:100])
        file.write(array[100:])
    assert path.read_bytes() == array.tobytes()
    assert opened == [bool(DIRECT) and known]


def test_a_name_that_cannot_be_opened_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), direct_file(tmp_path / "a/b"):
        pass


def test_flat_zeros_begin_at_a_page():
    for size, dtype in [(0, np.float32), (1, np.float64), (5000, np.complex128)]:
        zeros = flat_zeros(size, dtype)
        assert zeros.shape == (size,) and zeros.dtype == dtype and not zeros.any()
        assert size == 0 or zeros.ctypes.data % PAGE == 0
