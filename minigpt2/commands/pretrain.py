"""Pretrain: the shipped base, made from the almanac and a seed.

This is `minigpt2 pretrain`.  It learns a vocabulary from a sample of the text.  Then the model
reads the text (data/documents), each piece once, from initial values that can already copy a
word (model/induction).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from typing import Any

import numpy as np

from minigpt2.backend import Array
from minigpt2.commands.run_settings import RunSettings
from minigpt2.commands.session import Session
from minigpt2.commands.tuning_run import TuningRun, take_all_steps
from minigpt2.data.almanac import documents
from minigpt2.data.almanac.ask import instructions, line_words
from minigpt2.data.documents import DocumentBatches
from minigpt2.data.records import Record
from minigpt2.data.template import prompt_of
from minigpt2.data.tokenizer import Tokenizer
from minigpt2.data.train_tokenizer import train_tokenizer
from minigpt2.errors import require_at_least
from minigpt2.inference.model import Model, open_model, save_model
from minigpt2.model.config import TINY, GPT2Config
from minigpt2.model.induction import initialise_induction
from minigpt2.ops.adamw import AdamW
from minigpt2.planning.available import memory_of_machine
from minigpt2.planning.memory_and_flops import MemoryOptions, MicroBatch, memory, peak
from minigpt2.planning.room import Room
from minigpt2.reports.progress import progress
from minigpt2.terminal import note
from minigpt2.training.config import TrainingConfig
from minigpt2.training.fingerprint import Fingerprint, versions
from minigpt2.training.objective import WeightedNLL
from minigpt2.training.run import Every
from minigpt2.training.state import new_state
from minigpt2.wording import duration, plural

SAMPLE = 20_000  # documents that the vocabulary is learnt from
REPEATS = 60  # of each wording of a question in that sample
BASE = "base"
START, TEXT = 0, 1  # streams of random numbers


@dataclass(frozen=True, kw_only=True)
class PretrainSettings(RunSettings):
    """Make the base that ships: a small GPT-2 that has read the almanac.

    Examples:
        minigpt2 pretrain
        minigpt2 pretrain --steps 200 --seed 1 --out runs/short

    Args:
        out: folder of the run, new or empty (default: the first free of runs/pretrain-1,
            runs/pretrain-2, ...)
        start: model to start from instead of random weights: a name, or the folder of a model or
            of a run
        steps: number of optimiser steps
        rows: number of tokens in a step, roughly
        warmup: number of steps during which the learning rate rises
        resume: continue an unfinished run: its folder, or nothing for the newest one that has
            these settings (if there is none, a new run starts)
        resume_anyway: resume although settings have changed; then it is another run
        seed: seed of the text and of the initial weights
    """

    start: str | None = None
    steps: int = 5500
    rows: int = 1024
    learning_rate: float = 2e-3
    warmup: int = 100
    save_every: int = 500
    log_every: int = 50

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(1, self, "steps", "rows")
        require_at_least(0, self, "warmup")


def pretrain(settings: PretrainSettings) -> dict[str, Any]:
    """Make the base; return the content of its summary.json.

    The run's folder `base` has it in half precision, as it ships.
    """
    if not settings.start:
        check_room(TINY, settings.rows)
    with Session(settings, "pretrain") as session:
        start = session.model or settings.start
        with progress(f"opening {start or 'the almanac, and learning the vocabulary'}"):
            if start:
                model = open_model(start, warn=note)
            else:
                model = initial_model(np.random.default_rng([settings.seed, START]))
        shape = model.parameters.config
        warning = check_room(shape, settings.rows)
        disk = session.require_disk(shape)
        now = Fingerprint(contents={}, rounding=versions("cpu: NumPy"))
        log = session.start(now, settings.steps)
        log.say("text", "the almanac, worded anew in every document")
        log.say(
            "model",
            f"{plural(shape.n_parameters, 'parameter')}, {settings.start or 'random'}; "
            f"vocabulary {shape.vocab_size:,}",
            parameters=shape.n_parameters,
            vocabulary=shape.vocab_size,
        )
        log.say("disk", disk)
        if warning:
            log.say("warning", warning, key="memory")
        batches = DocumentBatches(
            partial(almanac_texts, settings.seed),
            model.tokenizer,
            context=shape.n_positions,
            steps=settings.steps,
            rows=settings.rows,
        )
        state, config, every = new_state(model.parameters), config_of(settings), every_of(settings)
        run = TuningRun(model, state, batches, WeightedNLL(), config, every)
        take_all_steps(run, session, task="reading")
        if not (log.folder / BASE).exists():
            save_model(log.folder / BASE, model, np.float16)
        steps = [entry for entry in log.entries() if "rows" in entry]
        rows, seconds = (sum(entry[name] for entry in steps) for name in ("rows", "seconds"))
        text = f"{plural(rows, 'token')} in {duration(seconds)}; see {log.folder / BASE}"
        log.say("done", text, tokens=rows, seconds=seconds)
    return log.summary


def check_room(config: GPT2Config, rows: int) -> str | None:
    """Return a warning if a step of so many tokens takes more memory than is free.

    Raises UserError if it takes more than there is.
    """
    needed = peak(memory(config, MicroBatch(rows, rows), MemoryOptions()))
    return Room(memory_of_machine()).require(
        needed, f"a step of {plural(rows, 'token')}", lambda most: "use smaller --rows"
    )


def config_of(settings: PretrainSettings) -> TrainingConfig:
    """Return the number of steps, the learning rate and AdamW's constants."""
    return TrainingConfig(
        steps=settings.steps,
        learning_rate=settings.learning_rate,
        warmup=settings.warmup,
        adamw=AdamW(beta2=0.99),
    )


def every_of(settings: PretrainSettings) -> Every:
    """Return how often the run prints a line and saves."""
    minutes = settings.save_minutes
    return Every(log=settings.log_every, save=settings.save_every, save_minutes=minutes)


def almanac_texts(seed: int) -> tuple[Iterator[str], Iterator[str]]:
    """Return the plain documents of the almanac and all of them, without end."""
    plain, texts = (np.random.default_rng([seed, TEXT, stream]) for stream in (0, 1))
    return documents(plain, plain=True), documents(texts)


def almanac_tokenizer(n_vocab: int) -> Tokenizer:
    """Learn a vocabulary that spells the almanac, its questions and the template in few tokens.

    A word at the start of a line is spelled without the space before it.  Text seldom has words
    there, questions and answers often; those words count as often as the wordings do.
    """
    texts = islice(documents(np.random.default_rng(0)), SAMPLE)
    prompts = [prompt_of(Record(text, "", "")) for text in instructions()]
    return train_tokenizer(chain(texts, [*prompts, "\n".join(line_words())] * REPEATS), n_vocab)


def initial_model(rng: np.random.Generator) -> Model:
    """Return the base before it has read, able to copy, with its vocabulary."""
    tokenizer = almanac_tokenizer(TINY.vocab_size)
    config = replace(TINY, vocab_size=tokenizer.n_vocab)
    return Model(initialise_induction(config, rng, words_of(tokenizer)), tokenizer, None)


def words_of(tokenizer: Tokenizer) -> Array:
    """Number each token's word (V,): its text without a space before it and without capitals."""
    spelled = [tokenizer.bytes_of(i).removeprefix(b" ").lower() for i in range(tokenizer.n_vocab)]
    numbers = {word: number for number, word in enumerate(dict.fromkeys(spelled))}
    return np.array([numbers[word] for word in spelled])
