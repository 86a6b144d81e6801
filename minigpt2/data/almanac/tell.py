"""Telling: documents about facts, about numbers, and about words that are told twice.

Parts are by size, where a word, a digit and a mark count one each: about what a small
byte-pair vocabulary makes of them.
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
    """Words, digits and marks, each counted once."""
    return len(PIECE.findall(text))


def documents(rng: np.random.Generator, plain: bool = False) -> Iterator[str]:
    """Documents without end; the same generator state gives the same text.

    Plain text is for beginners: a word that is repeated keeps its form, and what stands under a
    heading is a sentence.
    """
    streams = (fact_documents(rng, plain), number_documents(rng), word_documents(rng, plain))
    told = [0.0] * len(streams)
    while True:
        behind = told.index(min(told))
        document = next(streams[behind])
        told[behind] += size(document) / SHARES[behind]
        yield document
