"""Captured step: both passes of a batch as one graph, repeated for every batch of its shape.

The first batch of a shape (device/filled_batch) runs launch by launch, the second one is captured,
and from then on the host fills one slot of memory with what the batch says (its ids, positions,
forest, triples) and launches the graph.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from minigpt2.backend import Array, array_module
from minigpt2.device.attention_blocks import tables_in
from minigpt2.device.filled_batch import Prepared, prepared, rounded_up, wanted_of
from minigpt2.device.fused_attention import FORESTS, ds_is_stored
from minigpt2.device.graph import Slot, capture, memory_of_graphs
from minigpt2.device.indices import staged
from minigpt2.device.launch import fits
from minigpt2.device.side_stream import what_goes_aside
from minigpt2.model import gpt2 as gpt2_model
from minigpt2.model.batch import Batch
from minigpt2.model.config import GPT2Config
from minigpt2.model.gpt2 import both_passes
from minigpt2.model.gradients import Gradients
from minigpt2.model.parameters import Parameters

MOST_SHAPES = 48  # that are remembered for one set of gradients
MUCH = 1 << 30  # bytes

_ahead: dict[int, tuple[Array, Prepared]] = {}  # by the identity of a batch's ids, held here


def prepare(parameters: Parameters, batches: Sequence[Batch]) -> Any:
    """Compute what the next step needs of its batches, while the device is busy."""
    _ahead.clear()
    if captures(parameters.config):
        for batch in batches:
            if batch.weights.any():
                _ahead[id(batch.ids)] = batch.ids, prepared(batch)


def taken(batch: Batch) -> Prepared:
    """Return a batch as it was prepared, or prepare it now."""
    ids, made = _ahead.pop(id(batch.ids), (None, None))
    same = made is not None and ids is batch.ids
    if made is None or not same or len(made.ready.used) != np.count_nonzero(batch.weights):
        return prepared(batch)
    return made.with_weights(batch.weights)


def captures(config: GPT2Config) -> bool:
    """Return whether all kernels of a step are compiled for a model's sizes."""
    attends = fits("attention_forward", D=config.n_embd // config.n_head)
    rowwise = "embedding_backward", "sum_rows", "layer_norm_forward"
    return attends and all(fits(kernel, C=config.n_embd) for kernel in rowwise)


def recomputes_cheaply(parameters: Parameters, rows: int) -> bool:
    """Return whether a step recomputes all that takes no product, 6·N·C numbers a block.

    That costs 3 % of the time of a step, so it is done where it saves a good deal of memory.
    """
    config = parameters.config
    numbers = 6 * rows * config.n_embd * config.n_layer
    return numbers * parameters.flat.itemsize > MUCH


class ShapeRun:
    """Both passes for all batches of one shape: the memory of their arrays, and the graph."""

    def __init__(self) -> None:
        self.slot: Slot | None = None
        self.slabs = 0  # of attention's ds that there is room for
        self.runs = 0
        self.graph: Any = None
        self.nll: Array = None  # (M,) of the last run
        self.holding: frozenset[str] = frozenset()  # tensors that have a gradient after it

    def __call__(
        self, parameters: Parameters, made: Prepared, gradients: Gradients, recompute: bool
    ) -> Array:
        """Run both passes of a batch; return the nll (M,) of its filled-up triples."""
        xp, ready = array_module(parameters), made.ready
        arrays = [*made.arrays, made.tables.flat]
        if self.slot is None:
            self.slot = Slot(xp, [len(array) for array in arrays])
        self.slot.fill(arrays)
        self.make_room(parameters, made)
        self.runs += 1
        if self.graph is None:
            *views, table = self.slot.views([array.dtype for array in arrays])
            keys = [(id(array), want) for array, want in wanted_of(ready)]
            FORESTS.put(ready.batch.end, tables_in(table, len(ready.batch.end), self.slabs))

            keep_u = not recompute and recomputes_cheaply(parameters, len(ready.batch.ids))
            options = {"recompute": recompute or keep_u, "keep_u": keep_u}

            def work() -> Array:
                rows, places = ready.rows, ready.places
                return both_passes(parameters, ready.batch, gradients, rows, places, **options)

            with memory_of_graphs(xp), staged(dict(zip(keys, views, strict=True))):
                if self.runs == 1:
                    self.nll = work()
                else:
                    aside = what_goes_aside(len(ready.batch.ids), parameters.flat.itemsize)
                    self.graph, self.nll = capture(xp, work, aside=aside)
            self.holding = gradients.holding
        if self.graph is not None:
            self.graph.launch(xp.cuda.get_current_stream())
            gradients.hold(self.holding)
        return self.nll

    def make_room(self, parameters: Parameters, made: Prepared) -> None:
        """Begin anew where a batch's forest has more slabs of ds than there is room for."""
        flat, sizes = parameters.flat, (len(made.ready.batch.ids), parameters.config.n_head)
        lacking = made.tables.slabs > self.slabs
        if lacking and ds_is_stored(array_module(flat), flat.dtype, *sizes):
            self.slabs, self.runs, self.graph = rounded_up(made.tables.slabs), 0, None


_shapes: "WeakKeyDictionary[Gradients, OrderedDict[Any, ShapeRun]]" = WeakKeyDictionary()


def nll_and_gradients(
    parameters: Parameters,
    batch: Batch,
    gradients: Gradients,
    *,
    drop: float = 0.0,
    rng: np.random.Generator | None = None,
    recompute: bool = False,
) -> Any:
    """Write or add the gradients of a batch's loss to `gradients`; return the nll (M,).

    NotImplemented with dropout, and for sizes that no kernel is compiled for: then the ops run one
    by one.
    """
    if drop or not captures(parameters.config) or not batch.weights.any():
        return NotImplemented
    made = taken(batch)
    ready = made.ready
    shapes = _shapes.setdefault(gradients, OrderedDict())
    read = None if ready.rows is None else len(ready.rows)
    sizes = len(ready.batch.ids), len(ready.batch.targets), read
    key = (*sizes, parameters.flat.data.ptr, recompute, gradients.holding)
    run = shapes.setdefault(key, ShapeRun())
    shapes.move_to_end(key)
    if len(shapes) > MOST_SHAPES:
        shapes.popitem(last=False)
    nll = run(parameters, made, gradients, recompute)
    xp, m = array_module(parameters), len(batch.rows)
    if len(ready.used) == m:
        return nll[:m].copy()  # the graph's own memory is written over by its next run
    result = xp.zeros(m, nll.dtype)
    result[xp.asarray(ready.used)] = nll[: len(ready.used)]
    return result


CAPTURED: dict[Callable[..., Any], Callable[..., Any]] = {
    gpt2_model.nll_and_gradients: nll_and_gradients,
    gpt2_model.prepare: prepare,
}
