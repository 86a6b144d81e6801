"""Checkpoint: a run goes on from the disk bit for bit."""

import shutil

import numpy as np
import pytest

from minigpt2 import backend
from minigpt2.backend import array_module
from minigpt2.data.template import TEMPLATES
from minigpt2.data.tokenizer import open_tokenizer
from minigpt2.device.captured import CAPTURED
from minigpt2.device.devices import stream_of
from minigpt2.errors import UserError
from minigpt2.inference.model import Model, RewardModel, open_model, open_reward_model
from minigpt2.model.config import GPT2Config
from minigpt2.model.heads import with_heads
from minigpt2.model.initialisation import initialise
from minigpt2.model_folders import checkpoints_of
from minigpt2.tensors import open_tensors
from minigpt2.training.checkpoint import (
    FORMAT,
    OPTIMIZER,
    STATE,
    checkpoint_name,
    snapshot_of,
    write_checkpoint,
)
from minigpt2.training.checkpoint_reader import open_checkpoint, restore
from minigpt2.training.config import TrainingConfig
from minigpt2.training.objective import WeightedNLL
from minigpt2.training.run import take_steps
from minigpt2.training.state import Best, new_state
from tests.data.small import MERGES, small_tokenizer
from tests.kernels.support import device, machine, needs_device
from tests.training.restart import Interrupted, assert_same_bits, broken_run, same, whole_run
from tests.training.test_state import RATE, data_of

TOKENIZER = small_tokenizer(MERGES)
CONFIG = GPT2Config(TOKENIZER.n_vocab, 24, n_embd=8, n_layer=2, n_head=2)
STEPS = TrainingConfig(4, 1e-2, 2, "cosine", dropout=RATE)
NOTES = {"log_bytes": 12, "before": ["an answer", "ein Weg über die Brücke", "\ud800"]}


def start(xp=np, precision="float32"):
    """The state of a run that begins."""
    return new_state(initialise(CONFIG, np.random.default_rng(3)).on(xp), precision, seed=5)


def stored(state, folder, **options):
    """The state, written to the disk and read into a new one."""
    model = Model(state.parameters, TOKENIZER, TEMPLATES["qa"])
    path = folder / checkpoint_name(state.step, len(state.partial))
    write_checkpoint(path, snapshot_of(state, model), NOTES)
    xp = array_module(state.m)
    fresh = new_state(open_model(str(path), xp).parameters, state.precision, seed=5)
    fresh.gradients.flat[...] = np.nan
    checkpoint = open_checkpoint(path)
    assert checkpoint.notes == NOTES
    restore(checkpoint, fresh, **options)
    shutil.rmtree(path)
    return fresh


@pytest.mark.parametrize("recompute", [False, True])
def test_a_run_goes_on_from_the_disk_between_any_two_micro_batches(tmp_path, recompute):
    config = TrainingConfig(4, 1e-2, 2, "cosine", dropout=RATE, recompute=recompute)
    whole, expected = whole_run(start(), data_of(), config)
    state, results, places = broken_run(
        start(), data_of(), config, reopen=lambda state: stored(state, tmp_path)
    )
    assert results == expected and len(places) == 6
    assert_same_bits(state, whole)


@needs_device
def test_so_does_one_in_float16_on_a_device(tmp_path, monkeypatch):
    monkeypatch.setattr("minigpt2.training.precision.GROWTH_INTERVAL", 1)
    config = TrainingConfig(2, 1e-2, 1, "linear", dropout=RATE)
    with device(machine()) as library, stream_of(library), np.errstate(all="ignore"):
        backend.register(library, CAPTURED)

        def begun():
            state = start(library, "float16")
            state.scale.value = 2.0**19
            return state

        whole, expected = whole_run(begun(), data_of(batch_size=2), config)
        state, results, places = broken_run(
            begun(), data_of(batch_size=2), config, reopen=lambda state: stored(state, tmp_path)
        )
        assert results == expected and len({scale for _, scale, _ in places}) > 1
        assert_same_bits(state, whole)


def interrupted():
    """A state in the middle of its second step, after two of three micro-batches."""
    state = start()

    def stop():
        if state.step == 1 and len(state.partial) == 2:
            raise Interrupted

    with pytest.raises(Interrupted):
        list(take_steps(state, data_of(), WeightedNLL(), STEPS, between=stop))
    return state


def test_everything_that_a_state_holds_comes_back(tmp_path):
    state = interrupted()
    state.best, state.validated = Best(2.5, 1, 3), 1
    state.partial[0] = None
    state.gradients.flat[7] = np.inf  # of an overflow in a micro-batch
    fresh = stored(state, tmp_path)
    assert fresh.partial[0] is None and same(fresh.partial[1], state.partial[1])
    assert same(fresh.gradients.flat, state.gradients.flat)
    assert fresh.gradients.holding == state.gradients.holding
    fresh.partial = state.partial
    assert_same_bits(fresh, state)


def test_between_two_steps_nothing_is_stored_of_a_step():
    state = start()
    next(take_steps(state, data_of(), WeightedNLL(), STEPS))
    assert state.gradients.holding  # what the step has left there
    snapshot = snapshot_of(state, Model(state.parameters, TOKENIZER, None))
    assert set(snapshot.arrays) == {"m", "v"}
    assert snapshot.numbers.partial == snapshot.numbers.holding == []


