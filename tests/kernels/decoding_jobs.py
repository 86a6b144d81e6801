"""What is asked of the kernels that decode: jobs like those of jobs.py."""

import numpy as np

from minigpt2.backend import array_module
from minigpt2.device.launch import launch
from minigpt2.inference.kv_cache import store_rows
from minigpt2.inference.sampling import Sampling
from minigpt2.inference.sampling import sample as sample_by_formula
from tests.kernels.support import single


class Fixed:
    """Stands for a generator whose uniform numbers are known."""

    def __init__(self, u):
        self.u = u

    def random(self, shape):
        """The numbers."""
        return self.u.reshape(shape)


def decode(positions, shared, room, heads, d, keys):
    """Attention of a new row of each sequence; rows of the cache that none has written are NaN.

    The sequences share `shared` rows; each has room for `room` more.
    """
    b, positions = len(positions), np.array(positions, np.int32)
    qkv = single(b, 3, heads, d)
    prefix = single(2, heads, shared, d, seed=1)
    suffixes = single(2, b, heads, room, d, seed=2)
    places = positions - shared
    for sequence, place in enumerate(places):
        suffixes[:, sequence, :, place:] = np.nan
    sequence = np.arange(b)

    def job(put):
        arrays = put(qkv), put(prefix), put(suffixes)
        xp = array_module(arrays[0])
        o = (by_formula if xp is np else by_kernels)(xp, *arrays, places, keys)
        cache = arrays[2]
        index = xp.asarray(sequence), xp.asarray(places)
        unwritten = (cache != cache).astype(np.float32)
        return o, cache[:, index[0], :, index[1]], unwritten

    return job


def fill(lengths, shared, room, heads, d):
    """The rows of prompts in a cache, and which of its rows stay unwritten."""
    qkv = single(shared + sum(lengths), 3 * heads * d)

    def job(put):
        rows = put(qkv)
        xp, dtype = array_module(rows), rows.dtype
        prefix = xp.full((2, heads, shared, d), np.nan, dtype)
        suffixes = xp.full((2, len(lengths), heads, room, d), np.nan, dtype)
        store_rows(rows, prefix, suffixes, np.array(lengths))
        written = [suffixes[:, b, :, :n] for b, n in enumerate(lengths)]
        unwritten = [(part != part).astype(np.float32) for part in (prefix, suffixes)]
        return prefix, *written, *unwritten

    return job


def by_formula(xp, qkv, prefix, suffixes, places, keys):
    """o (B, H, D) of every sequence by itself; the new rows are put into the cache."""
    o, d = np.empty_like(qkv[:, 0]), qkv.shape[3]
    for b, place in enumerate(places):
        suffixes[:, b, :, place] = qkv[b, 1:]
        k, v = np.concatenate([prefix, suffixes[:, b, :, : place + 1]], axis=2)  # (H, n, D)
        s = np.einsum("hd,hnd->hn", qkv[b, 0], k) / np.sqrt(d)
        e = np.exp(s - s.max(-1, keepdims=True))
        o[b] = np.einsum("hn,hnd->hd", e, v) / e.sum(-1, keepdims=True)
    return o


