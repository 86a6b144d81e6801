"""Answers: a question becomes a prompt, and the tokens that follow it become a text."""

from collections.abc import Callable, Sequence

import numpy as np

from minigpt2.data.examples import encode
from minigpt2.data.records import Record
from minigpt2.data.template import ALPACA
from minigpt2.data.truncation import fit_prompt
from minigpt2.errors import UserError
from minigpt2.inference.generate import generate
from minigpt2.inference.model import Model
from minigpt2.inference.sampling import GREEDY, Sampling
from minigpt2.wording import plural


def answer_questions(
    model: Model,
    records: Sequence[Record],
    *,
    max_new_tokens: int,
    sampling: Sampling = GREEDY,
    rng: np.random.Generator | None = None,
    warn: Callable[[str], None] = lambda text: None,
) -> list[str]:
    """Return the model's answer to the last question of each record; their outputs are not read.

    The prompt is in the template of the model, or in Alpaca's if it has none.  One that leaves no
    room for its answer is cut (data/truncation).  `warn` is called with a sentence about it, and
    about an answer that max_new_tokens, or the context, cuts.  The other arguments are those of
    `generate`.
    """
    parameters, tokenizer, template = model
    context = parameters.config.n_positions
    prompts = []
    for record in records:
        example = encode(record._replace(output=""), tokenizer, template or ALPACA)
        prompts.append(fit_prompt(example, context, new_tokens=max_new_tokens))
        if len(prompts[-1]) < example.last_answer:
            warn(describe_cut(example.last_answer, len(prompts[-1]), context))
    answers = generate(
        parameters,
        prompts,
        stop=tokenizer.end_of_text,
        max_new_tokens=max_new_tokens,
        sampling=sampling,
        rng=rng,
    )
    for prompt, ids in zip(prompts, answers, strict=True):
        if len(ids) == most_tokens(prompt, max_new_tokens, context):
            hint = "raise max_new_tokens" if len(ids) == max_new_tokens else "the context is full"
            warn(f"the answer is cut after {plural(len(ids), 'token')}: {hint}")
    return [tokenizer.decode(ids) for ids in answers]


def most_tokens(prompt: Sequence[int], max_new_tokens: int, context: int) -> int:
    """Return how many tokens an answer can have: the last one needs no row of the context."""
    return min(max_new_tokens, context + 1 - len(prompt))


def describe_cut(tokens: int, remaining: int, context: int) -> str:
    """Return a sentence about a prompt of so many tokens, of which some remain."""
    return (
        f"the question has {plural(tokens, 'token')} with its template: {tokens - remaining:,} of "
        f"them are left out, so that its answer has room in the model's context of {context:,}"
    )


def answer_prompts(
    model: Model,
    prompts: Sequence[list[int]],
    max_new_tokens: int,
    progress: Callable[[int], None] = lambda finished: None,
) -> list[str]:
    """Return the texts with which greedy decoding continues prompts."""
    answers = generate(
        model.parameters,
        prompts,
        stop=model.tokenizer.end_of_text,
        max_new_tokens=max_new_tokens,
        progress=progress,
    )
    return [model.tokenizer.decode(ids) for ids in answers]


def encode_start(text: str, model: Model) -> list[int]:
    """Return the ids of a text to continue; of an empty one, end-of-text.

    Raises UserError if there are more of them than the model's context.
    """
    ids = model.tokenizer.encode(text) or [model.tokenizer.end_of_text]
    context = model.parameters.config.n_positions
    if len(ids) > context:
        tokens = plural(len(ids), "token")
        raise UserError(f"the prompt has {tokens}, but the model reads at most {context}")
    return ids
