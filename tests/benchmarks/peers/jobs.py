"""The jobs that all contenders do: batches of token ids, with how many of each are the prompt."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from minigpt2.commands.dataset import open_data
from minigpt2.data.batches import batch_of
from minigpt2.data.examples import Example, encode
from minigpt2.data.template_files import open_template
from minigpt2.data.tokenizer import gpt2_tokenizer
from minigpt2.data.truncation import truncate_all
from minigpt2.model.config import GPT2Config
from tests.benchmarks.work import MODELS, operations

LEARNING_RATE, WEIGHT_DECAY, CLIP = 5e-5, 0.1, 1.0


class Job(NamedTuple):
    """What is trained: `batches` of (ids, tokens of the prompt), one batch a step."""

    name: str
    config: GPT2Config
    batches: list[list[tuple[list[int], int]]]

    def tokens(self, step):
        """Real tokens of a step: those of its examples, without padding."""
        return sum(len(ids) for ids, _ in self.batches[step])

    def operations(self, step):
        """Operations of our step: forward and backward over the forest, products and attention."""
        return sum(operations(self.config, forest_of(self.batches[step])).values())


def forest_of(batch):
    """A batch as this project lays it out: its answer is all that comes after the prompt."""
    return batch_of([Example(list(ids), answered(ids, prompt)) for ids, prompt in batch])


def answered(ids, prompt):
    """For each token, whether it is part of the answer."""
    return [n >= prompt for n in range(len(ids))]


def tuning(data, batch_size, steps, model="gpt2"):
    """Questions and answers in shuffled batches, the prompts masked."""
    records = open_data(data)
    template = open_template(records.format.template)
    examples = [encode(record, gpt2_tokenizer(), template) for record in records.records]
    examples, _ = truncate_all(examples, MODELS[model].n_positions, "answer")
    order = np.random.default_rng(0).permutation(len(examples))
    chosen = [examples[i] for i in np.resize(order, steps * batch_size)]
    vocabulary = MODELS[model].vocab_size  # the small model's is not GPT-2's
    pairs = [([token % vocabulary for token in e.ids], e.first_answer) for e in chosen]
    batches = [pairs[i * batch_size : (i + 1) * batch_size] for i in range(steps)]
    name = f"{Path(data).stem}, batch {batch_size}"
    return Job(name, MODELS[model], batches)


def dense(rows, length, steps, model="gpt2"):
    """Random tokens in full rows, every token supervised."""
    rng, config = np.random.default_rng(0), MODELS[model]
    draw = lambda: (rng.integers(config.vocab_size, size=length).tolist(), 1)  # noqa: E731
    batches = [[draw() for _ in range(rows)] for _ in range(steps)]
    return Job(f"{model}, dense {rows} x {length}", config, batches)
