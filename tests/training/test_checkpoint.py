"""Checkpoint: what is saved comes back, and a folder is whole or not there."""

import numpy as np

from minigpt2.data.tokenizer import open_tokenizer
from minigpt2.inference.generate import generate
from minigpt2.model.config import GPT2Config
from minigpt2.model.parameters import Parameters
from minigpt2.training.checkpoint import save_checkpoint
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
    save_checkpoint(tmp_path / "run" / "checkpoint", saved, TOKENIZER)
    folder = tmp_path / "run" / "checkpoint"
    loaded = load_parameters(folder)
    assert loaded.config == CONFIG
    assert loaded.flat.tobytes() == saved.flat.tobytes() and loaded.flat.dtype == np.float32
    assert open_tokenizer(folder).files == TOKENIZER.files
    assert names(folder) == FILES and names(tmp_path / "run") == ["checkpoint"]


def test_a_loaded_checkpoint_gives_the_same_answers(tmp_path):
    saved = model()
    save_checkpoint(tmp_path / "checkpoint", saved, TOKENIZER)
    loaded, tokenizer = (
        load_parameters(tmp_path / "checkpoint"),
        open_tokenizer(tmp_path / "checkpoint"),
    )
    prompts = [tokenizer.encode(text) for text in ("hello", "hell", "a world", "he said")]
    answers = [
        generate(p, prompts, stop=TOKENIZER.end_of_text, max_new_tokens=9) for p in (saved, loaded)
    ]
    assert answers[0] == answers[1] and any(answers[0])


def test_half_precision_is_loaded_as_single(tmp_path):
    saved = model()
    save_checkpoint(tmp_path / "half", saved, TOKENIZER, np.float16)
    loaded = load_parameters(tmp_path / "half")
    assert loaded.flat.dtype == np.float32
    np.testing.assert_array_equal(loaded.flat, saved.flat.astype(np.float16).astype(np.float32))
    size = (tmp_path / "half" / "model.safetensors").stat().st_size
    assert CONFIG.n_parameters * 2 < size < CONFIG.n_parameters * 3


def test_a_checkpoint_is_loaded_in_double_precision_where_that_is_asked_for(tmp_path):
    save_checkpoint(tmp_path / "checkpoint", model(), TOKENIZER)
    loaded = load_parameters(tmp_path / "checkpoint", np.float64)
    assert loaded.flat.dtype == np.float64
    np.testing.assert_array_equal(loaded.flat, model().flat)


def test_saving_leaves_the_parameters_alone(tmp_path):
    saved = model()
    save_checkpoint(tmp_path / "checkpoint", saved, TOKENIZER, np.float16)
    np.testing.assert_array_equal(saved.flat, model().flat)


def test_a_new_checkpoint_takes_the_place_of_the_old_one(tmp_path):
    for seed in (0, 1, 2):
        save_checkpoint(tmp_path / "checkpoint", model(seed), TOKENIZER)
        loaded = load_parameters(tmp_path / "checkpoint")
        np.testing.assert_array_equal(loaded.flat, model(seed).flat)
        assert names(tmp_path) == ["checkpoint"]


def test_nothing_of_the_old_folder_is_left_in_the_new_one(tmp_path):
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "left over").write_text("")
    save_checkpoint(folder, model(), TOKENIZER)
    assert names(folder) == FILES
