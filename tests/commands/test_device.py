"""--device: the same commands, computed elsewhere."""

import json
import sys

import numpy as np
import pytest

from minigpt2 import backend
from minigpt2.data.forest import Segment, lay_out
from minigpt2.device import fake_cupy
from minigpt2.device.devices import describe_device, open_device
from minigpt2.inference.model import Model, save_model
from minigpt2.model.config import GPT2Config
from minigpt2.model.initialisation import initialise
from minigpt2.training.config import TrainingConfig
from tests.device.test_devices import cupy_with, no_driver
from tests.kernels.support import DEVICE, emulated_only, needs_device
from tests.stepping import take
from tests.strict_json import strict_json, strict_lines

QUICK = ("--steps", "30", "--samples", "1", "--max_new_tokens", "4", "--learning_rate", "1e-3")


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    """Leave no device in use."""
    monkeypatch.setattr(backend, "LIBRARIES", [])
    monkeypatch.setattr(backend, "FUSED", {})


def steps_in(folder):
    """The steps of a run's log."""
    lines = strict_lines((folder / "log.jsonl").read_text())
    return [line for line in lines if "loss" in line]


@pytest.fixture(params=[2, 1], ids=["heads of 8", "heads of 32"])
def model(request, tmp_path, tokenizer):
    """A model without kernels for its attention, and one with them for all."""
    folder, heads = tmp_path / "model", request.param
    width = 16 if heads == 2 else 32
    config = GPT2Config(tokenizer.n_vocab, n_positions=96, n_embd=width, n_layer=2, n_head=heads)
    save_model(folder, Model(initialise(config, np.random.default_rng(0)), tokenizer, None))
    return folder


@needs_device
@pytest.mark.parametrize("steps", [8, pytest.param(30, marks=pytest.mark.long)])
def test_a_run_on_the_gpu_follows_that_on_the_cpu(run, model, data, tmp_path, steps):
    how = ("--model", model, "--data", data, *QUICK, "--batch_size", "2", "--micro_batch", "1")
    how += ("--steps", steps)
    for device in ("cpu", DEVICE):
        outcome = run("train", "--device", device, "--out", device, *how)
        assert outcome.code == 0, outcome.err
        assert "device    " + describe_device(open_device(device)) in outcome.out
    cpu, gpu = (steps_in(tmp_path / device) for device in ("cpu", DEVICE))
    assert len(cpu) == len(gpu) == steps
    for one, other in zip(cpu, gpu, strict=True):
        for name in ("loss", "token_loss", "example_loss"):
            assert other[name] == pytest.approx(one[name], abs=1e-4), one["step"]
        assert other["gradient_norm"] == pytest.approx(one["gradient_norm"], rel=1e-3)
    assert cpu[-1]["loss"] < cpu[0]["loss"] - 0.1


@emulated_only
@needs_device
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_step_copies_from_the_device_once(precision):
    open_device("emulated")
    batch = lay_out([Segment([1, 2, 3], [0, 1, 1]), Segment([4, 5], [0, 1])])
    parameters = initialise(GPT2Config(11, 8, 32, 2, 1), np.random.default_rng(0)).on(fake_cupy)
    config = TrainingConfig(3, 1e-3, 1, "cosine")
    steps = take(parameters, iter([[batch, batch]] * 3), config, precision=precision)
    next(steps)
    fake_cupy.copies.clear()
    next(steps)
    assert dict(fake_cupy.copies) == {"get": 1}


@needs_device
@pytest.mark.long
@pytest.mark.parametrize(("precision", "bound"), [("bfloat16", 0.05), ("float16", 0.01)])
def test_a_run_in_16_bits_learns_as_one_in_32(run, data, tmp_path, tokenizer, precision, bound):
    config = GPT2Config(tokenizer.n_vocab, n_positions=96, n_embd=32, n_layer=2, n_head=1)
    save_model(
        tmp_path / "model", Model(initialise(config, np.random.default_rng(0)), tokenizer, None)
    )
    how = ("--model", tmp_path / "model", "--data", data, *QUICK, "--steps", "12")
    for folder, more in {"cpu": ("--device", "cpu"), "short": ("--device", DEVICE)}.items():
        kind = ("--precision", precision) if folder == "short" else ()
        outcome = run("train", *more, *kind, "--out", folder, *how)
        assert outcome.code == 0, outcome.err
    cpu, short = (steps_in(tmp_path / folder) for folder in ("cpu", "short"))
    for one, other in zip(cpu, short, strict=True):
        assert other["loss"] == pytest.approx(one["loss"], abs=bound)
        assert other["gradient_norm"] == pytest.approx(one["gradient_norm"], rel=20 * bound)
    assert short[-1]["loss"] != cpu[-1]["loss"]


