"""Generate: a text is continued, once or several times.

This is `minigpt2 generate`.  A single text is printed as it comes, character by
complete character; several are printed when they are finished.
"""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from minigpt2.data.tokenizer import Tokenizer
from minigpt2.device.devices import Device
from minigpt2.errors import UserError, require_at_least
from minigpt2.inference.generate import generate as generate_all
from minigpt2.inference.generate import stream_tokens
from minigpt2.inference.model import open_model
from minigpt2.inference.sampling import Sampling
from minigpt2.model.parameters import Parameters


@dataclass(frozen=True)
class GenerateSettings(Sampling):
    """Let a model carry on a text.

    Args:
        prompt: text to carry on (default: what comes on standard input)
        model: folder of a model, folder of a run, a .safetensors file, or a name
        max_new_tokens: most tokens to add; a model that ends its text stops earlier
        samples: how many texts to make from the same prompt
        seed: of the draws
        device: cpu, cuda, emulated or auto, as in `minigpt2 answer`
    """

    prompt: str | None = None
    model: str = "tiny"
    max_new_tokens: int = 100
    samples: int = 1
    temperature: float = 0.8
    seed: int = 0
    device: Device = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(1, self, "max_new_tokens", "samples")
        require_at_least(0, self, "seed")


def generate(settings: GenerateSettings) -> None:
    """Print how the text goes on; how fast, on the error stream, if that is a terminal."""
    parameters, tokenizer, _ = open_model(settings.model, settings.device)
    prompt = settings.prompt
    if prompt is None:
        prompt = sys.stdin.read().rstrip("\n")
    ids = ids_of(prompt, tokenizer, parameters)
    rng = np.random.default_rng(settings.seed)
    stop, longest = tokenizer.end_of_text, settings.max_new_tokens
    options = {"stop": stop, "max_new_tokens": longest, "sampling": settings, "rng": rng}
    started = perf_counter()
    if settings.samples == 1:
        steps = stream_tokens(parameters, [ids], **options)
        count = print_as_it_comes(tokenizer, (token for new, _ in steps for token in new.values()))
    else:
        texts = generate_all(parameters, [ids] * settings.samples, **options)
        count = sum(map(len, texts))
        print("\n---\n".join(map(tokenizer.decode, texts)))
    if sys.stderr.isatty():
        print(f"({rate(count, perf_counter() - started)})", file=sys.stderr)


def ids_of(text: str, tokenizer: Tokenizer, parameters: Parameters) -> list[int]:
    """Return a text's ids, end-of-text for an empty one; UserError if they leave no room."""
    ids = tokenizer.encode(text) or [tokenizer.end_of_text]
    context = parameters.config.n_positions
    if len(ids) > context:
        raise UserError(f"the prompt has {len(ids)} tokens; the model reads at most {context}")
    return ids


def print_as_it_comes(tokenizer: Tokenizer, ids: Iterable[int]) -> int:
    """Print tokens one by one and a line break; return how many there were."""
    count = -1  # the tokens' texts are followed by one more: what was held back
    for text in tokenizer.decode_stream(ids):
        print(text, end="", flush=True)
        count += 1
    print()
    return count


def rate(tokens: int, seconds: float) -> str:
    """Return how many tokens there were and how fast they came."""
    return f"{tokens} tokens, {tokens / max(seconds, 1e-9):,.1f} tokens/s"
