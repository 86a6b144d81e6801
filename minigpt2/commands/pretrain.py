"""Pretrain: the shipped base, made from the almanac and a seed.

This is `minigpt2 pretrain`.  It learns a vocabulary from a sample of the text.  Then the model
reads the text (data/documents), each piece once, from initial values that can already copy a
word (model/induction).
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from minigpt2.backend import Array
from minigpt2.data.almanac import documents
from minigpt2.data.almanac.ask import instructions, line_words
from minigpt2.data.documents import DocumentBatches
from minigpt2.data.records import Record
from minigpt2.data.template import prompt_of
from minigpt2.data.tokenizer import Tokenizer
from minigpt2.data.train_tokenizer import train_tokenizer
from minigpt2.errors import require_above_zero, require_at_least
from minigpt2.inference.model import Model, open_model
from minigpt2.model.config import TINY, GPT2Config
from minigpt2.model.induction import initialise_induction
from minigpt2.ops.adamw import AdamW
from minigpt2.planning.available import memory_of_machine
from minigpt2.planning.memory_and_flops import MemoryOptions, MicroBatch, memory, peak
from minigpt2.planning.room import Room
from minigpt2.reports.progress import progress
from minigpt2.reports.run_log import RunLog, claim_folder
from minigpt2.terminal import note
from minigpt2.training.checkpoint import save_checkpoint
from minigpt2.training.objective import WeightedNLL
from minigpt2.training.run import Every, Hooks, run_steps
from minigpt2.training.state import new_state
from minigpt2.training.step import StepResult, TrainingConfig
from minigpt2.wording import duration, plural

SAMPLE = 20_000  # documents that the vocabulary is learnt from
REPEATS = 60  # of each wording of a question in that sample
START, TEXT = 0, 1  # streams of random numbers


@dataclass(frozen=True, kw_only=True)
class PretrainSettings:
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
        learning_rate: peak learning rate
        warmup: number of steps during which the learning rate rises
        save_every: steps between checkpoints; 0 saves at the end only
        log_every: steps between printed lines (log.jsonl has every step)
        seed: seed of the text and of the initial weights
    """

    out: Path | None = None
    start: str | None = None
    steps: int = 5500
    rows: int = 1024
    learning_rate: float = 2e-3
    warmup: int = 100
    save_every: int = 500
    log_every: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        require_above_zero(self, "learning_rate")
        require_at_least(1, self, "steps", "rows", "log_every")
        require_at_least(0, self, "warmup", "save_every", "seed")


def pretrain(settings: PretrainSettings) -> dict[str, Any]:
    """Make the base; return the content of its summary.json.

    The checkpoint is stored in half precision, in the folder `checkpoint` of the run.
    """
    if not settings.start:
        check_room(TINY, settings.rows)
    with RunLog(claim_folder(settings.out, "pretrain")) as log:
        log.write("settings.json", asdict(settings))
        log.say("text", "the almanac, worded anew in every document; learning the vocabulary")
        with progress(f"opening {settings.start or 'the almanac'}", console=log.console):
            if settings.start:
                model = open_model(settings.start, warn=note)
            else:
                model = initial_model(np.random.default_rng([settings.seed, START]))
        config = model.parameters.config
        warning = check_room(config, settings.rows)
        log.say(
            "model",
            f"{plural(config.n_parameters, 'parameter')}, {settings.start or 'random'}; "
            f"vocabulary {config.vocab_size:,}",
            parameters=config.n_parameters,
            vocabulary=config.vocab_size,
        )
        if warning:
            log.say("warning", warning, key="memory")
        batches = DocumentBatches(
            partial(almanac_texts, settings.seed),
            model.tokenizer,
            context=config.n_positions,
            steps=settings.steps,
            rows=settings.rows,
        )
        every = Every(log=settings.log_every, save=settings.save_every)
        rows, seconds = read(model, batches, training_config(settings), every, log)
        text = f"{plural(rows, 'token')} in {duration(seconds)}; see {log.folder}"
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


def training_config(settings: PretrainSettings) -> TrainingConfig:
    """Return the number of steps, the learning rate and AdamW's constants."""
    return TrainingConfig(
        steps=settings.steps,
        learning_rate=settings.learning_rate,
        warmup=settings.warmup,
        adamw=AdamW(beta2=0.99),
    )


def read(
    model: Model, batches: DocumentBatches, config: TrainingConfig, every: Every, log: RunLog
) -> tuple[int, float]:
    """Take all steps; return the tokens that were read, and the seconds."""
    rows, seconds = 0, 0.0

    def log_step(result: StepResult, printed: bool) -> None:
        nonlocal rows, seconds
        rows, seconds = rows + result.rows, seconds + result.seconds
        log.add_step(result, config.steps, printed=printed)

    def save() -> None:
        folder = log.folder / "checkpoint"
        save_checkpoint(folder, model.parameters, model.tokenizer, dtype=np.float16)

    with progress("reading", config.steps, log.console) as advance:
        hooks = Hooks(log=log_step, save=save, advance=advance)
        state = new_state(model.parameters)
        run_steps(state, batches, WeightedNLL(), config, every=every, hooks=hooks)
    return rows, seconds


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
