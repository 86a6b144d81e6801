"""Pretrain: the shipped base, made from the almanac and a seed.

A vocabulary is learnt from a sample of the text.  Then the model reads the text
without end, each piece once; a step takes as many pieces as fit in `rows` rows.
A piece is a root of the forest that starts with end-of-text, so its first word
is a target, and ends with it, so the model learns where to stop.

A small model on few tokens learns slowest what to attend to.  Two things help:
pieces are a sentence or two of plain text at first and whole documents at last, since
among few tokens the right one is soon found; and the initial values can copy (model/induction).
"""

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from minigpt2.backend import Array
from minigpt2.data.almanac import documents
from minigpt2.data.almanac.ask import instructions, line_words
from minigpt2.data.forest import Segment, lay_out
from minigpt2.data.records import Record
from minigpt2.data.template import prompt_of
from minigpt2.data.tokenizer import Tokenizer
from minigpt2.data.train_tokenizer import train_tokenizer
from minigpt2.errors import require_above_zero, require_at_least
from minigpt2.inference.model import open_model
from minigpt2.model.batch import Batch
from minigpt2.model.config import TINY
from minigpt2.model.induction import able_to_copy
from minigpt2.model.parameters import Parameters
from minigpt2.ops.adamw import AdamW
from minigpt2.reports.plots import draw_curve
from minigpt2.reports.run_log import Report, claim_folder, due, log_step
from minigpt2.training.checkpoint import save_checkpoint
from minigpt2.training.step import Plan, require_finite, train_steps

SAMPLE = 20_000  # documents that the vocabulary is learnt from
OFTEN = 60  # times that each wording of a question counts in it
BREAKS = re.compile(r"(?<=\.)\n")  # between units of text
SHORT = 32  # ids of a piece in the first part of the run
GROW, GROWN = 0.35, 0.55  # shares of the run between which pieces grow to whole documents


@dataclass(frozen=True)
class PretrainSettings:
    """Make the base that ships: a small GPT-2 that has read the almanac.

    Args:
        out: folder of the run; must not hold one yet (default: the first free of
            runs/pretrain-1, runs/pretrain-2, ...)
        start: folder of a model, or of a run, to go on from instead of random weights
        steps: how many steps to take
        rows: tokens in a step, about
        learning_rate: peak of the schedule
        warmup: steps in which the learning rate rises
        save_every: steps between checkpoints
        log_every: steps between printed lines (log.jsonl has every step)
        seed: of the text and of the initial weights
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

    def plan(self) -> Plan:
        """Return how many steps to take, and how."""
        adamw = AdamW(beta2=0.99)
        return Plan(self.steps, self.learning_rate, self.warmup, "cosine", adamw)

    def longest(self, step: int, context: int) -> int:
        """Return how many ids a piece of text may have in a step: few first, then all."""
        grown = (step / self.steps - GROW) / (GROWN - GROW)
        return round(SHORT + (context - SHORT) * min(1.0, max(0.0, grown)))


def almanac_tokenizer(n_vocab: int) -> Tokenizer:
    """Learn a vocabulary in which the almanac, its questions and the prompt template are short.

    A word at the start of a line is spelled without the space before it.  Text seldom has words
    there, questions and answers often; those words count as often as the wordings do.
    """
    told = islice(documents(np.random.default_rng(0)), SAMPLE)
    prompts = [prompt_of(Record(text, "", "")) for text in instructions()]
    return train_tokenizer(chain(told, [*prompts, "\n".join(line_words())] * OFTEN), n_vocab)


def initial(rng: np.random.Generator) -> tuple[Parameters, Tokenizer]:
    """Return the base before it has read, able to copy (model/induction), and its vocabulary."""
    tokenizer = almanac_tokenizer(TINY.vocab_size)
    config = replace(TINY, vocab_size=tokenizer.n_vocab)
    return able_to_copy(config, rng, words_of(tokenizer)), tokenizer


def words_of(tokenizer: Tokenizer) -> Array:
    """Number each token's word (V,): its text without a space before it and without capitals."""
    spelled = [tokenizer.bytes_of(i).removeprefix(b" ").lower() for i in range(tokenizer.n_vocab)]
    numbers = {word: number for number, word in enumerate(dict.fromkeys(spelled))}
    return np.array([numbers[word] for word in spelled])


