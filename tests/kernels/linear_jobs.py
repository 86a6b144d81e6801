"""What is asked of the linear map: products with all that stands around them (see jobs.py)."""

import numpy as np

from minigpt2.backend import Target, array_module
from minigpt2.ops.linear import linear, linear_backward
from minigpt2.ops.lora import lora, lora_backward
from tests.kernels.support import exactly, single


def transform(n, c, k, biased, added, accumulate):
    """A linear map, with its bias and residual or without; its gradients are in float32."""
    shapes = (n, c), (c, k), (k,), (n, k), (n, k), (c, k), (k,)
    arrays = [single(*shape, seed=seed) for seed, shape in enumerate(shapes)]
    x, w, b, residual, dy, *before = arrays

    def job(put):
        at = put(x)
        library = array_module(at)
        dw, db = (exactly(a) if library is np else library.asarray(a) for a in before)
        y, saved = linear(at, put(w), put(b) if biased else None, put(residual) if added else None)
        targets = {"weight": Target(dw, accumulate), "bias": Target(db, accumulate)}
        dx, *_ = linear_backward(put(dy), saved, **targets)
        return y, dx, dw, db

    return job


def adapter(n, c, k, r, accumulate):
    """An adapter, on the result of a map and on its dx; its gradients are in float32."""
    shapes = (n, c), (n, k), (c, r), (r, k), (n, k), (n, c), (c, r), (r, k)
    arrays = [single(*shape, seed=seed) for seed, shape in enumerate(shapes)]
    x, y, a, b, dy, dx, *before = arrays

    def job(put):
        at = put(x)
        library = array_module(at)
        da, db = (exactly(g) if library is np else library.asarray(g) for g in before)
        result, saved = lora(at, put(y), put(a), put(b), 0.75)
        targets = {"a": Target(da, accumulate), "b": Target(db, accumulate)}
        through, *_ = lora_backward(put(dy), saved, put(dx), **targets)
        return result, through, da, db

    return job


ADAPTERS = {
    f"lora, {n} x {c} to {k}, r = {r}": adapter(n, c, k, r, accumulate)
    for n, c, k, r, accumulate in ((2, 8, 8, 1, False), (33, 48, 24, 8, True))
}
JOBS = ADAPTERS | {
    f"linear, {n} x {c} to {k}": transform(n, c, k, biased, added, accumulate)
    for n, c, k, biased, added, accumulate in (
        (2, 8, 8, True, False, False),
        (33, 48, 24, True, True, True),
        (40, 16, 72, False, False, True),
    )
}
