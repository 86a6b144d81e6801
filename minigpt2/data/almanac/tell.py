"""Telling: documents about facts and documents about numbers, in equal parts.

Equal parts by size, where a word, a digit and a mark count one each: about what a small
byte-pair vocabulary makes of them.
"""

import re
from collections.abc import Iterator

import numpy as np

from minigpt2.data.almanac.tell_facts import fact_documents
from minigpt2.data.almanac.tell_numbers import number_documents

PIECE = re.compile(r"[A-Za-z]+|[0-9]|[^A-Za-z0-9\s]")


def size(text: str) -> int:
    """Words, digits and marks, each counted once."""
    return len(PIECE.findall(text))


def documents(rng: np.random.Generator) -> Iterator[str]:
    """Documents without end; the same generator state gives the same text."""
    streams = (fact_documents(rng), number_documents(rng))
    told = [0, 0]
    while True:
        behind = int(told[1] < told[0])
        document = next(streams[behind])
        told[behind] += size(document)
        yield document