def by_kernels(xp, qkv, prefix, suffixes, places, keys):
    """The same on a device."""
    b, _, heads, d = qkv.shape
    shared, room = prefix.shape[2], suffixes.shape[3]
    splits = -(-(shared + room) // keys)
    partial = xp.empty((b, heads, splits, d), np.float32)
    sums = xp.empty((b, heads, splits, 2), np.float32)
    positions = xp.asarray(shared + places, np.int32)
    o = xp.empty((b, heads, d), qkv.dtype)
    arrays = qkv, prefix, suffixes, positions, partial, sums, o if splits == 1 else None
    launch(xp, "decode_attention", *arrays, keys=keys, scale=1 / np.sqrt(d))
    if splits > 1:
        launch(xp, "decode_attention_combine", partial, sums, positions, o, keys=keys)
    return o


def choose(b, v, width, temperature, last=99):
    """The next token of each sequence, as a row with a 1; what stands behind the logits is ∞."""
    logits = single(b, v, scale=2)
    logits[:, :: max(1, v // 2)] = logits.max(-1, keepdims=True)  # several are the largest
    wide = np.full((b, width), np.inf, np.float32)
    wide[:, :v] = logits
    u = np.random.default_rng(v).random(b)
    u[0] = 0
    positions = np.arange(b) * 40 % 110

    def job(put):
        on = put(wide)
        xp = array_module(on)
        if xp is np:
            u[-1] = 1 - 2.0**-53
            ids = sample_by_formula(on[:, :v], Sampling(temperature), Fixed(u))
            return ids[:, None] == np.arange(v), np.minimum(positions + 1, last)
        u[-1] = 1  # to which a sum may round
        high = u.astype(np.float32)
        halves = xp.asarray(np.stack([high, (u - high).astype(np.float32)], axis=1))
        ids, places = xp.zeros(b, np.int32), xp.asarray(positions, np.int32)
        arrays = on, halves if temperature else None, ids, places
        launch(xp, "sample", *arrays, V=v, last=last, temperature=temperature)
        one_hot = ids[:, None] == xp.arange(v)
        return one_hot.astype(np.float32), places.astype(np.float32)

    return job


def map_row(c, k, bias, residual):
    """A linear map of one row; by NumPy where the numbers are exact."""
    x, w, b, r = single(1, c), single(c, k, seed=1), single(k, seed=2), single(1, k, seed=3)

    def job(put):
        x_on, w_on = put(x), put(w)
        b_on, r_on = put(b) if bias else None, put(r) if residual else None
        xp = array_module(x_on)
        if xp is np:
            return (x_on @ w_on + (b_on if bias else 0) + (r_on if residual else 0),)
        y = xp.empty((1, k), x_on.dtype)
        launch(xp, "linear_row", x_on, w_on, b_on, r_on, y)
        return (y,)

    return job


def look_up_row(c, v, width):
    """The logits of one row, in a row with room behind them that stays as it is."""
    x, table = single(1, c), single(v, c, seed=1)

    def job(put):
        x_on, table_on = put(x), put(table)
        xp = array_module(x_on)
        if xp is np:
            return (x_on @ table_on.T, np.ones(width - v))
        logits = xp.asarray(np.full((1, width), np.nan, x_on.dtype))
        launch(xp, "logits_row", x_on, table_on, logits)
        behind = logits[0, v:]
        return logits[:, :v], (behind != behind).astype(np.float32)

    return job


JOBS = {
    "decode, prompts of 80": fill([3, 0, 5], 2, 6, 3, 80),
    "decode, prompts of 128": fill([4, 1], 0, 4, 2, 128),
    "decode, one key": decode([0], 0, 1, 1, 32, 64),
    "decode, one split for all": decode([5, 40], 3, 60, 2, 80, 64),
    "decode, a split but one": decode([62], 0, 90, 1, 64, 64),
    "decode, a split": decode([63], 0, 90, 1, 64, 64),
    "decode, a split and one": decode([64], 0, 90, 1, 64, 64),
    "decode, several splits": decode([199], 0, 200, 2, 64, 48),
    "decode, a prefix": decode([70, 96, 67, 110], 67, 44, 3, 80, 32),
    "decode, a short prefix": decode([3, 1, 39], 1, 39, 2, 128, 40),
    **{
        f"sample, {b} x {v}, temperature {temperature}": choose(b, v, width, temperature)
        for temperature in (0.0, 0.7)
        for b, v, width in (
            (2, 1, 4),
            (5, 23, 64),
            (4, 24, 64),
            (2, 30, 64),
            (2, 64, 64),
            (3, 4095, 4096),
            (3, 4097, 4160),
            (3, 9001, 9004),
        )
    },
    "linear_row, 8 x 16": map_row(8, 16, False, False),
    "linear_row, 120 x 32": map_row(120, 32, True, False),
    "linear_row, 768 x 48": map_row(768, 48, False, True),
    "linear_row, 1032 x 16": map_row(1032, 16, True, True),
    "logits_row, 8 x 1": look_up_row(8, 1, 4),
    "logits_row, 256 x 131": look_up_row(256, 131, 192),
    "logits_row, 264 x 64": look_up_row(264, 64, 64),
    "sample, 3 x 50257, temperature 1": choose(3, 50257, 50304, 1.0),
}