def test_the_step_that_has_begun_can_be_taken_from_its_beginning(tmp_path):
    state = interrupted()
    fresh = stored(state, tmp_path, partial=False)
    assert fresh.partial == [] and (fresh.step, fresh.position) == (state.step, state.position)
    whole, _ = whole_run(start(), data_of(), STEPS)
    assert_same_bits(whole_run(fresh, data_of(), STEPS)[0], whole)


def test_another_precision_has_its_own_loss_scale(tmp_path):
    state = start()
    state.scale.value = 4096.0
    state.precision = "float16"
    path = tmp_path / checkpoint_name(0)
    write_checkpoint(path, snapshot_of(state, Model(state.parameters, TOKENIZER, None)), {})
    fresh = start()
    restore(open_checkpoint(path), fresh)
    assert fresh.scale.value == 1.0


def test_a_checkpoint_is_a_model_with_the_rest_beside_it(tmp_path):
    state, path = interrupted(), tmp_path / checkpoint_name(1, 2)
    model = Model(state.parameters, TOKENIZER, TEMPLATES["qa"])
    write_checkpoint(path, snapshot_of(state, model), NOTES)
    model = open_model(str(path))
    assert same(model.parameters.flat, state.parameters.flat)
    assert model.template == TEMPLATES["qa"]
    assert open_tokenizer(path).files == TOKENIZER.files
    assert checkpoints_of(tmp_path) == [path]


VALUE_ALONE = {"value.head.weight": (1, 8), "value.head.bias": (1,)}


def with_values(state, rng):
    """The parameters of a state with a value function that has a GPT-2 of its own."""
    heads = {f"value.{name}": view.shape for name, view in state.parameters.views.items()}
    shapes = {**heads, **VALUE_ALONE}.items()
    return with_heads(
        state.parameters,
        {name: rng.standard_normal(shape, np.float32) for name, shape in shapes},
    )


@needs_device
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_value_function_comes_back_and_the_model_is_the_policy_alone(tmp_path, precision):
    with device(machine()) as library:
        xp = np if precision == "float32" else library
        plain = start()
        policy = with_values(plain, np.random.default_rng(1))
        state = new_state(policy.on(xp), precision, seed=5)
        path = tmp_path / checkpoint_name(0)
        write_checkpoint(path, snapshot_of(state, Model(state.parameters, TOKENIZER, None)), {})
        opened = open_model(str(path)).parameters
        assert same(opened.flat, plain.parameters.flat)
        fresh = start()
        fresh.parameters = opened
        other = with_values(fresh, np.random.default_rng(2))
        again = new_state(other.on(xp), precision, seed=5)
        restore(open_checkpoint(path), again)
        assert_same_bits(again, state)
        on_host = np.asarray if xp is np else xp.asnumpy
        np.testing.assert_array_equal(*(on_host(s.compute.flat) for s in (again, state)))
        flip(path / OPTIMIZER, "value.h.0.mlp.c_fc.weight")
        with pytest.raises(UserError, match=f"{OPTIMIZER} is not what was written"):
            open_checkpoint(path)


def flip(path, name):
    """Flip a bit of a tensor in a file."""
    content = bytearray(path.read_bytes())
    content[open_tensors(path)[name].start] ^= 1
    path.write_bytes(content)


def test_a_checkpoint_without_the_value_function_is_refused(tmp_path):
    path = tmp_path / checkpoint_name(0)
    state = start()
    write_checkpoint(path, snapshot_of(state, Model(state.parameters, TOKENIZER, None)), {})
    fresh = new_state(with_heads(state.parameters, {"value.head.bias": np.zeros(1, np.float32)}))
    with pytest.raises(UserError, match=r"optimizer\.safetensors has no tensor value\.head\.bias"):
        restore(open_checkpoint(path), fresh)


def test_the_checkpoint_of_a_reward_model_is_a_reward_model(tmp_path):
    plain = start().parameters
    score = np.random.default_rng(1).standard_normal((1, 8), np.float32)
    state = new_state(with_heads(plain, {"score.weight": score}))
    state.step = 3
    path = tmp_path / checkpoint_name(3)
    model = RewardModel(state.parameters, TOKENIZER, TEMPLATES["qa"], 0.25)
    write_checkpoint(path, snapshot_of(state, model), NOTES)
    again = open_reward_model(str(tmp_path))
    assert same(again.parameters.flat, state.parameters.flat)
    assert (again.template, again.bias) == (TEMPLATES["qa"], 0.25)
    with pytest.raises(UserError, match="is a reward model"):
        open_model(str(path))
    fresh = new_state(again.parameters)
    restore(open_checkpoint(path), fresh)
    assert_same_bits(fresh, state)
    flip(path / "model.safetensors", "transformer.wpe.weight")
    with pytest.raises(UserError, match=r"is damaged: wpe\.weight is not what was written"):
        open_reward_model(str(path))


def test_notes_may_be_long(tmp_path):
    state, notes = start(), {"before": ["x" * 2**21]}
    path = tmp_path / checkpoint_name(0)
    write_checkpoint(path, snapshot_of(state, Model(state.parameters, TOKENIZER, None)), notes)
    assert open_checkpoint(path).notes == notes
    lines = (path / STATE).read_text().splitlines()
    assert lines[:3] == ["{", f' "format": {FORMAT},', ' "files": {']  # a person can read it
