"""What both implementations compute: models with all parameters random, and batches."""

from typing import NamedTuple

import numpy as np

from minigpt2.data.forest import Segment, common_prefix, lay_out
from minigpt2.model.config import OFFICIAL, GPT2Config
from minigpt2.model.initialisation import initialise


class Case(NamedTuple):
    """A model by its shape, sequences, and how many tokens of each are prompt (no target).

    `rate` is AdamW's learning rate.  At 1e-4 the full model of random weights loses half its loss
    in ten steps, and any difference in the last bit grows threefold with each; at the rate of
    real tuning, 1e-5, it does not.
    """

    name: str
    config: GPT2Config
    sequences: tuple[tuple[int, ...], ...]
    prompts: tuple[int, ...]
    rate: float

    def start(self, new):
        """How many tokens of each sequence leave room for so many new ones in the context."""
        return max(1, min(*map(len, self.sequences), self.config.n_positions - new))


def make_case(name, config, lengths, rate=1e-3, shared=0, seed=0):
    """Random sequences of given lengths, the first `shared` tokens the same in all."""
    rng = np.random.default_rng([seed, 1])
    start = rng.integers(config.vocab_size, size=shared).tolist()
    rest = [rng.integers(config.vocab_size, size=n - shared).tolist() for n in lengths]
    prompts = [1 if not shared else shared + (n - shared) // 2 for n in lengths]
    return Case(name, config, tuple(tuple(start + r) for r in rest), tuple(prompts), rate)


LITTLE = {
    "1 block, 1 head": GPT2Config(31, 9, 6, 1, 1),
    "2 blocks, 3 heads": GPT2Config(97, 33, 15, 2, 3),
    "3 blocks, 5 heads": GPT2Config(211, 70, 40, 3, 5),
    "scores over the layer": GPT2Config(211, 70, 40, 3, 5, scale_attn_by_inverse_layer_idx=True),
    "scores as they are": GPT2Config(
        97, 33, 15, 2, 3, scale_attn_weights=False, reorder_and_upcast_attn=True
    ),
}
CASES = [
    *(make_case(n, c, (c.n_positions, c.n_positions // 2, 2)) for n, c in LITTLE.items()),
    make_case("shared prompts", LITTLE["3 blocks, 5 heads"], (60, 41, 70, 33), shared=20),
]
FULL = make_case("124M", OFFICIAL["gpt2"], (64, 40, 23), rate=1e-5, shared=12)


def parameters_of(case, seed=0):
    """Parameters in which nothing is 0 or 1, so that no mistake can hide there."""
    rng = np.random.default_rng([seed, 2])
    parameters = initialise(case.config, rng)
    for name, view in parameters.views.items():
        if view.ndim == 1:
            view += 0.1 * rng.standard_normal(view.shape, np.float32)
        elif case.config.n_embd < 100 and name.startswith("h."):
            view *= 8  # small models are as lively as large ones
    return parameters


def shared_of(case):
    """How many tokens stand in the forest once: those that all prompts begin with."""
    return min(common_prefix([list(s) for s in case.sequences]), *case.prompts)


def forest(case):
    """The sequences as one forest below the tokens that all share; answers are supervised."""
    shared = shared_of(case)
    children = [
        Segment(list(s[shared:]), [float(k >= p) for k in range(shared, len(s))])
        for s, p in zip(case.sequences, case.prompts, strict=True)
    ]
    if not shared:
        return lay_out(children)
    return lay_out([Segment(list(case.sequences[0][:shared]), [0.0] * shared, children)])


def rows_of(case):
    """Of each sequence, which rows of the forest its tokens have; the last token has none."""
    shared = at = shared_of(case)
    found = []
    for sequence in case.sequences:
        own = len(sequence) - 1 - shared
        found.append([*range(shared), *range(at, at + own)])
        at += own
    return found
