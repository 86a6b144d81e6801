"""Micro-batches: one weighted sum a step, however the step is cut."""

import numpy as np
import pytest

from minigpt2.errors import UserError
from minigpt2.model.gpt2 import loss_and_gradients
from minigpt2.model.gradients import gradients_of
from minigpt2.training.config import TrainingConfig
from minigpt2.training.micro_batches import gather_gradients
from minigpt2.training.objective import Options, WeightedNLL
from minigpt2.training.state import new_state
from tests.model.cases import FIRST, RATE, SECOND, random_parameters
from tests.training.windows import UNWEIGHTED, assert_same, cut, run


@pytest.mark.parametrize("sizes", [(1,) * 7, (4, 3), (1, 6), (3, 3, 1), (2, 1, 4)], ids=str)
def test_how_a_window_is_cut_makes_no_difference(sizes):
    parameters = random_parameters()
    window = cut(sizes)
    assert len({len(batch.targets) for batch in window}) > 1  # uneven: a mean of means would differ
    assert_same(run(parameters, window), run(parameters, cut((7,))))


def test_the_loss_of_a_window_is_one_weighted_sum_over_the_sum_of_weights():
    parameters = random_parameters()
    total = gradients_of(parameters)
    losses = [float(loss_and_gradients(parameters, b, total)[0]) for b in (FIRST, SECOND)]
    weights = [batch.weights.sum() for batch in (FIRST, SECOND)]
    loss, gradients = run(parameters, [FIRST, SECOND])
    assert loss == pytest.approx(sum(losses) / sum(weights), rel=1e-13)
    np.testing.assert_allclose(gradients.flat, total.flat / sum(weights), atol=1e-13)
    means = np.divide(losses, weights)
    assert abs(loss - means.mean()) > 1e-3


def test_scaling_all_weights_makes_no_difference():
    parameters = random_parameters()
    scaled = [batch._replace(weights=batch.weights * 7) for batch in (FIRST, SECOND)]
    assert_same(run(parameters, scaled), run(parameters, [FIRST, SECOND]))


def test_a_micro_batch_without_a_weighted_triple_adds_nothing():
    parameters = random_parameters()
    expected = run(parameters, [FIRST])
    zero = SECOND._replace(weights=np.zeros_like(SECOND.weights))
    for window in ([UNWEIGHTED, FIRST], [FIRST, UNWEIGHTED], [zero, FIRST, zero]):
        loss, gradients = run(parameters, window)
        assert loss == expected[0]
        np.testing.assert_array_equal(gradients.flat, expected[1].flat)


@pytest.mark.parametrize(
    "window", [[], [UNWEIGHTED], [FIRST._replace(weights=np.zeros_like(FIRST.weights))] * 2]
)
def test_a_window_without_a_weighted_triple_is_an_error(window):
    with pytest.raises(UserError) as error:
        run(random_parameters(), window)
    expected = "step 1: none of its tokens is supervised, so it can learn nothing"
    assert str(error.value) == expected


@pytest.mark.parametrize("window", [[FIRST], [UNWEIGHTED, SECOND], [FIRST, SECOND]])
@pytest.mark.parametrize("options", [{}, {"recompute": True}])
def test_gradients_of_a_window_replace_what_is_there(window, options):
    parameters = random_parameters()
    gradients = gradients_of(parameters)
    total = sum(batch.weights.sum() for batch in window)
    for batch in window:
        loss_and_gradients(parameters, batch._replace(weights=batch.weights / total), gradients)
    state = new_state(parameters)
    state.gradients.flat[:] = np.nan
    run(parameters, window, state=state, **options)
    np.testing.assert_allclose(state.gradients.flat, gradients.flat, rtol=1e-13, atol=1e-15)


def test_recomputation_makes_no_difference_to_a_window_with_dropout():
    parameters = random_parameters()
    found = [
        run(parameters, [FIRST, SECOND], drop=RATE, seed=1, recompute=r) for r in (False, True)
    ]
    assert found[0][0] == found[1][0]
    np.testing.assert_array_equal(found[0][1].flat, found[1][1].flat)
    plain = run(parameters, [FIRST, SECOND])
    assert plain[0] != found[0][0]


def test_an_objective_is_told_what_each_micro_batch_needs():
    """Masks are of the random stream of the seed, of masks, of the step and the micro-batch."""
    seen = []

    class Noted(WeightedNLL):
        def add_gradients(self, parameters, batch, gradients, options):
            seen.append(options)
            return super().add_gradients(parameters, batch, gradients, options)

    state = new_state(random_parameters(dtype=np.float32), "float16", seed=7)
    state.step, state.scale.value = 4, 8.0
    window = [FIRST, SECOND]
    for config in (TrainingConfig(9, 0.1, dropout=RATE, recompute=True), TrainingConfig(9, 0.1)):
        gather_gradients(state, window, Noted(), config)
    state.partial = [np.zeros(len(FIRST.targets))]  # of a step that was interrupted
    gather_gradients(state, window, Noted(), TrainingConfig(9, 0.1, dropout=RATE))
    total = FIRST.weights.sum() + SECOND.weights.sum()
    masked, plain, after = seen[:2], seen[2:4], seen[4:]
    streams = [options.rng.bit_generator.seed_seq.entropy for options in masked + after]
    assert streams == [[7, 2, 5, 0], [7, 2, 5, 1], [7, 2, 5, 1]]
    assert [o._replace(rng=None) for o in masked] == [Options(total, 8.0, RATE, None, True)] * 2
    assert plain == [Options(total, 8.0, 0.0, None, False)] * 2
