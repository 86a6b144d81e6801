"""Stream: a model's text is printed while it is written."""

from collections.abc import Iterable

from minigpt2.data.tokenizer import Tokenizer
from minigpt2.wording import plural


def print_stream(tokenizer: Tokenizer, ids: Iterable[int]) -> int:
    """Print tokens as they come, in complete characters, then a line break; return their number."""
    count = -1  # after the tokens' texts comes one more: the end of an incomplete character
    for text in tokenizer.decode_stream(ids):
        print(text, end="", flush=True)
        count += 1
    print()
    return count


def rate(tokens: int, seconds: float) -> str:
    """Return a number of tokens with their speed."""
    return f"{plural(tokens, 'token')}, {tokens / max(seconds, 1e-9):,.1f} tokens/s"
