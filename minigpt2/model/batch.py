"""Batch: what the model reads, and what is supervised.

A batch is one row of tokens cut into a forest of segments (data/forest makes it from examples):
there is no batch axis and no padding.  What is supervised is a list of triples (row, target,
weight); a row may occur in several triples, or in none.  What else an objective knows of a triple,
an advantage or a reference's log-probability, is a number in a column.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from minigpt2.backend import Array


class Batch(NamedTuple):
    """A row of tokens, the forest they form, and what is supervised."""

    ids: Array  # (N,)
    positions: Array  # (N,)
    end: Array  # (N,)
    rows: Array  # (M,)
    targets: Array  # (M,)
    weights: Array  # (M,)
    answers: Array = np.empty(0, np.int64)  # (M,) which answer a target belongs to, -1 for none
    columns: Mapping[str, Array] = MappingProxyType({})  # by name (M,), all on the host
