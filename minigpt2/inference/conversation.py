"""Conversation: questions and answers in turn; each turn computes its own tokens only.

The model reads what it was trained on: each turn is written in its template (data/template), and
end-of-text closes each answer.  The rows of earlier turns stay in the key/value cache.  When the
context is full, the oldest turns are forgotten.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from minigpt2.data.template import ALPACA
from minigpt2.errors import UserError
from minigpt2.inference.generate import decoder_of
from minigpt2.inference.kv_cache import Cache
from minigpt2.inference.model import Model
from minigpt2.inference.sampling import GREEDY, Sampling
from minigpt2.wording import plural

CHUNK = 128  # rows of a prompt that are computed together


class Turn(NamedTuple):
    """A question and the ids of its answer, without end-of-text."""

    question: str
    answer: list[int]


class Conversation:
    """A model, and the turns that it has read and written so far."""

    def __init__(
        self,
        model: Model,
        *,
        system: str = "",
        max_new_tokens: int = 256,
        sampling: Sampling = GREEDY,
        rng: np.random.Generator | None = None,
    ):
        """Begin a conversation without turns.

        `system` is the text before the first question, in place of the template's opening.  An
        answer has at most max_new_tokens.  A temperature above 0 needs `rng`.
        """
        self.parameters, self.tokenizer = model.parameters, model.tokenizer
        self.template = model.template or ALPACA
        self.system, self.max_new_tokens = system, max_new_tokens
        self.turns: list[Turn] = []
        # Its rows are always those of the first ids of the conversation.
        context = model.parameters.config.n_positions
        self.cache = Cache(model.parameters, sequences=1, prefix=0, suffix=context)
        self.sample_with(sampling, rng)

    def sample_with(self, sampling: Sampling, rng: np.random.Generator | None) -> None:
        """Choose the tokens of the next answers in this way."""
        self.sampling, self.rng = sampling, rng
        self.decoder = decoder_of(self.parameters.flat, self.cache, sampling, rng)

    def forget(self, count: int | None = None) -> None:
        """Forget the oldest turns, or all."""
        del self.turns[:count]
        self.cache.lengths[:] = 0

    def undo(self) -> None:
        """Forget the last turn, if there is one."""
        del self.turns[-1:]
        self.cache.lengths[:] = 0

    def encode(self, turns: Sequence[Turn], question: str) -> list[int]:
        """Return the ids of some turns and of the prompt of a question after them."""
        ids: list[int] = []
        for turn in (*turns, Turn(question, [])):
            if ids:
                ids.append(self.tokenizer.end_of_text)
                text = self.template.later_prompt(turn.question)
            else:
                text = self.template.first_prompt(turn.question, system=self.system)
            ids += self.tokenizer.encode(text) + turn.answer
        return ids

    def fit(self, question: str) -> int:
        """Forget the oldest turns until a question and its answer fit; return how many.

        An answer needs max_new_tokens, or a quarter of the context if that is less.  Raises
        UserError, and forgets nothing, if the question does not fit alone.
        """
        context = self.parameters.config.n_positions
        reserved = max(1, min(self.max_new_tokens, context // 4))
        for count in range(len(self.turns) + 1):
            if len(self.encode(self.turns[count:], question)) + reserved <= context:
                if count:
                    self.forget(count)
                return count
        need = len(self.encode([], question))
        besides = "its template and the system message" if self.system else "its template"
        raise UserError(
            f"the question has {plural(need, 'token')} with {besides}, and its answer needs "
            f"{reserved}, but the model reads at most {context}"
        )

    def answer(self, question: str) -> Iterator[int]:
        """Yield the ids of the answer, and remember them, also when the caller stops early.

        The question must fit, as after `fit`.
        """
        ids = self.encode(self.turns, question)
        answer: list[int] = []
        self.turns.append(Turn(question, answer))
        for start in range(int(self.cache.lengths[0]), len(ids), CHUNK):
            h = self.cache.extend(np.array([ids[start : start + CHUNK]]))  # (1, n, C)
        (token,) = self.decoder.first(h[:, -1], [ids])
        while True:
            if token == self.tokenizer.end_of_text:
                return
            answer.append(token)
            yield token
            if len(answer) == self.max_new_tokens or not self.cache.free:
                return
            (token,) = self.decoder.next([ids + answer])

    def messages(self) -> list[dict[str, str]]:
        """Return the conversation as messages with roles (data/formats)."""
        messages = [{"role": "system", "content": self.system}] if self.system else []
        for question, answer in self.turns:
            messages.append({"role": "user", "content": question})
            messages.append({"role": "assistant", "content": self.tokenizer.decode(answer)})
        return messages
