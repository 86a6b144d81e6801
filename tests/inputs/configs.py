"""A model's config.json."""

import json
from typing import Any

from tests.inputs.models import ABSENT, little, with_config, with_file
from tests.inputs.row import Row, refused, works


def bad(name: str, words: str, command: str = "answer hi --model m", **changes: Any) -> Row:
    """A model whose config.json has other values, which are refused."""
    return refused(name, command, words, {"m": with_config(**changes)})


def broken(name: str, content: str | bytes | None, words: str) -> Row:
    """A model whose config.json is another file, which is refused."""
    return refused(name, "answer hi --model m", words, {"m": with_file("config.json", content)})


HUGE = 10**400
ANSWER = "answer hi --model m --max-new-tokens 1"

# fmt: off
# ruff: noqa: E501 (a row is a line)
ROWS = [
    broken("no config.json", None, "'m' holds no model: it has no config.json"),
    broken("an empty config.json", "", "m/config.json"),
    broken("a list", "[]", "m/config.json does not describe a GPT-2"),
    broken("broken JSON", '{"n_embd": ', "m/config.json"),
    broken("Latin-1", b'{"a": "\xe9"}', "m/config.json"),
    broken("binary", bytes(range(256)), "m/config.json"),
    broken("lists without end", "[" * 100_000, "m/config.json"),
    broken("5,000 digits", f'{{"n_embd": {"9" * 5000}}}', "m/config.json"),
    broken("a value twice", '{"n_embd": 16, "n_embd": 32}', "m/config.json"),
    broken("a value that is not a number", '{"n_embd": NaN}', "m/config.json"),
    broken("nothing about the shape", "{}", "m/config.json has no vocab_size"),
    bad("another kind of model", "does not describe a GPT-2", model_type="llama"),
    bad("no layers", "n_layer must be a positive whole number", n_layer=0),
    bad("a layer less than none", "n_layer must be a positive whole number", n_layer=-1),
    bad("half a layer", "n_layer must be a positive whole number", n_layer=1.5),
    bad("layers as text", "n_layer must be a positive whole number", n_layer="2"),
    bad("layers that are null", "n_layer must be a positive whole number", n_layer=None),
    bad("layers that are true", "n_layer must be a positive whole number", n_layer=True),
    bad("layers as a list", "n_layer must be a positive whole number", n_layer=[2]),
    bad("layers that are not stated", "m/config.json has no n_layer", n_layer=ABSENT),
    bad("one layer more", "has 2 layers, but config.json asks for 3", n_layer=3),
    bad("one layer less", "h.1.", n_layer=1),
    bad("a million layers", "m/", n_layer=10**6),
    bad("a thousand million layers", "m/", n_layer=10**9),
    bad("more layers than atoms", "m/", n_layer=HUGE),
    bad("more layers than atoms, to plan", "m/config.json", "plan m", n_layer=HUGE),
    bad("a thousand million layers, to plan", "m", "plan m", n_layer=10**9),
    bad("a thousand million layers, from scratch", "m", "train ok.json --model m --from-scratch true", n_layer=10**9),
    bad("features in numbers", "m/", n_embd=7_000_000_000, n_head=1),
    bad("more features than atoms", "m/", n_embd=HUGE, n_head=1),
    bad("features that the heads do not divide", "n_embd 16 is not a multiple of n_head 3", n_head=3),
    bad("other features", "has shape", n_embd=32),
    bad("no heads", "n_head must be a positive whole number", n_head=0),
    bad("another context", "wpe.weight has shape", n_positions=95),
    bad("a huge context", "m/", n_positions=10**12),
    bad("another vocabulary", "wte.weight has shape", vocab_size=4000),
    bad("a huge vocabulary", "m/", vocab_size=10**12),
    bad("another activation", "activation_function is 'relu'", activation_function="relu"),
    bad("another size of the MLP", "hidden features", n_inner=63),
    bad("a size of the MLP as text", "m/config.json", n_inner="64"),
    bad("an epsilon of nothing", "layer_norm_epsilon must be a number between 0 and 1", layer_norm_epsilon=0),
    bad("an epsilon as text", "layer_norm_epsilon must be a number between 0 and 1", layer_norm_epsilon="1e-5"),
    bad("cross-attention", "add_cross_attention", add_cross_attention=True),
    bad("an attention flag as text", "m/config.json", scale_attn_by_inverse_layer_idx="yes"),
    bad("control codes in a kind", "does not describe a GPT-2", model_type="\x1b[2J"),
    works("untied weights that are not", ANSWER, "", {"m": with_config(tie_word_embeddings=True)}),
    works("unknown values", ANSWER, "", {"m": with_config(my_note={"a": [1]})}),
    works("attention scaled by the layer", ANSWER, "", {"m": with_config(scale_attn_by_inverse_layer_idx=True)}),
    works("a model as it is", ANSWER, "", {"m": little}),
    works("what is written is JSON", "plan m --time false", "Memory at the peak", {"m": with_config(torch_dtype=json.dumps("float32"))}),
]