@needs_device
def test_steps_that_overflow_in_float16_are_told_and_taken_again(run, data, tmp_path, tokenizer):
    config = GPT2Config(tokenizer.n_vocab, n_positions=96, n_embd=32, n_layer=1, n_head=1)
    parameters = initialise(config, np.random.default_rng(0))
    parameters["wte.weight"][...] *= 300
    save_model(tmp_path / "model", Model(parameters, tokenizer, None))
    how = ("--device", DEVICE, "--precision", "float16", "--samples", "0", "--steps", "1")
    how += ("--batch_size", "1", "--validation", "0", "--out", "run")
    outcome = run("train", data, "--model", tmp_path / "model", *how)
    assert outcome.code == 0, outcome.err
    assert "step 1/1  overflowed in float16: again with loss scale 32,768" in outcome.out
    assert [step["step"] for step in steps_in(tmp_path / "run")] == [1]
    logged = strict_json((tmp_path / "run/summary.json").read_text())["float16"]
    assert outcome.out.count("overflowed") == logged["overflows"] >= 1
    assert f"float16   {logged['overflows']} overflow" in outcome.out


IN_16_BITS = {
    "train": ("--data",),
    "evaluate": ("--data",),
    "generate": ("--prompt",),
    "answer": ("--question",),
    "chat": ("--system",),
}


@pytest.mark.parametrize("command", IN_16_BITS)
def test_16_bits_need_a_gpu(run, data, command):
    how = ("--device", "cpu", "--precision", "float16", *IN_16_BITS[command], data)
    outcome = run(command, *how)
    assert outcome.code == 2 and outcome.err.count("\n") == 1
    assert "--precision float16 needs a GPU: this run computes on the cpu" in outcome.err


@needs_device
@pytest.mark.parametrize("heads", [1, 4], ids=["heads of 32", "heads of 8"])
@pytest.mark.parametrize(("precision", "bound"), [("bfloat16", 0.02), ("float16", 0.003)])
def test_a_model_in_16_bits_writes_and_is_measured(
    run, data, tmp_path, tokenizer, precision, bound, heads
):
    config = GPT2Config(tokenizer.n_vocab, n_positions=96, n_embd=32, n_layer=2, n_head=heads)
    save_model(
        tmp_path / "model", Model(initialise(config, np.random.default_rng(0)), tokenizer, None)
    )
    how = ("--model", tmp_path / "model", "--max_new_tokens", "5")
    short_options = ("--device", DEVICE, "--precision", precision)
    losses = []
    for name, where in (("cpu", ("--device", "cpu")), ("short", short_options)):
        outcome = run("evaluate", "--data", data, *how, *where, "--out", f"{name}.json")
        assert outcome.code == 0, outcome.err
        losses.append(json.loads((tmp_path / f"{name}.json").read_text())["token_loss"])
    assert losses[1] == pytest.approx(losses[0], abs=bound) and losses[1] != losses[0]
    for more in ((), ("--top_k", "5", "--top_p", "0.9", "--repetition_penalty", "1.2")):
        outcome = run("generate", "--prompt", "Count to", *how, *short_options, *more)
        assert outcome.code == 0, outcome.err


ASKED = {
    "answer": ("answer", "--question", "Count to 3.", "--max_new_tokens", "5"),
    "generate": ("generate", "--prompt", "Count to", "--max_new_tokens", "5", "--temperature", "0"),
    "several": ("generate", "--prompt", "Count", "--samples", "2", "--max_new_tokens", "4"),
    "drawn": (
        *("generate", "--prompt", "Count to", "--max_new_tokens", "5", "--temperature", "0.7"),
        *("--top_k", "9", "--top_p", "0.8", "--repetition_penalty", "1.3"),
    ),
}


@needs_device
@pytest.mark.parametrize("command", ASKED)
def test_answers_are_the_same_on_the_gpu(run, model, command):
    cpu, gpu = (
        run(*ASKED[command], "--model", model, "--device", device) for device in ("cpu", DEVICE)
    )
    assert cpu.code == gpu.code == 0, gpu.err
    assert gpu.out == cpu.out


@needs_device
def test_evaluate_measures_the_same(run, model, data):
    how = ("evaluate", "--model", model, "--data", data, "--max_new_tokens", "4")
    cpu, gpu = (run(*how, "--device", device) for device in ("cpu", DEVICE))
    assert cpu.code == gpu.code == 0, gpu.err
    assert gpu.out.splitlines()[0] == cpu.out.splitlines()[0]


# Devices that cannot be used.


def test_without_cupy_cuda_says_what_to_install(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    outcome = run("answer", "--question", "Why?", "--device", "cuda")
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1 and "pip install 'minigpt2[cuda12]'" in outcome.err


@pytest.mark.parametrize(("count", "why"), [(no_driver, "Insufficient"), (lambda: 0, "is none")])
def test_without_a_gpu_cuda_says_so_in_one_line(run, monkeypatch, count, why):
    monkeypatch.setitem(sys.modules, "cupy", cupy_with(count))
    outcome = run("train", "--device", "cuda")
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1 and "finds no GPU" in outcome.err and why in outcome.err
