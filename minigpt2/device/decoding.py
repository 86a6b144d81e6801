"""Decoding on a device: a step is a fixed list of launches, whatever the sequences' lengths.

Why
    One token of one sequence costs a GPU less than half a millisecond, and a host needs several to
    launch what computes it.  But every token takes the same launches.  So all that a step reads and
    writes lies in arrays that stay where they are: the ids, the positions, the cache, the logits in
    rows of W places (device/fused_loss).  The step takes its ids from where the last one has put
    them, and the device alone knows how long the sequences are (kernels/decode_attention.cu).
    Captured once, it is replayed for each token.  The host gets the tokens in one small copy, to
    see which sequences end.

    A sequence that has ended stays in the arrays as an idle row, which nobody reads, until fewer
    than a quarter of the rows are alive.  Then the others move together, and a smaller step is
    captured.  That takes as long as several steps, and saves little: most of what a step reads are
    the weights, for few rows as for many.

    Top-k, top-p and the repetition penalty have no kernel: with them a step ends at the logits,
    and the formulas of inference/sampling draw on the device.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from minigpt2.backend import Array, array_module
from minigpt2.device.fused_loss import ALIGNED, with_rows_behind
from minigpt2.device.graph import Slot, capture, memory_of_graphs
from minigpt2.device.kernel_specs import STORAGE
from minigpt2.device.launch import fits, launch
from minigpt2.device.products import matmul
from minigpt2.inference.generate import Decoder, Sequences
from minigpt2.inference.kv_cache import Cache
from minigpt2.inference.sampling import HOTTEST, Sampling, sample
from minigpt2.model.batch import Batch
from minigpt2.model.gpt2 import gpt2

BLOCKS = 512  # of decode_attention: enough for every multiprocessor to have several
KEYS = 32  # the fewest keys of a split: GROUPS of decode_attention.cu
LEAST_ALIVE = 1 / 4  # of the rows


def decoder_of(
    flat: Array, cache: Cache, sampling: Sampling, rng: np.random.Generator | None
) -> Any:
    """Return a decoder for a cache whose model has the parameters `flat` (P,).

    NotImplemented for a head size or a width that no kernel is compiled for.
    """
    config = cache.parameters.config
    c, d = config.n_embd, config.n_embd // config.n_head
    fitting = fits("decode_attention", D=d) and fits("layer_norm_forward", flat.dtype, C=c)
    if not fitting or flat.dtype.name not in STORAGE:
        return NotImplemented
    return DeviceDecoder(cache, sampling, rng)


def store_rows(qkv: Array, prefix: Array, suffixes: Array, lengths: Array) -> Any:
    """Store the keys and values in qkv (N, 3C) in the prefix and the suffixes, in one launch."""
    _, heads, shared, d = prefix.shape
    if not fits("cache_rows", D=d) or qkv.dtype.name not in STORAGE:
        return NotImplemented
    xp, counts = array_module(qkv), [shared, *lengths.tolist()]
    sequences = np.repeat(np.arange(-1, len(lengths)), counts)  # (N,)
    places = np.concatenate([np.arange(count) for count in counts])  # (N,)
    on_device = xp.asarray(np.stack([sequences, places]), np.int32)  # (2, N)
    kv = qkv.reshape(len(qkv), 3, heads, d)
    launch(xp, "cache_rows", kv, on_device[0], on_device[1], prefix, suffixes)
    return None


class DeviceDecoder(Decoder):
    """A decoder whose step can be captured."""

    def __init__(self, cache: Cache, sampling: Sampling, rng: np.random.Generator | None):
        self.cache, self.sampling, self.rng = cache, sampling, rng
        self.xp = array_module(cache.suffixes)
        wte = cache.parameters["wte.weight"]
        self.width = -(-len(wte) // ALIGNED) * ALIGNED  # of a row of logits
        self.table = with_rows_behind(wte, self.width)
        self.prepare()

    @property
    def draws_by_kernel(self) -> bool:
        """Whether kernels/sample.cu can draw the tokens."""
        s, v = self.sampling, self.cache.parameters.config.vocab_size
        all_drawn_from = (s.top_k == 0 or s.top_k >= v) and s.top_p == 1
        return s.repetition_penalty == 1 and (all_drawn_from or s.is_greedy)

    def prepare(self) -> None:
        """Make the arrays of a step, for all sequences of the cache."""
        xp, config = self.xp, self.cache.parameters.config
        _, _, b, heads, room, d = self.cache.suffixes.shape
        rows = self.cache.prefix.shape[3] + room  # of the longest sequence
        splits = min(max(1, BLOCKS // (b * heads)), -(-rows // KEYS))
        self.keys = -(-rows // (splits * KEYS)) * KEYS
        splits = -(-rows // self.keys)
        self.last = rows - 1
        self.live = list(range(b))  # rows of the arrays whose sequences continue
        self.ids, self.positions = xp.zeros(b, np.int32), xp.zeros(b, np.int32)  # (B,)
        self.slot = Slot(xp, [2 * b])
        self.u = self.slot.views([np.float32])[0].reshape(b, 2)  # (B, 2)
        self.logits = xp.zeros((b, self.width), self.table.dtype)  # (B, W)
        self.partial = xp.zeros((b, heads, splits, d), np.float32)
        self.sums = xp.zeros((b, heads, splits, 2), np.float32)
        self.o = xp.zeros((b, config.n_embd), self.table.dtype)  # (B, C)
        self.runs = 0
        self.graph: Any = None

    def first(self, h: Array, sequences: Sequences) -> list[int]:
        """Return the token after each sequence whose last row in the cache is h (B, C)."""
        last_places = self.cache.prefix.shape[3] + self.cache.lengths - 1
        self.positions[...] = self.xp.asarray(last_places, np.int32)
        self.send_numbers()
        self.project(h)
        return self.tokens(sequences)

    def next(self, sequences: Sequences) -> list[int]:
        """Let the cache grow by the last token of each sequence; return the one after it.

        These tokens are on the device already.
        """
        self.send_numbers()
        self.run_step()
        self.cache.lengths[self.live] += 1
        return self.tokens(sequences)

    def keep(self, chosen: Sequence[int]) -> None:
        """Drop all sequences but the chosen ones; where most rows are idle, move the others."""
        self.live = [self.live[b] for b in chosen]
        if len(self.live) >= LEAST_ALIVE * len(self.ids):
            return
        rows = self.xp.asarray(self.live)
        ids, positions = self.ids[rows], self.positions[rows]
        self.cache.keep(self.live)
        self.cache.suffixes = self.xp.ascontiguousarray(self.cache.suffixes)
        self.prepare()
        self.ids[...], self.positions[...] = ids, positions

    def run_step(self) -> None:
        """Compute a step: first launch by launch, which loads its kernels; from then on as a graph.

        The null stream of a device captures nothing, so there all steps are like the first.
        """
        stream = self.xp.cuda.get_current_stream()
        with memory_of_graphs(self.xp):
            if self.runs == 1 and stream != self.xp.cuda.Stream.null:
                self.graph, _ = capture(self.xp, self.step)
            if self.graph is None:
                self.step()
            else:
                self.graph.launch(stream)
        self.runs += 1

    def step(self) -> None:
        """Compute a row of each sequence, and what follows it: launches and products alone."""
        nothing = np.empty(0, np.int64)
        batch = Batch(self.ids, self.positions, nothing, nothing, nothing, nothing)
        h, _ = gpt2(self.cache.parameters, batch, attend=self.attend, backward=False)  # (B, C)
        self.project(h)

    def attend(
        self, layer: int, qkv: Array, end: Array, n_head: int, *, divisor: float, **dropout: Any
    ) -> tuple[Array, None]:
        """Store a layer's keys and values of the new rows; attend over all that it holds now."""
        cache, (b, features) = self.cache, self.o.shape
        heads = qkv.reshape(b, 3, n_head, features // n_head)
        arrays = heads, cache.prefix[layer], cache.suffixes[layer], self.positions
        partial, sums, keys = self.partial, self.sums, self.keys
        o = self.o.reshape(b, n_head, -1)
        whole = o if partial.shape[2] == 1 else None  # of one split
        launch(
            self.xp, "decode_attention", *arrays, partial, sums, whole, keys=keys, scale=1 / divisor
        )
        if whole is None:
            arrays = partial, sums, self.positions, o
            launch(self.xp, "decode_attention_combine", *arrays, keys=keys)
        return self.o, None

    def project(self, h: Array) -> None:
        """Compute the logits of the rows h (B, C); where a kernel draws, draw the next tokens."""
        if len(h) == 1:
            launch(self.xp, "logits_row", h, self.table, self.logits)  # (9.1)
        else:
            matmul(h, self.table, transpose_w=True, out=self.logits[:, : len(self.table)])
        if self.draws_by_kernel:
            temperature = min(self.sampling.temperature, HOTTEST)
            u = None if self.sampling.is_greedy else self.u
            v, last = self.cache.parameters.config.vocab_size, self.last
            arrays = self.logits, u, self.ids, self.positions
            launch(self.xp, "sample", *arrays, V=v, last=last, temperature=temperature)

    def send_numbers(self) -> None:
        """Send the random numbers of a step to the device, each as the sum of two floats."""
        if self.sampling.is_greedy or not self.draws_by_kernel:
            return
        if self.rng is None:
            raise ValueError("a temperature draws random numbers: pass rng")
        u = np.zeros((len(self.ids), 2), np.float32)  # (B, 2)
        exact = self.rng.random((len(self.live), 1))[:, 0]
        u[self.live, 0] = exact
        u[self.live, 1] = exact - u[self.live, 0]
        self.slot.fill([u.ravel()])

    def tokens(self, sequences: Sequences) -> list[int]:
        """Return the new token of each sequence, in one copy; without a kernel, draw them first."""
        if not self.draws_by_kernel:
            rows, v = self.xp.asarray(self.live), self.cache.parameters.config.vocab_size
            self.ids[rows] = sample(self.logits[rows, :v], self.sampling, self.rng, sequences)
            self.positions[...] = self.xp.minimum(self.positions + 1, self.last)
        tokens = self.ids.tolist()
        return [tokens[row] for row in self.live]
