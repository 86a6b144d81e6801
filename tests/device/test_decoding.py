"""Decoding on a device: the tokens are those of the formulas on a CPU."""

from dataclasses import replace
from itertools import islice, pairwise

import numpy as np
import pytest

from minigpt2.device import decoding, fake_cupy
from minigpt2.device.decoding import DeviceDecoder
from minigpt2.device.devices import stream_of
from minigpt2.device.graph import capture
from minigpt2.inference import generate as module
from minigpt2.inference.conversation import Conversation
from minigpt2.inference.generate import generate, stream_tokens
from minigpt2.inference.model import Model
from minigpt2.inference.sampling import GREEDY, Sampling
from minigpt2.model.config import GPT2Config
from minigpt2.model.parameters import Parameters
from tests.kernels.support import SHORT, device, emulated_only, machine, needs_device

pytestmark = needs_device
CONTEXT = 24
CONFIG = GPT2Config(vocab_size=29, n_positions=CONTEXT, n_embd=64, n_layer=2, n_head=2)
FLAT = 0.8 * np.random.default_rng(0).standard_normal(CONFIG.n_parameters).astype(np.float32)
PARAMETERS = Parameters(CONFIG, FLAT)
STOP = 14  # a token at which sequences end at different times
RNG = np.random.default_rng(1)
SHARED = [[3, 1, 4, *RNG.integers(23, size=n).tolist()] for n in RNG.integers(0, 9, 12)]
APART = [[7], [3, 5, 3], SHARED[0], list(range(CONTEXT)), list(range(1, CONTEXT))]
PROMPTS = {
    "one": [[3, 1, 4, 1, 5]],
    "one that fills the context": [APART[-1]],
    "a shared beginning": SHARED,
    "nothing shared": APART,
    "equal prompts": [[2, 7, 1]] * 3,
}


def on_device(prompts, parameters=PARAMETERS, stream=stream_of, **options):
    """What `generate` returns on the device under test."""
    with device(machine()) as xp, stream(xp):
        return generate(parameters.on(xp), prompts, **options)


def on_both(prompts, seed=None, **options):
    """The tokens on a CPU and on the device."""
    both = []
    for run in (lambda *a, **o: generate(PARAMETERS, *a, **o), on_device):
        rng = None if seed is None else np.random.default_rng(seed)
        both.append(run(prompts, rng=rng, **options))
    return both


@pytest.mark.parametrize("name", PROMPTS)
@pytest.mark.parametrize("max_new", [1, 2, 40])
def test_greedy_tokens_are_those_of_the_cpu(name, max_new):
    cpu, device_tokens = on_both(PROMPTS[name], stop=STOP, max_new_tokens=max_new)
    assert device_tokens == cpu


@pytest.mark.parametrize("name", ["scale_attn_weights", "scale_attn_by_inverse_layer_idx"])
def test_greedy_tokens_are_those_of_the_cpu_with_the_divisors_of_the_model(name):
    config = replace(CONFIG, **{name: not getattr(CONFIG, name)})
    parameters = Parameters(config, FLAT / 2)
    options = {"stop": STOP, "max_new_tokens": 20}
    expected = generate(parameters, SHARED, **options)
    assert on_device(SHARED, parameters, **options) == expected
    assert expected != generate(PARAMETERS.like(FLAT / 2), SHARED, **options)


@pytest.mark.parametrize("name", PROMPTS)
@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(1.0),
        Sampling(0.3, top_k=99),
        Sampling(1.0, top_k=5),
        Sampling(2.0, top_p=0.7, repetition_penalty=1.5),
        Sampling(0.0, repetition_penalty=2.0),
        Sampling(1e-35),
    ],
    ids=str,
)
def test_drawn_tokens_are_those_of_the_cpu(name, sampling):
    cpu, device_tokens = on_both(PROMPTS[name], 3, stop=STOP, max_new_tokens=40, sampling=sampling)
    assert device_tokens == cpu


def test_sequences_end_at_different_times_and_the_others_move_together(monkeypatch):
    sizes = []

    def prepare(self):
        sizes.append(self.cache.suffixes.shape[2])
        original(self)

    original = DeviceDecoder.prepare
    monkeypatch.setattr(DeviceDecoder, "prepare", prepare)
    cpu, device_tokens = on_both(SHARED, stop=STOP, max_new_tokens=40)
    assert device_tokens == cpu and len({len(tokens) for tokens in cpu}) >= 4
    assert sizes[0] == len(SHARED) and len(sizes) >= 2
    assert all(4 * small < large for large, small in pairwise(sizes))


