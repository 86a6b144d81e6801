"""Run on pairs: the setup of `reward` and `dpo`, where their settings become values."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from minigpt2.alignment.pair_batches import PairBatches
from minigpt2.alignment.pairs import (
    Pair,
    PairSet,
    lengths_of_pairs,
    read_pairs,
    require_pairs,
    split_pairs,
)
from minigpt2.backend import Array
from minigpt2.commands.dataset import Dataset, open_dataset, reader_of
from minigpt2.commands.pair_settings import PairSettings
from minigpt2.commands.run_settings import every_of, steps_of, training_config
from minigpt2.commands.tests import open_tests
from minigpt2.data.records import Record
from minigpt2.device.devices import open_device
from minigpt2.inference.model import Model, RewardModel
from minigpt2.planning.room import require_state
from minigpt2.reports.before_after import Advance
from minigpt2.reports.progress import tracked
from minigpt2.training.config import TrainingConfig
from minigpt2.training.fingerprint import digest_of_examples
from minigpt2.training.precision import check_precision
from minigpt2.training.run import Every
from minigpt2.training.state import State, new_state

CHUNK = 32  # pairs that are computed at once at most, where nothing is trained


class PairRun(NamedTuple):
    """The values of a run on pairs."""

    model: Any  # a Model or a RewardModel, with the template of the pairs
    dataset: Dataset
    pairs: PairSet
    training: list[int]  # places in the pairs
    held_out: list[int]  # of those for validation
    state: State
    config: TrainingConfig
    every: Every
    batch_size: int
    micro_batch: int
    is_tuned: bool  # the model came with a template

    @property
    def trained(self) -> list[Pair]:
        """The pairs to train on."""
        return [self.pairs.pairs[i] for i in self.training]

    @property
    def validated(self) -> list[Pair]:
        """The pairs for validation."""
        return [self.pairs.pairs[i] for i in self.held_out]

    def batches(self, **others: Any) -> PairBatches:
        """Return the pairs to train on in epochs; `others` are more arguments of PairBatches."""
        return PairBatches(
            self.trained,
            batch_size=self.batch_size,
            micro_batch=self.micro_batch,
            seed=self.state.seed,
            **others,
        )

    def in_chunks(
        self,
        pairs: Sequence[Pair],
        compute: Callable[[Sequence[Pair], int], Array],
        advance: Advance,
    ) -> Array:
        """Return the numbers (B, 2) of pairs, chunk by chunk, and count those that are done.

        `compute` returns the numbers of a chunk, of which all may be computed at once, so many.
        """
        size, results = min(CHUNK, self.micro_batch), [np.empty((0, 2))]
        for start in range(0, len(pairs), size):
            part = pairs[start : start + size]
            results.append(compute(part, size))
            advance(len(part))
        return np.concatenate(results)

    def counts(self) -> dict[str, Any]:
        """Return the numbers of pairs and of their tokens."""
        return {
            "training": len(self.training),
            "validation": len(self.held_out),
            **lengths_of_pairs(self.pairs.pairs),
            "equal": self.pairs.equal,
            "equal_when_cut": self.pairs.equal_when_cut,
        }


def setup_pairs(settings: PairSettings, model: Model | RewardModel) -> PairRun:
    """Open the pairs for a model, and make the state of a run.

    Raises UserError if something cannot be used.
    """
    library = open_device(settings.device)
    check_precision(settings.precision, library)
    require_state(model.parameters.config, library)
    dataset = open_dataset(settings, reader_of(model), "pairs")
    pairs = pairs_of(dataset.records, dataset, dataset.name)
    require_pairs(pairs, dataset.name, dataset.context)
    training, held_out = split_pairs(pairs.pairs, settings.validation, settings.seed)
    parameters = model.parameters.on(library)
    steps = steps_of(settings, -(-len(training) // settings.batch_size))
    return PairRun(
        model=model._replace(parameters=parameters, template=dataset.template),
        dataset=dataset,
        pairs=pairs,
        training=training,
        held_out=held_out,
        state=new_state(parameters, settings.precision, settings.seed),
        config=training_config(settings, steps),
        every=every_of(settings, steps),
        batch_size=settings.batch_size,
        micro_batch=min(settings.micro_batch or settings.batch_size, settings.batch_size),
        is_tuned=model.template is not None,
    )


def open_pair_tests(settings: PairSettings, dataset: Dataset) -> dict[str, list[Pair]]:
    """Return the pairs of each test by its name; raises UserError."""
    tests = open_tests(
        settings.data, settings.test, settings.columns, settings.skip_bad, pairs=True
    )
    result = {}
    for name, records in tests.items():
        pairs = pairs_of(records, dataset, f"the test {name}")
        require_pairs(pairs, name, dataset.context)
        result[name] = pairs.pairs
    return result


def pairs_of(records: Sequence[Record], dataset: Dataset, name: str) -> PairSet:
    """Return records as pairs in the template and the context of a data set; raises UserError.

    `name` is that of the file that they are from.
    """
    reader = dataset.tokenizer, dataset.template, dataset.context, dataset.truncate
    return read_pairs(tracked("encoding", records), *reader, name=name)


def digest_of_pairs(*parts: Sequence[Pair]) -> str:
    """Return the SHA-256 of all ids of pairs, in their order and their parts."""
    examples = [[example for pair in pairs for example in pair.examples] for pairs in parts]
    return digest_of_examples(examples)
