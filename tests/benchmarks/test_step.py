"""The benchmark at a very small size: it runs, adds up, counts right, and leaves nothing behind."""

import json
from collections import Counter
from typing import ClassVar

import numpy as np
import pytest

pytest.importorskip("resource")

from minigpt2.data.forest import Segment, lay_out
from minigpt2.model import gpt2, gradients, layer
from minigpt2.model.config import GPT2Config
from minigpt2.model.gradients import gradients_of
from minigpt2.model.initialisation import initialise
from minigpt2.ops import cross_entropy as loss
from tests.benchmarks import step, work

SMALL = GPT2Config(vocab_size=50, n_positions=32, n_embd=8, n_layer=3, n_head=2)
SIZES = ("--rows=90", "--segment=16", "--supervised=0.25", "--shared-preamble=12", "--steps=3")


def places():
    """The functions that timers go around, as they are now."""
    return [getattr(module, name) for found in step.PARTS.values() for module, name in found]


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """What one run of the command writes, which is also what it returns."""
    before, file = places(), tmp_path_factory.mktemp("bench") / "step.json"
    returned = step.main([*SIZES, "--json", str(file)])
    assert places() == before
    written = json.loads(file.read_text())
    assert written["step"] == returned["step"]
    return written


def test_parts_add_up_to_the_step(result):
    parts = {name: part["seconds"] for name, part in result["parts"].items()}
    assert set(parts) == {*step.PARTS, step.REST}
    assert all(seconds > 0 for seconds in parts.values())
    assert parts[step.REST] < 0.5 * sum(parts.values())
    for timed in result["raw"]["timed"]:
        assert timed[step.REST] >= 0
    # A sum of medians is not the median of the sums; a busy machine sets them further apart.
    assert sum(parts.values()) == pytest.approx(result["step"]["seconds_with_timers"], rel=0.4)
    fastest = min(taken["seconds"] for taken in result["raw"]["plain"])
    assert 0.4 < min(sum(taken.values()) for taken in result["raw"]["timed"]) / fastest < 2.5


def test_timers_cost_little(result):
    found = result["step"]
    assert found["timers"] * found["seconds_per_timer"] < 0.02 * found["seconds"]


def test_every_timed_function_is_called_in_a_step(result):
    layers = step.MODELS["tiny"].n_layer
    linear, attention, gelu, layer_norm, others = 8, 2, 2, 4, 2 + 2 + 1 + 1
    assert result["step"]["timers"] == layers * (linear + attention + gelu + layer_norm) + others


def test_batch_is_what_was_asked_for(result):
    # 78 rows after the preamble are 4 examples of 16 and one of 14; a quarter of 14 is 3.5.
    assert result["step"]["rows"] == 90
    assert result["step"]["supervised"] == 4 * 4 + 4
    pairs = 12 * 13 // 2 + 4 * 16 * 17 // 2 + 14 * 15 // 2 + 12 * 78
    assert result["step"]["visible_pairs"] == pairs
    assert len(result["raw"]["warm_up"]) == step.WARM_UP


def test_timers_are_taken_off_after_an_error():
    before = places()
    with pytest.raises(RuntimeError, match="in a step"), step.timers():
        assert all(now is not real for now, real in zip(places(), before, strict=True))
        raise RuntimeError("in a step")
    assert places() == before


def forest():
    """A preamble of 3 rows, below it one of 2 with two answers, and an answer; then a root."""
    prompt = Segment([4, 5], [0.0, 0.0], [Segment([6, 7, 8], [1.0] * 3), Segment([9], [1.0])])
    trees = [Segment([1, 2, 3], [0.0] * 3, [prompt, Segment([6, 9], [0.0, 0.5])])]
    return lay_out([*trees, Segment([1, 6, 2, 8], [0.0, 1.0, 1.0, 1.0])])


