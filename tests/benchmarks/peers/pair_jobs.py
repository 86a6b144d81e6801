"""Jobs on preference pairs: the batches that all contenders train on, and the rows they take."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from minigpt2.alignment.log_probs import batch_of_answers
from minigpt2.alignment.pair_batches import answers_of
from minigpt2.alignment.pairs import Pair, read_pairs
from minigpt2.alignment.reward_model import batch_of_last_rows
from minigpt2.commands.dataset import open_data
from minigpt2.data.statistics import count_rows
from minigpt2.data.template_files import open_template
from minigpt2.data.tokenizer import gpt2_tokenizer
from minigpt2.model.config import GPT2Config
from tests.benchmarks.work import MODELS, operations

MADE = 512  # pairs of the set that is made up


class PairJob(NamedTuple):
    """What is trained: `batches` of pairs, one a step; `pad` is a token that occurs in none."""

    name: str
    config: GPT2Config
    batches: list[list[Pair]]
    scores: bool  # by a reward model; else by the policy's own probabilities
    pad: int

    def tokens(self, step):
        """Real tokens of a step: those of both answers, each with its prompt."""
        return sum(2 * len(p.prompt) + len(p.chosen) + len(p.rejected) for p in self.batches[step])

    def operations(self, step):
        """Operations of our step; a reward model has no logits, DPO a first look at them."""
        answers = answers_of(self.batches[step])
        batch = batch_of_last_rows(answers) if self.scores else batch_of_answers(answers)
        parts = operations(self.config, batch)
        logits = parts.pop("loss with projection")
        return sum(parts.values()) + (0 if self.scores else logits * 4 // 3)


def read(data, model):
    """The pairs of a file, encoded as they are trained on; without a file, as many made up."""
    vocabulary, context = MODELS[model].vocab_size, MODELS[model].n_positions
    if data is None:
        return made_up(vocabulary)
    records = open_data(str(data))
    template = open_template(records.format.template)
    pairs = read_pairs(records.records, gpt2_tokenizer(), template, context).pairs
    fitted = ([[token % vocabulary for token in ids] for ids in pair[:3]] for pair in pairs)
    return [Pair(*ids) for ids in fitted]  # the small model's vocabulary is not GPT-2's


def made_up(vocabulary, seed=0):
    """Pairs with the lengths of short questions: a preamble that all share, similar answers."""
    rng = np.random.default_rng(seed)

    def draw(mean):
        return rng.integers(vocabulary - 1, size=1 + rng.poisson(mean - 1)).tolist()

    preamble, heading = draw(24), draw(4)
    pairs = []
    for _ in range(MADE):
        prompt, shared = [*preamble, *draw(19), *heading], draw(3.5)
        chosen, rejected = ([*shared, *draw(11), vocabulary - 1] for _ in range(2))
        pairs.append(Pair(prompt, chosen, rejected))
    return pairs


def pair_jobs(data, batch_size, steps, model):
    """The jobs of DPO and of a reward model on shuffled pairs."""
    pairs = read(data, model)
    order = np.random.default_rng(0).permutation(len(pairs))
    chosen = [pairs[i] for i in np.resize(order, steps * batch_size)]
    batches = [chosen[i * batch_size : (i + 1) * batch_size] for i in range(steps)]
    used = {token for pair in chosen for ids in pair[:3] for token in ids}
    pad = next(token for token in range(MODELS[model].vocab_size) if token not in used)
    what = f"{Path(data).stem if data else 'made up'}, batch {batch_size}"
    return [
        PairJob(f"{kind}, {what}", MODELS[model], batches, kind != "DPO", pad)
        for kind in ("DPO", "reward model")
    ]


def rows_of_epoch(pairs, batch_size):
    """The rows of an epoch: padded, each answer by itself, as a forest."""
    order = np.random.default_rng(0).permutation(len(pairs))
    parts = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    return count_rows([example for i in part for example in pairs[i].examples] for part in parts)
