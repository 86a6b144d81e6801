"""Checkpoint reader: every damage is noticed, and what no run has written is refused."""

import json
import os
import shutil
from itertools import combinations
from math import inf
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from minigpt2 import backend
from minigpt2.backend import array_module
from minigpt2.data.template import TEMPLATES
from minigpt2.device import fake_cupy
from minigpt2.errors import UserError
from minigpt2.inference.model import Model
from minigpt2.outputs import json_text
from minigpt2.tensors import TENSORS
from minigpt2.training.checkpoint import (
    OPTIMIZER,
    STATE,
    Numbers,
    checkpoint_name,
    checksum_of,
    snapshot_of,
    write_checkpoint,
)
from minigpt2.training.checkpoint_reader import open_checkpoint, require_whole_files, restore
from tests.training.restart import same
from tests.training.test_checkpoint import NOTES, TOKENIZER, interrupted, start


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The folder of a checkpoint in the middle of a step."""
    path = tmp_path_factory.mktemp("run") / checkpoint_name(1, 2)
    state = interrupted()
    model = Model(state.parameters, TOKENIZER, TEMPLATES["qa"])
    write_checkpoint(path, snapshot_of(state, model), NOTES)
    return path


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
        ({"loss_scale": inf}, "loss_scale must be finite, not inf"),
        ({"best_loss": 10**400}, "best_loss is too large"),
        ({"holding": ["a", 1]}, "holding must be a list, each entry text, not ['a', 1]"),
        *(
            (dict(some), NO_VALIDATION)
            for count in (1, 2)
            for some in combinations(
                {"best_loss": 1.0, "best_step": 1, "best_since": 0}.items(), count
            )
        ),
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


def test_arrays_come_back_to_where_the_state_is(written, monkeypatch):
    monkeypatch.setattr(backend, "LIBRARIES", [fake_cupy])
    state, before = start(fake_cupy), interrupted()
    restore(open_checkpoint(written), state)
    pairs = [(state.m, before.m), *zip(state.partial, before.partial, strict=True)]
    for array, that in pairs:
        assert array_module(array) is fake_cupy and same(array, that)


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
