"""Telling: documents about facts, about numbers, and of words that are repeated.

Their shares of the text are by size.  A word, a digit and a punctuation mark have size 1 each:
about as many tokens as a small byte-pair vocabulary makes of them.
"""

import re
from collections.abc import Iterator

import numpy as np

from minigpt2.data.almanac.tell_facts import fact_documents
from minigpt2.data.almanac.tell_numbers import number_documents
from minigpt2.data.almanac.tell_words import word_documents

PIECE = re.compile(r"[A-Za-z]+|[0-9]|[^A-Za-z0-9\s]")
SHARES = (7, 7, 2)  # of facts, numbers and words in 16 parts of text


def size(text: str) -> int:
    """Return how many words, digits and punctuation marks a text has."""
    return len(PIECE.findall(text))


def documents(rng: np.random.Generator, plain: bool = False) -> Iterator[str]:
    """Yield documents without end; the same generator state gives the same text.

    Plain text is easier to learn from: a word that is repeated keeps its form, and the text under a
    heading is a sentence.
    """
    streams = (fact_documents(rng, plain), number_documents(rng), word_documents(rng, plain))
    progress = [0.0] * len(streams)
    while True:
        behind = progress.index(min(progress))
        document = next(streams[behind])
        progress[behind] += size(document) / SHARES[behind]
        yield document
