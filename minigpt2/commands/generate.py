"""Generate: a model continues a text, once or several times.

A single continuation is printed while the model writes it, several when they are finished.
"""

from dataclasses import dataclass
from time import perf_counter
from typing import Any

from minigpt2.commands.decoding import DecodingSettings
from minigpt2.errors import require_at_least
from minigpt2.inference.answers import encode_start, most_tokens
from minigpt2.inference.generate import GROUP_SIZE, stream_tokens
from minigpt2.inference.generate import generate as generate_all
from minigpt2.reports.progress import progress
from minigpt2.reports.stream import print_stream, rate
from minigpt2.terminal import is_typed, is_watched, note, read_all, write
from minigpt2.wording import plural


@dataclass(frozen=True, kw_only=True)
class GenerateSettings(DecodingSettings):
    """Continue a text with a model.

    Examples:
        minigpt2 generate "The capital of France"
        minigpt2 generate "Once upon a time" --model gpt2 --samples 3 --top-p 0.9
        minigpt2 generate --model gpt2 < story.txt

    Output:
        The continuation, or several with --- between them.  In a terminal,
        control codes in it are spelled, as \\x1b.  A file or a pipe gets it as
        the model wrote it.

    Args:
        prompt: text to continue (default: standard input)
        samples: number of continuations
    """

    prompt: str | None = None
    samples: int = 1
    max_new_tokens: int = 100
    temperature: float = 0.8

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(1, self, "samples")


def generate(settings: GenerateSettings) -> None:
    """Print the continuations; in a terminal also their speed, on the error stream."""
    model = settings.open_model()
    prompt = settings.prompt
    if prompt is None:
        if is_typed():
            note("the text to continue, then Ctrl-D:")
        prompt = read_all().rstrip("\n")
    ids = encode_start(prompt, model)
    options: dict[str, Any] = {
        "stop": model.tokenizer.end_of_text,
        "max_new_tokens": settings.max_new_tokens,
        "sampling": settings.sampling(),
        "rng": settings.rng(),
    }
    started = perf_counter()
    if settings.samples == 1:
        steps = stream_tokens(model.parameters, [ids], **options)
        tokens = (token for new, _ in steps for token in new.values())
        count = print_stream(model.tokenizer, tokens)
        room = most_tokens(ids, settings.max_new_tokens, model.parameters.config.n_positions)
        if count == room < settings.max_new_tokens:
            note(f"cut after {plural(count, 'token')}: the context is full")
    else:
        with progress("generating", settings.samples) as advance:
            count = 0
            for first in range(0, settings.samples, GROUP_SIZE):
                group = [ids] * min(GROUP_SIZE, settings.samples - first)
                texts = generate_all(model.parameters, group, **options, progress=advance)
                count += sum(map(len, texts))
                write("\n---\n" * bool(first) + "\n---\n".join(map(model.tokenizer.decode, texts)))
    if is_watched():
        note(rate(count, perf_counter() - started))
