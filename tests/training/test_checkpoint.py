"""Checkpoint: a run goes on from the disk bit for bit, and every damage is noticed."""

import json
import os
import shutil
from math import inf
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from minigpt2 import backend
from minigpt2.backend import array_module
from minigpt2.data.template import TEMPLATES
from minigpt2.data.tokenizer import open_tokenizer
from minigpt2.device.captured import CAPTURED
from minigpt2.device.devices import stream_of
from minigpt2.errors import UserError
from minigpt2.inference.model import Model, open_model
from minigpt2.model.config import GPT2Config
from minigpt2.model.initialisation import initialise
from minigpt2.outputs import json_text
from minigpt2.tensors import TENSORS
from minigpt2.training.checkpoint import (
    FORMAT,
    OPTIMIZER,
    STATE,
    Numbers,
    checkpoint_name,
    checksum_of,
    open_checkpoint,
    require_whole_files,
    restore,
    snapshot_of,
    write_checkpoint,
)
from minigpt2.training.objective import WeightedNLL
from minigpt2.training.run import take_steps
from minigpt2.training.state import Best, new_state
from minigpt2.training.step import TrainingConfig
from minigpt2.weights import checkpoints_of
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


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The folder of a checkpoint in the middle of a step."""
    path = tmp_path_factory.mktemp("run") / checkpoint_name(1, 2)
    state = interrupted()
    model = Model(state.parameters, TOKENIZER, TEMPLATES["qa"])
    write_checkpoint(path, snapshot_of(state, model), NOTES)
    return path


def test_a_checkpoint_is_a_model_with_the_rest_beside_it(written):
    model = open_model(str(written))
    assert same(model.parameters.flat, interrupted().parameters.flat)
    assert model.template == TEMPLATES["qa"]
    assert open_tokenizer(written).files == TOKENIZER.files
    assert checkpoints_of(written.parent) == [written]


FILES = ["config.json", "merges.txt", "model.safetensors", OPTIMIZER, "template.json", "vocab.json"]


@pytest.mark.parametrize("name", [*FILES, STATE])
def test_a_damaged_file_is_named(written, tmp_path, name):
    assert sorted([*FILES, STATE]) == sorted(path.name for path in written.iterdir())
    contents, rng = (written / name).read_bytes(), np.random.default_rng(1)
    places = {0, len(contents) - 1, *rng.integers(len(contents), size=40).tolist()}
    for damage in ["removed", "empty", "cut", *places]:
        folder = shutil.copytree(written, tmp_path / str(damage))
        path = folder / name
        changed = bytearray(contents)
        if damage == "removed":
            path.unlink()
        else:
            if damage == "cut":
                del changed[-5:]
            elif damage == "empty":
                changed.clear()
            else:
                changed[damage] ^= 1 << int(rng.integers(8))
            path.write_bytes(changed)
        with pytest.raises(UserError, match=str(path)):
            open_checkpoint(folder)


def refusal(written, tmp_path, change):
    """What is said of a copy whose state was changed, and has the right checksum all the same."""
    folder = shutil.copytree(written, tmp_path / "copy")
    content = json.loads((folder / STATE).read_text())
    changed = change(content)
    content = content if changed is None else changed
    content["checksum"] = checksum_of(content)
    (folder / STATE).write_text(json.dumps(content))
    with pytest.raises(UserError) as refused:
        open_checkpoint(folder)
    return str(refused.value).replace(str(folder / STATE), "STATE").replace(str(folder), "FOLDER")


@pytest.mark.parametrize(
    "change, message",
    [
        (
            {"format": 2},
            "STATE has format 2, and this program knows 1: "
            "use the version of minigpt2 that wrote it, or a newer one",
        ),
        ({"files": {}}, "STATE lacks the checksums"),
        ({"files": []}, "STATE lacks the checksums"),
        ({"files": {"../secret": 1}}, "STATE lacks the checksums"),
        ({"numbers": {}}, "STATE: it has no number best_loss"),
        ({"numbers": []}, "STATE: it is not the state of a checkpoint"),
        ({"numbers": {"step": "many"}}, "STATE: step must be a whole number, not 'many'"),
        ({"notes": None}, "STATE is not the state of a checkpoint"),
    ],
)
def test_a_state_that_was_written_by_something_else_is_refused(written, tmp_path, change, message):
    assert refusal(written, tmp_path, lambda content: content | change) == message


@pytest.mark.parametrize("text", ["[]", "7", "{}", '{"format": 1}'])
def test_what_is_json_and_no_state_is_refused(tmp_path, text):
    (tmp_path / STATE).write_text(text)
    with pytest.raises(UserError) as refused:
        open_checkpoint(tmp_path)
    assert str(refused.value) == f"{tmp_path / STATE} is not the state of a checkpoint"


NO_VALIDATION = "best_loss, best_step and best_since are those of no validation"


@pytest.mark.parametrize(
    "numbers, message",
    [
        *(
            ({name: -1}, f"{name} must be at least 0, not -1")
            for name in ("step", "epoch", "position", "seed", "finite_steps")
        ),
        ({"position": True}, "position must be a whole number, not True"),
        ({"seed": 1e300}, "seed must be a whole number, not 1e+300"),
        ({"validated": -2}, "validated must be at least -1, not -2"),
        ({"loss_scale": 0.0}, "loss_scale must be above 0, not 0"),
        ({"loss_scale": inf}, "loss_scale must be above 0, not inf"),
        ({"best_loss": 10**400}, "best_loss is too large"),
        ({"holding": ["a", 1]}, "holding must be a list, each entry text, not ['a', 1]"),
        ({"best_since": 1}, NO_VALIDATION),
        ({"best_loss": 1.0, "best_step": 1}, NO_VALIDATION),
        ({"best_loss": inf, "best_step": 1, "best_since": 0}, NO_VALIDATION),
        ({"partial": []}, "holding has names, and partial is empty"),
    ],
    ids=str,
)
def test_a_number_that_no_state_has_is_named_with_its_file(written, tmp_path, numbers, message):
    found = refusal(written, tmp_path, lambda content: content["numbers"].update(numbers))
    assert found == f"STATE: {message}"


def test_what_is_said_of_a_number_is_cut_where_it_is_long(written, tmp_path):
    changes = {"precision": "x" * 3000}
    found = refusal(written, tmp_path, lambda content: content["numbers"].update(changes))
    words = "precision must be one of 'float32', 'bfloat16', 'float16', not 'xxx"
    assert found.startswith(f"STATE: {words}") and found.endswith("x…")
    assert len(found) == len("STATE: ") + 300


def test_a_number_that_is_not_known_is_named_with_those_that_are(written, tmp_path):
    found = refusal(written, tmp_path, lambda content: content["numbers"].update(more=1))
    names = ", ".join(Numbers._fields)
    assert found == f"STATE: a checkpoint has no argument 'more'; it has {names}"


def test_a_state_that_is_nested_deeper_than_any_is_refused(written, tmp_path):
    folder = shutil.copytree(written, tmp_path / "copy")
    content = (folder / STATE).read_text()
    deep = '{"notes": ' + '{"a": ' * 480 + "1" + "}" * 480 + ","
    (folder / STATE).write_text(deep + content.replace('"notes"', '"other"').lstrip()[1:])
    with pytest.raises(UserError, match=str(folder / STATE)):
        open_checkpoint(folder)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_is_not_read(written, tmp_path, make):
    folder = shutil.copytree(written, tmp_path / "copy")
    (folder / "vocab.json").unlink()
    make(folder / "vocab.json")
    with pytest.raises(UserError, match=r"vocab\.json is not a file"):
        open_checkpoint(folder)


def test_a_name_in_the_state_does_not_lead_out_of_the_folder(written, tmp_path):
    (tmp_path / "secret").write_text("x")
    folder = shutil.copytree(written, tmp_path / "copy")
    content = json.loads((folder / STATE).read_text())
    content["files"]["../secret"] = crc32(b"x")
    content["checksum"] = checksum_of(content)
    (folder / STATE).write_text(json_text(content, ascii_only=True))
    with pytest.raises(UserError, match="there is no file"):
        open_checkpoint(folder)


def test_notes_may_be_long(tmp_path):
    state, notes = start(), {"before": ["x" * 2**21]}
    path = tmp_path / checkpoint_name(0)
    write_checkpoint(path, snapshot_of(state, Model(state.parameters, TOKENIZER, None)), notes)
    assert open_checkpoint(path).notes == notes
    lines = (path / STATE).read_text().splitlines()
    assert lines[:3] == ["{", f' "format": {FORMAT},', ' "files": {']  # a person can read it


def test_a_folder_may_have_more_than_what_has_a_checksum(written, tmp_path):
    """But not less, and these two always."""
    folder = shutil.copytree(written, tmp_path / "copy")
    files = json.loads((folder / STATE).read_text())["files"]
    both = {name: files[name] for name in (TENSORS, OPTIMIZER)}
    require_whole_files(folder, both)
    for name in both:
        with pytest.raises(UserError) as refused:
            require_whole_files(folder, {n: c for n, c in files.items() if n != name})
        assert str(refused.value) == f"{folder / STATE} lacks the checksums"


def change_tensor(path, name, value):
    """Put a tensor of a file in another one's place; None takes it out."""
    tensors = {**load_file(path), name: value}
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, path)