def test_operations_of_a_small_forest_by_hand():
    batch = forest()
    end = [11 - 3] * 3 + [7, 7, 7, 7] + [8] + [11] * 3
    assert batch.end.tolist() == end
    pairs = sum(j <= i < end[j] for i in range(11) for j in range(11))
    assert pairs == work.visible_pairs(batch) == 6 + (3 * 4 + 3 + 3 + 4) + (3 + 1) + 6
    assert work.supervised_triples(batch) == 3 + 1 + 1 + 3
    behind = 8 * 8 + 8 * 32 + 32 * 8  # weights of the three products behind attention
    read = len(set(batch.rows.tolist()))
    met = 11 * 3 * 8 * 24 + (11 * 2 + read) * behind  # 11 rows, 3 layers; fewer rows in the last
    assert work.operations(SMALL, batch) == {
        "linear products, forward": 2 * met,
        "linear products, backward": 4 * met,
        "attention, forward": 3 * 2 * pairs * 2 * (2 * 4),  # q·k and p·v of 4 features, 2 heads
        "attention, backward": 3 * 2 * pairs * 5 * (2 * 4),  # q·k, do·v, dv, dq, dk
        "loss with projection": 8 * 3 * (2 * 8 * 50),
    }


class Noted(np.ndarray):
    """An array that notes the products of two matrices which it takes part in."""

    seen: ClassVar[Counter] = Counter()

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        """Do the operation on plain arrays; note operands' shapes, and whether each is turned."""
        plain = [x.view(np.ndarray) if isinstance(x, Noted) else x for x in inputs]
        if ufunc is np.matmul and plain[0].ndim == 2:
            turned = [not x.flags.c_contiguous for x in plain]
            shapes = [x.shape[::-1] if t else x.shape for x, t in zip(plain, turned, strict=True)]
            Noted.seen[(*shapes, *turned)] += 1
        if out is not None:
            options["out"] = tuple(x.view(np.ndarray) for x in out)
        result = getattr(ufunc, method)(*plain, **options)
        if out is not None:
            return out[0]
        return result.view(Noted) if isinstance(result, np.ndarray) else result


def noting(function):
    """The function, with arguments of two axes that note, and its results plain."""

    def called(*arguments, **options):
        two = [getattr(one, "ndim", 0) == 2 for one in arguments]
        given = [one.view(Noted) if t else one for one, t in zip(arguments, two, strict=True)]
        results = function(*given, **options)
        return tuple(x.view(np.ndarray) if isinstance(x, Noted) else x for x in results)

    return called


def test_products_are_those_of_a_step(monkeypatch):
    """The engine's own products, noted as it makes them: same shapes, turned alike, as often."""
    batch, rng = forest(), np.random.default_rng(0)
    for module in (loss, work):
        monkeypatch.setattr(module, "CHUNK_BYTES", 3 * 4 * SMALL.vocab_size)  # 8 triples: 3, 3, 2
    places = (layer, "linear"), (gradients, "linear_backward"), (gpt2, "cross_entropy_gradient")
    for module, name in places:
        monkeypatch.setattr(module, name, noting(getattr(module, name)))
    parameters = initialise(SMALL, rng)
    Noted.seen.clear()
    gpt2.loss_and_gradients(parameters, batch, gradients_of(parameters))
    expected, counts = Counter(), work.matrix_products(SMALL, batch)
    for product, count in counts.items():
        turned = product.turned == "left", product.turned == "right"
        expected[(product.left, product.right, *turned)] += count
    assert Noted.seen == expected

    done = work.operations(SMALL, batch)
    in_products = sum(n for part, n in done.items() if not part.startswith("attention"))
    assert sum(count * product.operations for product, count in counts.items()) == in_products


def test_roof_makes_the_products_that_it_counts():
    roof = step.Roof(work.matrix_products(SMALL, forest()), np.random.default_rng(0))
    roof.measure()
    assert roof.gflops() > 0
    for product, seconds in roof.seconds.items():
        made = product.run(np.ones(product.left), np.ones(product.right), None)
        assert made.shape == product.result
        assert product.operations == 2 * made.sum()  # of ones: each element is the inner length
        assert len(seconds) == 1


REFUSED = {
    "--rows=0": "--rows 0 leaves no row",
    "--steps=0": "--steps must be at least 1",
    "--supervised=0": "--supervised 0.0 is not a share",
    "--segment=257": "more than the model's 256 positions",
    "--json=no/such/file": "there is no folder",
}


@pytest.mark.parametrize("option", REFUSED)
def test_what_cannot_be_measured_is_refused(option, capsys):
    with pytest.raises(SystemExit) as stopped:
        step.main([option])
    assert stopped.value.code == 2
    assert REFUSED[option] in " ".join(capsys.readouterr().err.split())
