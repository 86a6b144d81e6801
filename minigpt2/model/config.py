"""Configuration: what fixes a GPT-2, and how many parameters it has.

Definition
    A GPT-2 is V token rows and T position rows of C features, L blocks, and a
    last layer normalisation; the output projection is the token table again.

Derivation of the number of parameters
    A layer normalisation has γ and β, 2·C numbers.
    Attention: C → 3C with bias, then C → C with bias
    (3·C² + 3·C) + (C² + C) = 4·C² + 4·C                     (12.1)
    MLP: C → 4C with bias, then 4C → C with bias
    (4·C² + 4·C) + (4·C² + C) = 8·C² + 5·C                   (12.2)
    A block has two layer normalisations besides (12.1) and (12.2); with both tables
    and the last layer normalisation,
    P = V·C + T·C + L·(12·C² + 13·C) + 2·C                   (12.3)
    (Radford et al. 2019, table 2, gives the sizes; its parameter counts are
    too low, the official checkpoints hold those of (12.3).)

What attention divides its scores by (8.2)
    GPT-2 has τ = √D.  Two settings of config.json change it, as in transformers: with
    `scale_attn_weights` false it is 1, and with `scale_attn_by_inverse_layer_idx` true block l
    (l = 1 … L) divides by l, too.  The second keeps the scores of late blocks small in 16 bits, and
    the models of stanford-crfm have it.
    τₗ = (√D or 1) · (1 or l)                                (12.4)

Example: the smallest official model has V = 50,257, T = 1,024, C = 768 and L = 12
    Its tables have (50,257 + 1,024) · 768 = 39,383,808 parameters, a block
    12 · 768² + 13 · 768 = 7,087,872, and the last layer normalisation 1,536:
    >>> print(f"{39_383_808 + 12 * 7_087_872 + 1_536:,}", f"{OFFICIAL['gpt2'].n_parameters:,}")
    124,439,808 124,439,808
    >>> print(f"{OFFICIAL['gpt2-large'].n_parameters:,}")
    774,030,080

    Its heads have D = 64 features, so τ = 8; divided by the block's number, too, 8 and 16:
    >>> GPT2Config().divisor(1), GPT2Config(scale_attn_by_inverse_layer_idx=True).divisor(1)
    (8.0, 16.0)
"""

import json
from dataclasses import asdict, dataclass, fields
from math import sqrt
from pathlib import Path
from typing import Any

from minigpt2.errors import UserError
from minigpt2.reading import parse_json, read_text
from minigpt2.wording import plural

SHAPE_NAMES = ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head")
LIMITS = dict.fromkeys(SHAPE_NAMES, 2**31 - 1) | {"n_layer": 10_000}  # far beyond any model
TANH_GELU = ("gelu_new", "gelu_fast", "gelu_accurate", "gelu_pytorch_tanh", "gelu_python_tanh")


