"""Stream: print a model's text while the model writes it."""

from collections.abc import Iterable

from minigpt2.data.tokenizer import Tokenizer
from minigpt2.terminal import write
from minigpt2.wording import plural


def print_stream(tokenizer: Tokenizer, ids: Iterable[int]) -> int:
    """Print tokens as they come, in complete characters, then a line break; return their number."""
    count = -1  # decode_stream yields one text more than tokens: an incomplete last character
    for text in tokenizer.decode_stream(ids):
        write(text, end="")
        count += 1
    write("")
    return count


def rate(tokens: int, seconds: float) -> str:
    """Return a number of tokens, and the tokens per second."""
    return f"{plural(tokens, 'token')}, {tokens / max(seconds, 1e-9):,.1f} tokens/s"
