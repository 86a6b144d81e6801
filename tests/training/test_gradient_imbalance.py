"""Imbalance: the measurement against gradients made in other ways, and the derivation's bounds."""

import json
from dataclasses import replace

import numpy as np
import pytest

from minigpt2.commands.imbalance import ImbalanceSettings, group_table, imbalance, slope_lines
from minigpt2.data.batches import batch_of
from minigpt2.data.loss_weights import LossWeights
from minigpt2.errors import UserError
from minigpt2.model.config import GPT2Config
from minigpt2.model.gpt2 import loss_and_gradients
from minigpt2.model.gradients import gradients_of
from minigpt2.model.parameters import Parameters
from minigpt2.training.gradient_imbalance import (
    Imbalance,
    Products,
    measure,
    norms_per_token,
    parts_of,
)
from tests.data.small import example_of

CONFIG = GPT2Config(vocab_size=23, n_positions=24, n_embd=12, n_layer=2, n_head=3)
PARAMETERS = Parameters(CONFIG, np.random.default_rng(5).standard_normal(CONFIG.n_parameters) * 0.3)
RNG = np.random.default_rng(1)
EXAMPLES = [
    example_of(RNG.integers(23, size=q), RNG.integers(23, size=a))
    for q, a in ((4, 3), (6, 1), (2, 9), (1, 5))
]


@pytest.fixture(scope="module")
def found():
    return measure(PARAMETERS, EXAMPLES)


def whole(loss_weights, examples=EXAMPLES):
    """The gradient of the loss of all examples in one batch."""
    batch = batch_of(examples, loss_weights)
    gradients = gradients_of(PARAMETERS)
    shares = batch._replace(weights=batch.weights / batch.weights.sum())
    loss_and_gradients(PARAMETERS, shares, gradients)
    return gradients


@pytest.mark.parametrize("weight", [0.0, 0.1, 1.0, 2.0])
def test_the_whole_gradient_follows_from_two(found, weight):
    gradient, alone = whole(LossWeights(weight)).flat, whole(LossWeights()).flat
    tokens = weight * found.prompt_tokens + found.answer_tokens
    size = np.linalg.norm(gradient)
    assert found.parts["all"].norm(weight) / tokens == pytest.approx(size, rel=1e-10)
    cosine = gradient @ alone / size / np.linalg.norm(alone)
    assert found.parts["all"].alignment(weight) == pytest.approx(cosine, rel=1e-10)


def test_tokens_are_counted(found):
    assert found.answer_tokens == 18 and found.prompt_tokens == 3 + 5 + 1 + 0
    assert found.lengths.tolist() == [3, 1, 9, 5]


def test_an_answers_norm_is_that_of_its_gradient(found):
    for example, norm, length in zip(EXAMPLES, found.norms, found.lengths, strict=True):
        alone = np.linalg.norm(whole(LossWeights(), [example]).flat)
        assert norm / length == pytest.approx(alone, rel=1e-10)
    assert found.shares.sum() == pytest.approx(1) == found.shares_alike.sum()
    ratio = found.shares_alike * found.lengths / found.shares
    np.testing.assert_allclose(ratio, ratio[0])


def test_parts_are_the_whole_model(found):
    parts = parts_of(PARAMETERS)
    assert list(parts) == list(found.parts) == ["all", "wte", "wpe", "h.0", "h.1", "ln_f"]
    names = [name for part, names in parts.items() if part != "all" for name in names]
    assert sorted(names) == sorted(parts["all"]) == sorted(PARAMETERS.views)
    for k in range(3):
        inner = [p[k] for part, p in found.parts.items() if part != "all"]
        assert sum(inner) == pytest.approx(found.parts["all"][k], rel=1e-10)


def test_products_spelled_out():
    p = Products(9.0, 6.0, 16.0)
    assert p.cosine == 0.5 and p.norm(0.0) == 4 and p.norm(1.0) == pytest.approx(37**0.5)
    assert p.prompt_share(0.0) == 0 and p.prompt_share(1.0) == pytest.approx(3 / 7)
    assert p.alignment(0.0) == 1 and p.alignment(1.0) == pytest.approx(22 / 4 / 37**0.5)
    nothing = Products(0.0, 0.0, 0.0)
    assert Products(0.0, 0.0, 4.0).cosine == Products(4.0, 0.0, 0.0).cosine == 0
    assert Products(0.04, 0.0, 0.05).norm(1.0) == pytest.approx(0.3)
    assert Products(9.0, 0.0, 9.0).prompt_share(1.0) == 0.5
    assert nothing.cosine == nothing.prompt_share(1.0) == nothing.alignment(1.0) == 0


@pytest.mark.parametrize(("prompt_tokens", "expected"), [(6, 0.5), (1, 3.0), (0, 3.0)])
def test_norms_per_token_spelled_out(prompt_tokens, expected):
    measured = Imbalance({}, np.ones(1), np.array([2]), prompt_tokens, answer_tokens=2)
    assert norms_per_token(measured, Products(9.0, 6.0, 16.0)) == (expected, 2.0)


