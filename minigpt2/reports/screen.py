"""Screen: the console, tables and lines that several commands print.

Text goes to it as it is: nothing in it is markup or the code of an emoji, and what a terminal would
obey is spelled (terminal).  Colours are given as styles.
"""

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from minigpt2.data.truncation import Cuts
from minigpt2.terminal import close_errors, close_output, note, visible
from minigpt2.wording import plural

WIDEST = 1000  # characters of a table


class Screen(Console):
    """The console on standard output.

    With `until_closed`, it turns silent when its terminal or the reader of its pipe is gone or its
    disk is full, and the program continues; without, the program ends.  The other options are those
    of rich's Console.
    """

    def __init__(self, *, until_closed: bool = False, wrap: bool = False, **options: Any):
        super().__init__(markup=False, emoji=False, highlight=False, soft_wrap=not wrap, **options)
        self.until_closed = until_closed

    def render_str(self, text: str, **options: Any) -> Text:
        """Return a text, visible, with the room that its escapes take."""
        return super().render_str(visible(text), **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Yield the segments of whatever is printed; the text of each is visible."""
        for segment in super().render(renderable, options):
            text = segment.text if segment.control else visible(segment.text)
            yield Segment(text, segment.style, segment.control)

    def __exit__(self, *exception: Any) -> None:
        """Write what was printed.  Raises OSError, unless `until_closed`, if that fails.

        All that rich writes, its bars too, goes through here.
        """
        try:
            super().__exit__(*exception)
        except OSError as error:
            if not self.until_closed:
                raise
            self.quiet = True
            if self.stderr:
                return close_errors()
            close_output()
            if not isinstance(error, BrokenPipeError):
                note(f"standard output: {error.strerror}; continuing without it")

    def on_broken_pipe(self) -> None:
        """Leave what happens to `__exit__`."""
        raise BrokenPipeError


def describe_cuts(cuts: Cuts) -> str:
    """Return the numbers of cuts.

    >>> describe_cuts(Cuts(answers=1, prompts=2, inputs=2, answer_tokens=1, prompt_tokens=1200))
    '1 answer cut (1 token), 2 prompts cut (1,200 tokens; inputs: 2, instructions: 0)'
    >>> describe_cuts(Cuts(conversations=1, exchange_tokens=9))
    'oldest exchanges of 1 conversation left out (9 tokens)'
    >>> describe_cuts(Cuts(examples=10))
    'nothing cut'
    """
    parts = []
    if cuts.answers:
        tokens = plural(cuts.answer_tokens, "token")
        parts.append(f"{plural(cuts.answers, 'answer')} cut ({tokens})")
    if cuts.prompts:
        tokens = plural(cuts.prompt_tokens, "token")
        where = f"inputs: {cuts.inputs:,}, instructions: {cuts.instructions:,}"
        parts.append(f"{plural(cuts.prompts, 'prompt')} cut ({tokens}; {where})")
    if cuts.conversations:
        tokens = plural(cuts.exchange_tokens, "token")
        conversations = plural(cuts.conversations, "conversation")
        parts.append(f"oldest exchanges of {conversations} left out ({tokens})")
    if cuts.dropped:
        tokens = plural(cuts.dropped_tokens, "token")
        parts.append(f"{plural(cuts.dropped, 'example')} dropped ({tokens})")
    return ", ".join(parts) or "nothing cut"


class WholeTable(Table):
    """A table that hides no part of a number: in a narrow terminal its lines are longer."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the table's segments; where a part of a cell would be hidden, at its own width."""
        wide = options.update(max_width=WIDEST)
        segments = list(super().__rich_console__(console, options))
        hidden = any("…" in segment.text for segment in segments if isinstance(segment, Segment))
        if hidden or options.max_width < self.__rich_measure__(console, wide).minimum:
            return super().__rich_console__(console, wide)
        return segments


def new_table(title: str, *columns: str) -> Table:
    """Return an empty table with a left-aligned first column, the others right-aligned."""
    table = WholeTable(
        title=title, title_justify="left", title_style="bold", box=None, header_style="dim"
    )
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number else "left", no_wrap=not number)
    return table
