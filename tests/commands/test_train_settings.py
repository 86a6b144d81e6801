"""Train: what the settings promise of a whole run."""

import json

import numpy as np
import pytest

from minigpt2.commands import train as command
from minigpt2.commands.setup import TrainSettings
from minigpt2.inference.model import Model, save_model
from minigpt2.model.config import GPT2Config
from minigpt2.model.initialisation import initialise
from minigpt2.model_folders import find_model
from minigpt2.weights import load_parameters
from tests.data.small import RECORDS, small_tokenizer


@pytest.fixture
def run(tmp_path, capsys):
    """A function that tunes a small model and returns its losses and the run's folder."""
    tokenizer = small_tokenizer()
    config = GPT2Config(tokenizer.n_vocab, 280, n_embd=8, n_layer=1, n_head=2)
    save_model(
        tmp_path / "base", Model(initialise(config, np.random.default_rng(0)), tokenizer, None)
    )
    asked = tmp_path / "asked.json"
    asked.write_text(json.dumps([record._asdict() for record in RECORDS]))

    def tune(name, **options):
        given = {"model": str(tmp_path / "base"), "data": str(asked), "out": tmp_path / name}
        fixed = {"validation": 0, "samples": 0, "batch_size": 4, "epochs": 3, "learning_rate": 0.1}
        command.train(TrainSettings(**{**given, **fixed, **options}))
        lines = (tmp_path / name / "log.jsonl").read_text().splitlines()
        return [json.loads(line)["loss"] for line in lines], tmp_path / name

    return tune


def test_micro_batches_change_memory_not_the_result(run):
    whole, cut = run("whole")[0], run("cut", micro_batch=1)[0]
    assert len(whole) == 6 and cut == pytest.approx(whole, rel=1e-4)


def test_recomputation_changes_memory_not_the_result(run):
    assert run("kept", dropout=0.1)[0] == run("again", dropout=0.1, recompute=True)[0]


def test_a_run_repeats_and_its_checkpoint_is_what_it_ended_with(run):
    (one, first), (two, second), (other, _) = run("1"), run("2"), run("3", seed=1)
    assert one == two != other and one[-1] < one[0]
    ends = [load_parameters(find_model(str(folder))).flat for folder in (first, second)]
    np.testing.assert_array_equal(*ends)
