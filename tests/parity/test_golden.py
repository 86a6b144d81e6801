"""Parity without the reference: this project gives the numbers that transformers gave."""

import json

import numpy as np
import pytest

from tests.parity import ours
from tests.parity.cases import CASES, forest, parameters_of, rows_of
from tests.parity.golden import GOLDEN, fingerprint

STORED = json.loads(GOLDEN.read_text())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_all_numbers_are_the_references(case):
    parameters, batch = parameters_of(case), forest(case)
    _, logits = ours.hidden_rows(parameters, batch)
    loss, gradients = ours.loss_and_gradients_of(parameters, batch)
    last = logits[rows_of(case)[-1]]
    answers = ours.greedy(parameters, case)
    losses = ours.adamw_losses(parameters, batch, case.rate)
    found = fingerprint(case, last, loss, gradients, losses, answers)
    golden = STORED[case.name]
    assert found["greedy"] == golden["greedy"]
    np.testing.assert_allclose(found["logits"], golden["logits"], rtol=0, atol=1e-4)
    assert abs(found["loss"] - golden["loss"]) <= 1e-6
    norms = np.array(golden["gradients"])[::2].repeat(2)
    errors = abs(np.array(found["gradients"]) - golden["gradients"]) / norms
    assert errors.max() <= 1e-4
    assert abs(np.array(found["losses"]) - golden["losses"]).max() <= 1e-5


def test_the_cases_are_many_and_odd():
    assert set(STORED) == {case.name for case in CASES}
    assert any(len(set(map(len, case.sequences))) > 1 for case in CASES)
