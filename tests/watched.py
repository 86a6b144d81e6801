"""An array that remembers the precision of everything that is computed with it."""

import numpy as np


class Watched(np.ndarray):
    """An array that notes in `kinds` the type of each result."""

    kinds: set = set()  # noqa: RUF012

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        """Compute on plain arrays, and note the type of the result."""
        plain = [np.asarray(x) if isinstance(x, Watched) else x for x in inputs]
        if out is not None:
            options["out"] = tuple(np.asarray(x) for x in out)
        result = getattr(ufunc, method)(*plain, **options)
        if result is None:  # of `at`
            return None
        Watched.kinds.add(result.dtype)
        return out[0] if out is not None else result.view(Watched)
