"""Fuzzer: a reader, inputs for it made from others, and what they have come to."""

from collections import Counter
from pathlib import Path
from random import Random

from tests.fuzz.attempt import Outcome, attempt
from tests.fuzz.mutate import mutated
from tests.fuzz.readers import Reader

LARGEST = 1 << 15  # bytes of an input, or twice the largest to begin with


class Fuzzer:
    """A reader with what its inputs have come to."""

    def __init__(self, reader: Reader, seed: int, work: Path):
        self.reader, self.rng, self.work = reader, Random(seed), work
        self.seeds = [each.packed() for each in reader.seeds]
        self.largest = max(LARGEST, 2 * max(map(len, self.seeds)))
        self.corpus = list(self.seeds)
        self.counts: Counter[str] = Counter()
        self.places: set[str] = set()
        self.findings: dict[str, tuple[Outcome, bytes]] = {}

    def attempt(self, content: bytes) -> Outcome:
        """Try one input, and count what becomes of it."""
        outcome = attempt(self.reader, content, self.work / "input")
        self.counts[outcome.kind] += 1
        if outcome.kind == "finding":
            self.findings.setdefault(outcome.place, (outcome, content))
        elif outcome.place not in self.places:
            self.places.add(outcome.place)
            self.corpus.append(content)
        return outcome

    def changed(self, content: bytes) -> bytes:
        """An input made from another."""
        return mutated(content, self.rng.choice(self.corpus), self.rng, self.largest)

    def explore(self, inputs: int) -> None:
        """Try what there is to begin with, and then so many inputs made from it."""
        for content in self.seeds:
            self.attempt(content)
        for _ in range(inputs):
            self.attempt(self.changed(self.rng.choice(self.corpus)))