def pieces(text: str, tokenizer: Tokenizer, longest: int) -> Iterator[list[int]]:
    """Yield a document's ids in runs of whole units, at most `longest` ids if one unit fits.

    A unit is what stands between a full stop at the end of a line and the next: a sentence, a
    story with its solution, or a heading with what belongs to it.
    """
    run: list[int] = []
    for unit in BREAKS.split(text):
        ids = tokenizer.encode(f"\n{unit}" if run else unit)
        if run and len(run) + len(ids) > longest:
            yield run
            run, ids = [], tokenizer.encode(unit)
        run = run + ids
    yield run


def as_root(ids: list[int], stop: int, context: int, number: int = 0) -> Segment:
    """Return text as a root: end-of-text, the text, end-of-text, cut to the context."""
    whole = [stop, *ids, stop][: context + 1]
    return Segment(whole, [0.0] + [1.0] * (len(whole) - 1), [], [number] * len(whole))


def text_windows(
    plain: Iterator[str],
    texts: Iterator[str],
    tokenizer: Tokenizer,
    context: int,
    settings: PretrainSettings,
) -> Iterator[list[Batch]]:
    """Yield one micro-batch a step, of whole pieces, with at most `rows` rows if they fit.

    Pieces are from the plain texts until they begin to grow.
    """
    segments: list[Segment] = []
    size, step = 0, 1
    while True:
        longest = settings.longest(step, context)
        text = next(plain if longest == SHORT else texts)
        for ids in pieces(text, tokenizer, longest):
            rows = min(len(ids) + 1, context)
            if segments and size + rows > settings.rows:
                yield [lay_out(segments)]
                segments, size, step = [], 0, step + 1
            segments.append(as_root(ids, tokenizer.end_of_text, context, len(segments)))
            size += rows


def pretrain(settings: PretrainSettings) -> dict[str, Any]:
    """Make the base; return what its summary.json holds.

    The checkpoint is stored in half precision, in the folder `checkpoint` of the run.
    """
    with Report(claim_folder(settings.out, "pretrain")) as report:
        report.write("settings.json", asdict(settings))
        rng = np.random.default_rng([settings.seed, 0])
        report.say("text", "the almanac, told anew in every document; learning its vocabulary")
        if settings.start:
            parameters, tokenizer, _ = open_model(settings.start)
        else:
            parameters, tokenizer = initial(rng)
        config = parameters.config
        report.say(
            "model",
            f"{config.n_parameters:,} parameters, {settings.start or 'random'}; "
            f"vocabulary {config.vocab_size:,}",
            parameters=config.n_parameters,
            vocabulary=config.vocab_size,
        )
        streams = [np.random.default_rng([settings.seed, 1, number]) for number in (0, 1)]
        texts = documents(streams[0], plain=True), documents(streams[1])
        batches = text_windows(*texts, tokenizer, config.n_positions, settings)
        steps = train_steps(parameters, batches, settings.plan(), settings.seed)
        losses: list[float] = []
        rows, seconds = 0, 0.0
        with report.progress("reading", settings.steps) as advance:
            for step in steps:
                losses.append(step.loss)
                rows, seconds = rows + step.rows, seconds + step.seconds
                log_step(step, settings.steps, settings.log_every, report)
                if step.step == settings.steps or due(step.step, settings.save_every):
                    checkpoint = report.folder / "checkpoint"
                    require_finite(parameters, step)
                    save_checkpoint(checkpoint, parameters, tokenizer, np.float16)
                advance(1)
        draw_curve(report.folder / "loss.png", losses, [])
        text = f"{rows:,} tokens in {seconds / 60:.0f} min; see {report.folder}"
        report.say("done", text, tokens=rows, seconds=seconds)
    return report.summary
