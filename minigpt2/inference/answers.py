"""Answers: a question becomes a prompt, and the tokens that follow it become a text."""

from collections.abc import Callable, Sequence

import numpy as np

from minigpt2.data.examples import encode_prompt
from minigpt2.data.records import Record
from minigpt2.data.template import ALPACA
from minigpt2.errors import UserError
from minigpt2.inference.generate import generate
from minigpt2.inference.model import Model
from minigpt2.inference.sampling import GREEDY, Sampling


def answer_questions(
    model: Model,
    records: Sequence[Record],
    *,
    max_new_tokens: int,
    sampling: Sampling = GREEDY,
    rng: np.random.Generator | None = None,
    truncate: bool = False,
    progress: Callable[[int], None] = lambda finished: None,
) -> list[str]:
    """Return the model's answer to the last question of each record; their outputs are not read.

    The prompt is in the template of the model, or in Alpaca's if it has none.  Of a prompt that is
    longer than the context, `truncate` keeps the end; without it, UserError is raised.  The other
    arguments are those of `generate`.
    """
    parameters, tokenizer, template = model
    context = parameters.config.n_positions
    prompts = [encode_prompt(record, tokenizer, template or ALPACA) for record in records]
    longest = max(map(len, prompts), default=0)
    if longest > context and not truncate:
        raise UserError(
            f"the question has {longest} tokens with its template, but the model reads at most "
            f"{context}"
        )
    answers = generate(
        parameters,
        [prompt[-context:] for prompt in prompts],
        stop=tokenizer.end_of_text,
        max_new_tokens=max_new_tokens,
        sampling=sampling,
        rng=rng,
        progress=progress,
    )
    return [tokenizer.decode(ids) for ids in answers]


def encode_start(text: str, model: Model) -> list[int]:
    """Return the ids of a text to continue; of an empty one, end-of-text.

    Raises UserError if there are more of them than the model's context.
    """
    ids = model.tokenizer.encode(text) or [model.tokenizer.end_of_text]
    context = model.parameters.config.n_positions
    if len(ids) > context:
        raise UserError(f"the prompt has {len(ids)} tokens, but the model reads at most {context}")
    return ids