def test_examples_are_counted_while_they_are_measured():
    counts = []
    measure(PARAMETERS, EXAMPLES[:3], counts.append)
    assert counts == [1, 1, 1]


@pytest.mark.parametrize(("common", "slope"), [(0.0, 0.5), (0.3, None), (100.0, 1.0)])
def test_norms_grow_with_length_between_its_root_and_itself(common, slope):
    """(33.5): token gradients are drawn as the derivation has them."""
    rng = np.random.default_rng(0)
    lengths = np.tile([1, 2, 4, 8, 16, 32, 64], 30)
    mean = np.full(400, common / 20)
    norms = [np.linalg.norm((mean + rng.standard_normal((n, 400)) / 20).sum(0)) for n in lengths]
    expected = np.sqrt(lengths**2 * common**2 + lengths)
    np.testing.assert_allclose(norms, expected, rtol=0.25)
    drawn = Imbalance({}, np.array(norms), lengths, 0, int(lengths.sum()))
    assert 0.48 < drawn.slope < 1.01
    assert slope is None or drawn.slope == pytest.approx(slope, abs=0.02)
    alike = drawn._replace(norms=drawn.norms / drawn.lengths)
    assert alike.slope == pytest.approx(drawn.slope - 1, abs=1e-9)


def test_answers_of_one_length_have_no_slope():
    assert np.isnan(Imbalance({}, np.ones(3), np.full(3, 5), 0, 15).slope)


def test_groups_hold_every_example_once(found):
    columns = [list(column.cells) for column in group_table(found).columns]
    assert sum(map(int, columns[1])) == len(EXAMPLES)
    for shares in columns[2:]:
        assert sum(float(share.rstrip("%")) for share in shares) == pytest.approx(100, abs=0.3)


def test_the_fit_finds_the_common_direction_and_the_noise():
    lengths = np.array([1, 2, 5, 9, 30])
    norms = np.sqrt(lengths**2 * 0.7 + lengths * 3.0)  # (33.5)
    drawn = Imbalance({}, norms, lengths, 0, int(lengths.sum()))
    assert drawn.fit == pytest.approx((0.7, 3.0))
    short = drawn._replace(norms=norms[:2], lengths=lengths[:2])
    assert short.fit == pytest.approx((0.7, 3.0))
    assert Imbalance({}, np.ones(3), np.full(3, 4), 0, 12).fit == pytest.approx((0.0, 0.25))


@pytest.mark.parametrize("squares", [(1, 3, 12), (12, 3, 1), (1, 2, 4), (5, 5, 5)])
def test_the_fit_is_the_best_one_without_a_negative_part(squares):
    lengths = np.array([10, 20, 40])
    fitted = Imbalance({}, np.sqrt(squares * lengths), lengths, 0, 70).fit

    def error(common, noise):
        return float(((common * lengths + noise - squares) ** 2).sum())

    assert min(fitted) >= 0
    beside = [
        (max(0, fitted[0] + a), max(0, fitted[1] + b))
        for a in (-1e-3, 0, 1e-3)
        for b in (-1e-2, 0, 1e-2)
    ]
    assert error(*fitted) <= min(error(*place) for place in beside) + 1e-9


@pytest.fixture
def data(tmp_path):
    """Eight questions with answers of different lengths."""
    path = tmp_path / "data.json"
    entries = [{"instruction": f"Count to {i}.", "output": "1 " * i} for i in range(1, 9)]
    path.write_text(json.dumps(entries))
    return path


def test_the_command_prints_tables_and_draws(data, little_model, tmp_path, capsys):
    figure = tmp_path / "imbalance.png"
    settings = ImbalanceSettings(data=str(data), model=str(little_model), count=5, figure=figure)
    result = imbalance(settings)
    out = capsys.readouterr().out
    assert len(result.norms) == 5 and figure.read_bytes().startswith(b"\x89PNG")
    for text in ("0 masked", "1 unmasked", "h.1", "ln_f", "Shares in the gradient", "length^"):
        assert text in out
    with pytest.raises(UserError, match="exists already"):
        imbalance(settings)
    again = imbalance(replace(settings, figure=None))
    np.testing.assert_array_equal(again.norms, result.norms)
    for wrong in ({"count": 0}, {"weights": [-1.0]}, {"context": 0}):
        with pytest.raises(UserError):
            ImbalanceSettings(data=str(data), **wrong)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 50])
@pytest.mark.parametrize("length", [1, 3, 7, 49, 1013])
def test_equal_lengths_tell_no_slope(count, length):
    norms = np.linspace(1, 2, count)
    measured = Imbalance({}, norms, np.full(count, length), 0, count * length)
    assert np.isnan(measured.slope)
    told = slope_lines(measured)
    assert "cannot be seen" in told and "^" not in told
    assert ("there is one answer only" in told) == (count == 1)
