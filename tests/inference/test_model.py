"""Model: parameters, tokenizer and template come from one folder, and must fit together."""

import json

import numpy as np
import pytest

from minigpt2.commands.dataset import open_reader
from minigpt2.data.template import TEMPLATES
from minigpt2.data.tokenizer import gpt2_tokenizer, tokenizer_of
from minigpt2.data.vocabulary import END_OF_TEXT, byte_of_character
from minigpt2.errors import UserError
from minigpt2.inference import model as module
from minigpt2.inference.model import Model, open_model, random_model, save_model
from minigpt2.model.config import OFFICIAL, GPT2Config
from minigpt2.model.initialisation import initialise


def save(folder, tokenizer, n_vocab, template=None):
    """Write a model of random parameters, and return it."""
    config = GPT2Config(n_vocab, n_positions=16, n_embd=8, n_layer=1, n_head=1)
    parameters = initialise(config, np.random.default_rng(0))
    save_model(folder, Model(parameters, tokenizer, template))
    return parameters


def few_tokens():
    """A tokenizer of 256 bytes, 44 merges and end-of-text."""
    merges = [(a, b) for a in "abcdefg" for b in "abcdefg"][:44]
    tokens = [*byte_of_character(), *(a + b for a, b in merges), END_OF_TEXT]
    vocabulary = json.dumps({token: i for i, token in enumerate(tokens)})
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in merges), ""]
    return tokenizer_of(vocabulary.encode(), "\n".join(lines).encode(), name="few")


def test_a_model_is_opened_with_its_tokenizer_and_template(tmp_path, tokenizer):
    saved = save(tmp_path / "run/checkpoint", tokenizer, tokenizer.n_vocab, TEMPLATES["qa"])
    for name in ("run/checkpoint", "run"):
        parameters, opened, template = open_model(str(tmp_path / name))
        np.testing.assert_array_equal(parameters.flat, saved.flat)
        assert opened.encode("Why?") == tokenizer.encode("Why?") and template == TEMPLATES["qa"]


def test_a_model_without_a_template_has_none(tmp_path, tokenizer):
    save(tmp_path / "model", tokenizer, tokenizer.n_vocab)
    assert open_model(str(tmp_path / "model")).template is None


def test_a_tokenizer_of_another_size_is_refused(tmp_path, tokenizer):
    save(tmp_path / "model", tokenizer, tokenizer.n_vocab + 1)
    with pytest.raises(UserError, match=r"tokenizer has 4,096 ids, but the model 4,097"):
        open_model(str(tmp_path / "model"))


@pytest.mark.parametrize("rows", [4097, 4100, 4160, 4224, 4095])
def test_only_the_next_multiple_is_a_padded_table(tmp_path, tokenizer, rows):
    save(tmp_path / "model", tokenizer, rows)
    with pytest.raises(UserError, match="the tokenizer has 4,096 ids, but the model 4,"):
        open_model(str(tmp_path / "model"))


@pytest.mark.parametrize("moved", [1, 7, 1 << 24])
def test_rows_of_a_padded_table_are_left_out(tmp_path, monkeypatch, moved):
    """As nanoGPT has them: 50,304 rows for 50,257 tokens."""
    monkeypatch.setattr(module, "MOVED", moved)
    saved = save(tmp_path / "model", few_tokens(), 304)
    lines = []
    parameters, opened, _ = open_model(str(tmp_path / "model"), warn=lines.append)
    assert opened.n_vocab == parameters.config.vocab_size == 301
    assert lines == [
        f"{tmp_path / 'model'}: the tokenizer has 301 ids, the model 304: 3 rows are left out"
    ]
    for name in saved.views:
        np.testing.assert_array_equal(parameters[name], saved[name][: len(parameters[name])])
    again = tmp_path / "again"
    save_model(again, Model(parameters, opened, None))
    assert open_model(str(again), warn=pytest.fail).parameters.flat.shape == parameters.flat.shape
    drawn = random_model(str(tmp_path / "model"), np.random.default_rng(0))
    assert drawn.parameters.config == parameters.config


@pytest.mark.parametrize(
    ("named", "text"),
    [
        (0, "eos_token_id is 0, but the tokenizer's <|endoftext|> is 4095; 4095 is used"),
        ([1, 4095], "eos_token_id is [1, 4095], but here only 4095, <|endoftext|>, ends a text"),
        ([4095], ""),
        (4095, ""),
        (None, ""),
    ],
)
def test_another_end_of_text_than_the_tokenizers_is_told(tmp_path, tokenizer, named, text):
    save(tmp_path / "model", tokenizer, tokenizer.n_vocab)
    path = tmp_path / "model/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token_id": named}))
    lines = []
    model = open_model(str(tmp_path / "model"), warn=lines.append)
    assert model.tokenizer.end_of_text == 4095
    assert lines == [f"{path}: {text}"] * bool(text)


def tokenizer_json():
    """A vocabulary as large as GPT-2's, without a merge."""
    bytes_first = [*byte_of_character(), *(f"<unused{i}>" for i in range(256, 50_256)), END_OF_TEXT]
    level = {"type": "ByteLevel", "add_prefix_space": False}
    return {
        "added_tokens": [{"id": 50_256, "content": END_OF_TEXT, "special": True}],
        "pre_tokenizer": level,
        "model": {"type": "BPE", "vocab": {t: i for i, t in enumerate(bytes_first)}, "merges": []},
    }


def test_gpt2s_tokenizer_is_only_taken_where_there_is_none_of_any_kind(tmp_path):
    folder = tmp_path / "model"
    save(folder, gpt2_tokenizer(), 50_257)
    for name in ("vocab.json", "merges.txt"):
        (folder / name).unlink()
    opened = (
        lambda: open_model(str(folder)).tokenizer,
        lambda: random_model(str(folder), np.random.default_rng(0)).tokenizer,
        lambda: open_reader(str(folder)).tokenizer,
    )
    for opener in opened:
        assert opener().encode("Hello world") == [15496, 995]
    for name in ("tokenizer_config.json", "spiece.model", "vocab.txt", "added_tokens.json"):
        (folder / name).write_text("{}")
        for opener in opened:
            with pytest.raises(UserError, match=rf"vocab\.json cannot be read: .*{name}"):
                opener()
        (folder / name).unlink()
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer_json()))
    for opener in opened:
        assert len(opener().encode("Hello world")) == 11


def test_the_small_base_has_a_name():
    assert open_model("tiny").parameters.config.n_positions == 256


def test_an_official_shape_needs_no_weights(monkeypatch):
    little = GPT2Config(gpt2_tokenizer().n_vocab, n_positions=8, n_embd=4, n_layer=1, n_head=1)
    monkeypatch.setitem(OFFICIAL, "gpt2", little)
    model = random_model("gpt2", np.random.default_rng(0))
    assert model.parameters.config == little and model.tokenizer is gpt2_tokenizer()
    assert model.template is None