@dataclass(frozen=True)
class GPT2Config:
    """The shape of a GPT-2, with the names of the official config.json.

    `reorder_and_upcast_attn` asks for scores in float32.  All scores are, so it changes nothing and
    is only kept.  Raises UserError for values that no GPT-2 has.
    """

    vocab_size: int = 50257  # V
    n_positions: int = 1024  # T, the longest context
    n_embd: int = 768  # C
    n_layer: int = 12  # L
    n_head: int = 12  # H
    layer_norm_epsilon: float = 1e-5
    scale_attn_weights: bool = True
    scale_attn_by_inverse_layer_idx: bool = False
    reorder_and_upcast_attn: bool = False

    def __post_init__(self) -> None:
        for name, most in LIMITS.items():
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise UserError(f"{name} must be a positive whole number, not {value!r:.60}")
            if value > most:
                raise UserError(f"{name} must be at most {most:,}, not {shortened(value)}")
        for name in FLAGS:
            if type(getattr(self, name)) is not bool:
                raise UserError(f"{name} must be true or false, not {getattr(self, name)!r:.60}")
        eps = self.layer_norm_epsilon
        if type(eps) not in (int, float) or not 0 < eps < 1:
            raise UserError(f"layer_norm_epsilon must be a number between 0 and 1, not {eps!r:.60}")
        if self.n_embd % self.n_head:
            raise UserError(f"n_embd {self.n_embd} is not a multiple of n_head {self.n_head}")

    @property
    def n_parameters(self) -> int:
        """The number of parameters, by the formula of this chapter."""
        c = self.n_embd
        block = 12 * c * c + 13 * c  # (12.1) (12.2)
        return (self.vocab_size + self.n_positions) * c + self.n_layer * block + 2 * c  # (12.3)

    def divisor(self, layer: int) -> float:
        """Return what the scores of a block are divided by; `layer` counts from 0."""
        root = sqrt(self.n_embd // self.n_head) if self.scale_attn_weights else 1.0
        return root * (layer + 1 if self.scale_attn_by_inverse_layer_idx else 1)  # (12.4)

    def save(self, path: Path, end_of_text: int | None = None, **other: Any) -> None:
        """Write the official config.json; end-of-text is the last id unless it is another.

        `other` has more settings, or other values of those that are always the same.
        """
        end = self.vocab_size - 1 if end_of_text is None else end_of_text
        official = {
            "architectures": ["GPT2LMHeadModel"],
            "model_type": "gpt2",
            "activation_function": "gelu_new",
            "n_ctx": self.n_positions,
            "bos_token_id": end,
            "eos_token_id": end,
            "embd_pdrop": 0.0,
            "attn_pdrop": 0.0,
            "resid_pdrop": 0.0,
        }
        path.write_text(json.dumps({**official, **asdict(self), **other}, indent=2) + "\n")

    @classmethod
    def load(cls, path: Path) -> "GPT2Config":
        """Read an official config.json; raises UserError if it is none, or not of a GPT-2."""
        values = parse_json(read_text(path), path)
        if not isinstance(values, dict) or values.get("model_type", "gpt2") != "gpt2":
            raise UserError(f"{path} does not describe a GPT-2 (model_type 'gpt2')")
        missing = [name for name in SHAPE_NAMES if name not in values]
        if missing:
            raise UserError(f"{path} has no {', '.join(missing)}")
        try:
            config = cls(**{f.name: values[f.name] for f in fields(cls) if f.name in values})
            require_gpt2(values, config)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        return config


def end_of_text_ids(path: Path) -> list[int]:
    """Return the ids that a config.json names as ends of a text: one, several, or none.

    Raises UserError if the file is not JSON.
    """
    values = parse_json(read_text(path), path)
    ids = values.get("eos_token_id") if isinstance(values, dict) else None
    return [i for i in (ids if isinstance(ids, list) else [ids]) if type(i) is int]


FLAGS = [field.name for field in fields(GPT2Config) if field.type is bool]


def require_gpt2(values: dict[str, Any], config: GPT2Config) -> None:
    """Raise UserError if a config.json has a setting with which this is another network."""
    inner = 4 * config.n_embd
    fixed = {
        "activation_function": (TANH_GELU, "'gelu_new' (GELU in its tanh form)"),
        "n_inner": ((None, inner), f"{plural(inner, 'hidden feature')}, 4 x n_embd"),
        "tie_word_embeddings": ((True,), "true: the output projection is the token table"),
        "add_cross_attention": ((False,), "false: no block reads another network"),
    }
    for name, (allowed, meaning) in fixed.items():
        value = values.get(name, allowed[0])
        if value not in allowed:
            text = "which is another network; GPT-2 has"
            raise UserError(f"{name} is {value!r:.60}, {text} {meaning}")


def shortened(value: int) -> str:
    """Return a whole number as text, or how many digits it has if there are many."""
    text = f"{value:,}"
    return text if len(text) < 30 else f"a number of {len(str(value))} digits"


OFFICIAL = {
    "gpt2": GPT2Config(),
    "gpt2-medium": GPT2Config(n_embd=1024, n_layer=24, n_head=16),
    "gpt2-large": GPT2Config(n_embd=1280, n_layer=36, n_head=20),
    "gpt2-xl": GPT2Config(n_embd=1600, n_layer=48, n_head=25),
}

TINY = GPT2Config(vocab_size=4096, n_positions=256, n_embd=224, n_layer=4, n_head=7)