SIZE = start().m.size


@pytest.mark.parametrize("name", ["m", "v", "gradients", "result.0", "result.1"])
@pytest.mark.parametrize(
    "value, words",
    [
        (None, "{path} has no tensor {name}"),
        (np.zeros(3, np.int64), "{path}: {name} {problem}"),
    ],
    ids=["missing", "other numbers"],
)
def test_an_array_that_is_not_the_models_is_named(written, tmp_path, name, value, words):
    folder = shutil.copytree(written, tmp_path / "copy")
    checkpoint, path = open_checkpoint(folder), folder / OPTIMIZER
    change_tensor(path, name, value)
    problem = f"has shape (3,), but config.json asks for ({SIZE},)"
    if name.startswith("result"):
        problem = "cannot be an array of I64 numbers"
    with pytest.raises(UserError) as refused:
        restore(checkpoint, start())
    assert str(refused.value) == words.format(path=path, name=name, problem=problem)


def test_moments_are_finite_and_what_micro_batches_made_may_overflow(written, tmp_path):
    folder = shutil.copytree(written, tmp_path / "copy")
    checkpoint, path = open_checkpoint(folder), folder / OPTIMIZER
    change_tensor(path, "result.1", np.full(3, np.inf, np.float32))
    change_tensor(path, "gradients", np.full(SIZE, np.nan, np.float32))
    restore(checkpoint, start())
    for name in ("m", "v"):
        kept = load_file(path)[name]
        change_tensor(path, name, np.full(SIZE, np.nan, np.float32))
        with pytest.raises(UserError, match=f"{path}: {name} holds numbers that are not finite"):
            restore(checkpoint, start())
        change_tensor(path, name, kept)