def test_several_groups_decode_as_one(monkeypatch):
    expected = generate(PARAMETERS, SHARED, stop=STOP, max_new_tokens=9)
    monkeypatch.setattr(module, "GROUP_SIZE", 5)
    assert on_device(SHARED, stop=STOP, max_new_tokens=9) == expected


@pytest.mark.parametrize("kind", SHORT)
@pytest.mark.parametrize("name", PROMPTS)
def test_in_16_bits_most_tokens_are_those_of_rounded_weights_in_float32(name, kind):
    rounded = PARAMETERS.like(FLAT.astype(SHORT[kind]))
    expected = generate(
        PARAMETERS.like(rounded.flat.astype(np.float32)), PROMPTS[name], stop=STOP, max_new_tokens=8
    )
    device_tokens = on_device(PROMPTS[name], rounded, stop=STOP, max_new_tokens=8)
    same = [
        a == b
        for x, y in zip(device_tokens, expected, strict=True)
        for a, b in zip(x, y, strict=False)
    ]
    assert sum(same) >= 0.8 * len(same)


def test_a_step_is_captured_once_for_each_size_of_the_batch(monkeypatch):
    captured = []

    def count(library, work):
        captured.append(1)
        return capture(library, work)

    monkeypatch.setattr(decoding, "capture", count)
    replayed = on_device(SHARED, stop=STOP, max_new_tokens=40)
    assert len(captured) == 2
    eager = on_device(SHARED, stream=lambda xp: xp.cuda.Stream.null, stop=STOP, max_new_tokens=40)
    assert eager == replayed and len(captured) == 2


@emulated_only
@pytest.mark.parametrize("sampling", [GREEDY, Sampling(1.0)], ids=["greedy", "drawn"])
def test_a_step_copies_from_the_device_once(sampling):
    with device(machine()) as xp, stream_of(xp):
        rng = np.random.default_rng(0)
        options = {"stop": -1, "max_new_tokens": 9, "sampling": sampling, "rng": rng}
        steps = stream_tokens(PARAMETERS.on(xp), SHARED, **options)
        next(steps)
        for _ in range(3):  # launch by launch, captured, repeated
            fake_cupy.copies.clear()
            next(steps)
            assert sum(fake_cupy.copies.values()) == 1


@emulated_only
def test_the_checks_find_nothing():
    on = machine(check=True)
    with device(on) as xp, stream_of(xp):
        generate(PARAMETERS.on(xp), SHARED, stop=STOP, max_new_tokens=9)
    assert not on.findings, "\n".join(map(str, on.findings))


def answers_of(parameters, tokenizer, **options):
    """The answers of a conversation, whose second is stopped early; and how many were forgotten."""
    conversation = Conversation(Model(parameters, tokenizer, None), max_new_tokens=9, **options)
    answers = []
    for question, limit in (("Say no.", 9), ("Why?", 3), ("And you?", 9), ("Why not?", 9)):
        forgotten = conversation.fit(question)
        answers.append((forgotten, list(islice(conversation.answer(question), limit))))
    return answers


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_a_conversation_continues_on_the_device(tokenizer, temperature):
    config = GPT2Config(tokenizer.n_vocab, n_positions=80, n_embd=32, n_layer=2, n_head=1)
    flat = 0.4 * np.random.default_rng(3).standard_normal(config.n_parameters).astype(np.float32)
    how = [{"sampling": Sampling(temperature), "rng": np.random.default_rng(0)} for _ in range(2)]
    expected = answers_of(Parameters(config, flat), tokenizer, **how[0])
    with device(machine()) as xp, stream_of(xp):
        device_tokens = answers_of(Parameters(config, xp.asarray(flat)), tokenizer, **how[1])
    assert device_tokens == expected and sum(forgotten for forgotten, _ in expected) > 0


def test_a_model_without_a_kernel_for_its_heads_decodes_by_the_formulas():
    config = GPT2Config(vocab_size=29, n_positions=CONTEXT, n_embd=16, n_layer=2, n_head=2)
    parameters = Parameters(config, FLAT[: config.n_parameters])
    expected = generate(parameters, SHARED, stop=-1, max_new_tokens=5)
    assert on_device(SHARED, parameters, stop=-1, max_new_tokens=5) == expected


def test_drawing_without_random_numbers_is_refused():
    with pytest.raises(ValueError, match="rng"):
        on_device(SHARED, stop=-1, max_new_tokens=5, sampling=Sampling(1.0))
