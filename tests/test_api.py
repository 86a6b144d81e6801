"""API: what a user of Python sees, and that wrong arguments are refused in words."""

import subprocess
import sys

import numpy as np
import pytest

import minigpt2
from minigpt2.data.batches import batch_of
from minigpt2.data.examples import encode
from minigpt2.data.records import Record
from minigpt2.model.gpt2 import loss_of
from minigpt2.weights import load_parameters

PAIRS = [("Count to 3.", "1, 2, 3"), ("Say yes.", "yes")]


@pytest.fixture
def model(little_model):
    """The little model, opened as a user does."""
    return minigpt2.GPT2.from_pretrained(little_model, device="cpu")


def test_the_import_is_lazy():
    code = "import minigpt2, sys; assert 'numpy' not in sys.modules; minigpt2.GPT2; minigpt2.train"
    subprocess.run([sys.executable, "-c", code], check=True)
    commands = {"train", "reward", "dpo", "ppo", "grpo", "evaluate"}
    assert {"GPT2", "UserError", *commands} <= set(dir(minigpt2))
    with pytest.raises(AttributeError, match="no attribute 'GPT3'"):
        _ = minigpt2.GPT3


def test_a_model_has_its_shape_its_tensors_and_its_tokenizer(model, tokenizer):
    assert model.config.n_layer == 2 and "73,664 parameters" in repr(model)
    assert model.parameters["h.1.mlp.c_fc.weight"].shape == (16, 64)
    ids = model.tokenizer.encode("Count to 3.")
    assert ids == tokenizer.encode("Count to 3.") and model.tokenizer.decode(ids) == "Count to 3."
    assert model.template is None


def test_greedy_text_follows_from_the_logits(model):
    ids = model.tokenizer.encode("Count")
    new = []
    for _ in range(4):
        new.append(int(model.logits(ids + new)[-1].argmax()))
    text = model.generate("Count", max_new_tokens=4, temperature=0)
    assert text == model.tokenizer.decode(new)


