"""What is asked of the linear map: products with all that stands around them (see jobs.py)."""

import numpy as np

from minigpt2.backend import Target, array_module
from minigpt2.ops.linear import linear, linear_backward
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


JOBS = {
    f"linear, {n} x {c} to {k}": transform(n, c, k, biased, added, accumulate)
    for n, c, k, biased, added, accumulate in (
        (2, 8, 8, True, False, False),
        (33, 48, 24, True, True, True),
        (40, 16, 72, False, False, True),
    )
}
