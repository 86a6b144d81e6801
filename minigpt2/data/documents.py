"""Documents: the almanac's text in steps, for pretraining.

A document is read in pieces.  A piece is a root of the forest that starts with end-of-text, so
its first word is a target, and ends with it, so the model learns where to stop.  A step takes as
many pieces as fit in its rows.  A small model on few tokens learns slowest what to attend to, so
pieces are a sentence or two of plain text at first and whole documents at last: among few tokens
the right one is soon found.
"""

import re
from collections.abc import Callable, Iterator

from minigpt2.data.batches import StepBatches
from minigpt2.data.forest import Segment, lay_out
from minigpt2.data.tokenizer import Tokenizer

BREAKS = re.compile(r"(?<=\.)\n")  # between units of text
SHORT = 32  # ids of a piece in the first part of the run
GROW, GROWN = 0.35, 0.55  # shares of the run between which pieces grow to whole documents
Texts = Callable[[], tuple[Iterator[str], Iterator[str]]]  # plain texts and all, from the beginning


def longest_piece(step: int, steps: int, context: int) -> int:
    """Return how many ids a piece may have in a step of a run: few at first, then all."""
    grown = (step / steps - GROW) / (GROWN - GROW)
    return round(SHORT + (context - SHORT) * min(1.0, max(0.0, grown)))


def pieces(text: str, tokenizer: Tokenizer, longest: int) -> Iterator[list[int]]:
    """Yield a document's ids in runs of whole units, at most `longest` ids if one unit fits.

    A unit ends with a full stop at the end of a line: a sentence, a story with its solution, or a
    heading with what belongs to it.
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


class DocumentBatches:
    """One micro-batch a step, of whole pieces, with at most `rows` rows if they fit.

    Texts are drawn from the plain ones until pieces begin to grow.  A place is a step's number:
    texts cannot be drawn from the middle, so a step out of turn draws them again from the start.
    """

    def __init__(self, texts: Texts, tokenizer: Tokenizer, *, context: int, steps: int, rows: int):
        self.texts = texts
        self.tokenizer = tokenizer
        self.context = context
        self.steps = steps
        self.rows = rows
        self._next = 0
        self._stream = self._segments()

    def at(self, epoch: int, position: int) -> StepBatches:
        """Return the step that begins at a place; the epoch is always 0."""
        if position < self._next:
            self._next, self._stream = 0, self._segments()
        while True:
            segments = next(self._stream)
            self._next += 1
            if self._next > position:
                return StepBatches([lay_out(segments)], epoch, self._next)

    def _segments(self) -> Iterator[list[Segment]]:
        """Yield the roots of one step after the other."""
        plain, texts = self.texts()
        segments: list[Segment] = []
        size, step = 0, 1
        while True:
            longest = longest_piece(step, self.steps, self.context)
            text = next(plain if longest == SHORT else texts)
            for ids in pieces(text, self.tokenizer, longest):
                rows = min(len(ids) + 1, self.context)
                if segments and size + rows > self.rows:
                    yield segments
                    segments, size, step = [], 0, step + 1
                number = len(segments)
                segments.append(as_root(ids, self.tokenizer.end_of_text, self.context, number))
                size += rows
