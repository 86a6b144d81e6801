"""A saved model: what is saved comes back, and an existing folder is spared."""

import json

import numpy as np
import pytest

from minigpt2.data.tokenizer import open_tokenizer
from minigpt2.data.vocabulary import END_OF_TEXT, byte_of_character
from minigpt2.direct_file import BLOCK
from minigpt2.errors import UserError
from minigpt2.inference.generate import generate
from minigpt2.inference.model import Model, open_model, save_model
from minigpt2.model.config import GPT2Config
from minigpt2.model.parameters import Parameters
from minigpt2.weights import load_parameters
from tests.data.small import MERGES, small_tokenizer

TOKENIZER = small_tokenizer(MERGES)
FILES = ["config.json", "merges.txt", "model.safetensors", "vocab.json"]
CONFIG = GPT2Config(TOKENIZER.n_vocab, 24, n_embd=8, n_layer=2, n_head=2, layer_norm_epsilon=1e-6)


def model(seed=0, dtype=np.float32):
    """Random parameters."""
    rng = np.random.default_rng(seed)
    return Parameters(CONFIG, (0.5 * rng.standard_normal(CONFIG.n_parameters)).astype(dtype))


def names(folder):
    """What a folder holds, hidden files too."""
    return sorted(path.name for path in folder.iterdir())


def test_what_is_saved_is_loaded_byte_for_byte(tmp_path):
    saved = model()
    save_model(tmp_path / "run" / "model", Model(saved, TOKENIZER, None))
    folder = tmp_path / "run" / "model"
    loaded = load_parameters(folder)
    assert loaded.config == CONFIG
    assert loaded.flat.tobytes() == saved.flat.tobytes() and loaded.flat.dtype == np.float32
    assert open_tokenizer(folder).files == TOKENIZER.files
    assert names(folder) == FILES and names(tmp_path / "run") == ["model"]


def test_a_loaded_model_gives_the_same_answers(tmp_path):
    saved = model()
    save_model(tmp_path / "model", Model(saved, TOKENIZER, None))
    loaded, tokenizer = (
        load_parameters(tmp_path / "model"),
        open_tokenizer(tmp_path / "model"),
    )
    prompts = [tokenizer.encode(text) for text in ("hello", "hell", "a world", "he said")]
    answers = [
        generate(p, prompts, stop=TOKENIZER.end_of_text, max_new_tokens=9) for p in (saved, loaded)
    ]
    assert answers[0] == answers[1] and any(answers[0])


def test_half_precision_is_loaded_as_single(tmp_path):
    saved = model()
    save_model(tmp_path / "half", Model(saved, TOKENIZER, None), np.float16)
    loaded = load_parameters(tmp_path / "half")
    assert loaded.flat.dtype == np.float32
    np.testing.assert_array_equal(loaded.flat, saved.flat.astype(np.float16).astype(np.float32))
    size = (tmp_path / "half" / "model.safetensors").stat().st_size
    assert 0 < size - CONFIG.n_parameters * 2 <= 2 * BLOCK  # the names


def test_a_model_is_loaded_in_double_precision_where_that_is_asked_for(tmp_path):
    save_model(tmp_path / "model", Model(model(), TOKENIZER, None))
    loaded = load_parameters(tmp_path / "model", np.float64)
    assert loaded.flat.dtype == np.float64
    np.testing.assert_array_equal(loaded.flat, model().flat)


def test_saving_leaves_the_parameters_alone(tmp_path):
    saved = model()
    save_model(tmp_path / "model", Model(saved, TOKENIZER, None), np.float16)
    np.testing.assert_array_equal(saved.flat, model().flat)


def test_a_folder_that_exists_is_not_replaced(tmp_path):
    save_model(tmp_path / "model", Model(model(0), TOKENIZER, None))
    with pytest.raises(UserError, match="model exists already: choose another name, or move it"):
        save_model(tmp_path / "model", Model(model(1), TOKENIZER, None))
    loaded = load_parameters(tmp_path / "model")
    np.testing.assert_array_equal(loaded.flat, model(0).flat)
    assert names(tmp_path) == ["model"] and names(tmp_path / "model") == FILES


def test_the_end_of_text_in_config_json_is_the_tokenizers(tmp_path):
    ids = {END_OF_TEXT: 0} | {token: i + 1 for i, token in enumerate(byte_of_character())}
    described = {
        "added_tokens": [{"id": 0, "content": END_OF_TEXT, "special": True}],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False},
        "model": {"type": "BPE", "vocab": ids, "merges": []},
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(described))
    tokenizer, config = open_tokenizer(tmp_path), GPT2Config(257, 8, 4, 1, 1)
    parameters = Parameters(config, np.zeros(config.n_parameters, np.float32))
    save_model(tmp_path / "model", Model(parameters, tokenizer, None))
    lines = []
    opened = open_model(str(tmp_path / "model"), warn=lines.append)
    assert opened.tokenizer.end_of_text == 0 and not lines
    assert json.loads((tmp_path / "model/config.json").read_text())["eos_token_id"] == 0