def test_a_seed_fixes_what_is_drawn(model):
    texts = [model.generate("Count", max_new_tokens=9, temperature=1.5, seed=s) for s in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    assert isinstance(model.answer("Why?", max_new_tokens=3), str)


def test_gradients_are_those_of_the_loss(model, little_model):
    loss, gradients = model.gradients(PAIRS)
    examples = [encode(Record(q, "", a), model.tokenizer) for q, a in PAIRS]
    batch = batch_of(examples)
    total, _ = loss_of(load_parameters(little_model), batch)
    assert loss == pytest.approx(float(total) / batch.weights.sum(), rel=1e-5)
    assert loss == pytest.approx(model.loss(PAIRS), rel=1e-6)
    assert set(gradients) == set(model.parameters)
    bias, step = model.parameters["ln_f.bias"], 1e-2
    direction = gradients["ln_f.bias"] / np.linalg.norm(gradients["ln_f.bias"])
    bias += step * direction
    above = model.loss(PAIRS)
    bias -= 2 * step * direction
    slope = (above - model.loss(PAIRS)) / (2 * step)
    assert slope == pytest.approx(np.linalg.norm(gradients["ln_f.bias"]), rel=1e-2)


def test_a_model_is_saved_and_opens_again(model, tmp_path):
    model.save_pretrained(tmp_path / "saved")
    again = minigpt2.GPT2.from_pretrained(str(tmp_path / "saved"))
    for name, tensor in model.parameters.items():
        np.testing.assert_array_equal(again.parameters[name], tensor)
    with pytest.raises(minigpt2.UserError, match="exists already"):
        model.save_pretrained(tmp_path / "saved")


def test_a_model_from_scratch_is_fixed_by_its_seed(little_model):
    models = [minigpt2.GPT2.from_scratch(little_model, seed=seed) for seed in (3, 3, 4)]
    tables = [model.parameters["wte.weight"] for model in models]
    assert (tables[0] == tables[1]).all() and not (tables[0] == tables[2]).all()


WRONG = {
    "no text": (lambda m: m.generate(3), "prompt must be text, not 3"),
    "no number": (lambda m: m.generate("a", temperature="hot"), "temperature must be a number"),
    "no argument": (lambda m: m.generate("a", temp=1), "generate has no argument 'temp'"),
    "no tokens": (lambda m: m.generate("a", max_new_tokens=0), "max_new_tokens must be at least 1"),
    "infinite heat": (lambda m: m.generate("a", temperature=np.inf), "must be finite, not inf"),
    "cold": (lambda m: m.answer("a", temperature=-1), "temperature must be at least 0"),
    "no question": (lambda m: m.answer(None), "question must be text, not None"),
    "long": (lambda m: m.generate("word " * 300), "the model reads at most 96"),
    "no pair": (lambda m: m.gradients([("a",)]), r"pairs must be \(question, answer\)"),
    "text for pairs": (lambda m: m.loss("ab"), r"pairs must be \(question, answer\)"),
    "no pairs": (lambda m: m.loss([]), "there is no question"),
    "long pair": (lambda m: m.loss([("a " * 99, "b")]), "the model reads at most 96"),
    "no id": (lambda m: m.logits([1, 99999]), "from 0 to 4095, not 99999"),
    "text for ids": (lambda m: m.logits("ab"), "a list of whole numbers, not 'ab'"),
    "bytes for ids": (lambda m: m.logits(b"ab"), "a list of whole numbers, not b'ab'"),
    "a number for ids": (lambda m: m.logits(np.array(1)), "a list of whole numbers, not array"),
    "no ids": (lambda m: m.logits([]), "1 to 96 ids, not 0"),
    "no model": (lambda m: minigpt2.GPT2.from_pretrained("nope"), "there is no model 'nope'"),
    "no name": (lambda m: minigpt2.GPT2.from_pretrained(7), "name must be text, not 7"),
    "no list of pairs": (lambda m: m.loss(3), "there is no question"),
    "no list of ids": (lambda m: m.logits(None), "ids must be a list of whole numbers, not None"),
    "impossible folder": (lambda m: m.save_pretrained("a\0b"), "cannot be written"),
    "another shape": (
        lambda m: m.parameters.update({"ln_f.bias": np.zeros(3)}),
        r"ln_f.bias has the shape \(16,\), not \(3,\)",
    ),
    "another tensor": (lambda m: m.parameters.update(new=1), "the model has no tensor 'new'"),
    "one tensor less": (lambda m: m.parameters.clear(), "a model needs all of its tensors"),
    "seed below 0": (
        lambda m: minigpt2.GPT2.from_scratch("tiny", seed=-1),
        "seed must be at least",
    ),
    "huge heat": (lambda m: m.generate("a", temperature=10**400), "temperature is too large"),
    "no device": (lambda m: minigpt2.GPT2.from_pretrained("tiny", "gpu"), "device must be one of"),
}


@pytest.mark.parametrize("call", WRONG)
def test_wrong_arguments_are_refused_in_words(model, call):
    action, text = WRONG[call]
    with pytest.raises(minigpt2.UserError, match=text):
        action(model)


def test_setting_a_tensor_changes_the_model_as_writing_into_it_does(model, little_model, tmp_path):
    written = minigpt2.GPT2.from_pretrained(little_model, device="cpu")
    loss, gradients = model.gradients(PAIRS)
    for name, gradient in gradients.items():
        model.parameters[name] = model.parameters[name] - 0.1 * gradient
        written.parameters[name][...] -= 0.1 * gradient
    assert model.loss(PAIRS) == written.loss(PAIRS) < loss
    model.save_pretrained(tmp_path / "stepped")
    again = minigpt2.GPT2.from_pretrained(tmp_path / "stepped", device="cpu")
    assert again.loss(PAIRS) == model.loss(PAIRS)
    assert len(model.parameters) == len(list(model.parameters)) == len(gradients)


def test_a_model_that_is_not_finite_neither_writes_nor_is_saved(model, tmp_path):
    model.parameters["h.1.ln_2.bias"][3] = np.nan
    with pytest.raises(minigpt2.UserError, match="hidden rows are not finite"):
        model.generate("a")
    with pytest.raises(minigpt2.UserError, match=r"h\.1\.ln_2\.bias holds numbers that are not"):
        model.save_pretrained(tmp_path / "broken")
    assert not (tmp_path / "broken").exists()


def test_pairs_may_come_from_any_iterable(model):
    loss = model.loss(PAIRS)
    assert model.loss(zip(*zip(*PAIRS, strict=True), strict=True)) == loss
    assert model.loss(dict(PAIRS).items()) == loss
    assert model.loss([tuple(map(np.str_, pair)) for pair in PAIRS]) == loss


def test_a_star_imports_the_api():
    names = {}
    exec("from minigpt2 import *", names)
    assert names["GPT2"] is minigpt2.GPT2 and callable(names["train"])


def test_numbers_of_numpy_are_numbers(model):
    numbers = {"temperature": np.float32(0.5), "top_k": np.int64(3), "seed": np.int32(1)}
    same = {"temperature": 0.5, "top_k": 3, "seed": 1}
    assert model.generate("a", max_new_tokens=3, **numbers) == model.generate(
        "a", max_new_tokens=np.int64(3), **same
    )
    assert model.logits(np.array([1, 2])).shape[0] == 2
