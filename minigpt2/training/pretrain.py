"""Pretraining: the shipped base, made from the almanac and a seed.

A vocabulary is learnt from a sample of the text.  Then the model reads documents
without end, each once: a step takes as many whole documents as fit in `rows`
rows.  A document is a root of the forest that starts with end-of-text, so its
first word is a target, and ends with it, so the model learns where to stop.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from minigpt2.data.almanac import documents, questions
from minigpt2.data.bpe import learn_tokenizer
from minigpt2.data.forest import Segment, lay_out
from minigpt2.data.records import Record
from minigpt2.data.template import prompt_of
from minigpt2.data.tokenizer import Tokenizer
from minigpt2.model.config import TINY
from minigpt2.model.gpt2 import Batch
from minigpt2.model.parameters import initialise
from minigpt2.training.adamw import AdamW
from minigpt2.training.checkpoint import save_checkpoint
from minigpt2.training.curve import draw_curve
from minigpt2.training.loop import Plan, train_steps
from minigpt2.training.report import Report, claim_folder, due, log_step

SAMPLE = 20_000  # documents that the vocabulary is learnt from


@dataclass(frozen=True)
class PretrainSettings:
    """Make the base that ships: a small GPT-2 that has read the almanac.

    Args:
        out: folder of the run; must not hold one yet (default: the first free of
            runs/pretrain-1, runs/pretrain-2, ...)
        steps: how many steps to take
        rows: tokens in a step, about
        learning_rate: peak of the schedule
        warmup: steps in which the learning rate rises
        save_every: steps between checkpoints
        log_every: steps between printed lines (log.jsonl has every step)
        seed: of the text and of the initial weights
    """

    out: Path | None = None
    steps: int = 5000
    rows: int = 1024
    learning_rate: float = 2e-3
    warmup: int = 200
    save_every: int = 500
    log_every: int = 50
    seed: int = 0

    def plan(self) -> Plan:
        """Return how many steps to take, and how."""
        adamw = AdamW(beta2=0.99)
        return Plan(self.steps, self.learning_rate, self.warmup, "cosine", adamw)


def almanac_tokenizer(n_vocab: int) -> Tokenizer:
    """Learn a vocabulary in which the almanac, its questions and the prompt template are short."""
    told = islice(documents(np.random.default_rng(0)), SAMPLE)
    records = [Record(**r) for r in questions(0).train]
    asked = (f"{prompt_of(r)}{r.output}" for r in records)
    return learn_tokenizer([*told, *asked], n_vocab)


def document_segment(text: str, tokenizer: Tokenizer, context: int) -> Segment:
    """Return a document as a root: end-of-text, the text, end-of-text, cut to the context."""
    stop = tokenizer.end_of_text
    ids = [stop, *tokenizer.encode(text), stop][: context + 1]
    return Segment(ids, [0.0] + [1.0] * (len(ids) - 1))


def document_windows(
    texts: Iterator[str], tokenizer: Tokenizer, context: int, rows: int
) -> Iterator[list[Batch]]:
    """Yield one micro-batch a step, of whole documents, with at most `rows` rows if one fits."""
    segments: list[Segment] = []
    size = 0
    for text in texts:
        segment = document_segment(text, tokenizer, context)
        if segments and size + len(segment.ids) - 1 > rows:
            yield [lay_out(segments)]
            segments, size = [], 0
        segments.append(segment)
        size += len(segment.ids) - 1


def pretrain(settings: PretrainSettings) -> dict[str, Any]:
    """Make the base; return what its summary.json holds.

    The checkpoint is stored in half precision, in the folder `checkpoint` of the run.
    """
    with Report(claim_folder(settings.out, "pretrain")) as report:
        report.write("settings.json", asdict(settings))
        tokenizer = almanac_tokenizer(TINY.vocab_size)
        config = replace(TINY, vocab_size=tokenizer.n_vocab)
        rng = np.random.default_rng([settings.seed, 0])
        parameters = initialise(config, rng)
        report.say(
            "model",
            f"{config.n_parameters:,} parameters, random; vocabulary {config.vocab_size:,}",
            parameters=config.n_parameters,
            vocabulary=config.vocab_size,
        )
        texts = documents(np.random.default_rng([settings.seed, 1]))
        batches = document_windows(texts, tokenizer, config.n_positions, settings.rows)
        steps = train_steps(parameters, batches, settings.plan(), rng)
        losses: list[float] = []
        rows, seconds = 0, 0.0
        with report.progress("reading", settings.steps) as advance:
            for step in steps:
                losses.append(step.loss)
                rows, seconds = rows + step.rows, seconds + step.seconds
                log_step(step, settings.steps, settings.log_every, report)
                if step.step == settings.steps or due(step.step, settings.save_every):
                    checkpoint = report.folder / "checkpoint"
                    save_checkpoint(checkpoint, parameters, tokenizer, np.float16)
                advance(1)
        draw_curve(report.folder / "loss.png", losses, [], "The base reads the almanac")
        text = f"{rows:,} tokens in {seconds / 60:.0f} min; see {report.folder}"
        report.say("done", text, tokens=rows, seconds=seconds)
    return report.summary
