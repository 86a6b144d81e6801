"""Metrics: what a line of the log, the curves and the table of results show of an objective."""

import pytest

from minigpt2.reports.metrics import PANELS, PRINTED, curves_of, results_of, step_line
from minigpt2.reports.plots import run_curves
from minigpt2.training.step import StepResult

PPO = {"loss": 0.1, "reward": -1.25, "kl": 12.5, "entropy": 2.25, "length": 16.0, "ended": 0.5}
DPO = {"loss": 0.6931, "accuracy": 0.75, "margin": -0.5, "chosen_log_ratio": 0.1}


def result(metrics, step=3):
    return StepResult(
        step=step,
        metrics=metrics,
        learning_rate=1e-6,
        gradient_norm=10.61,
        updated=True,
        loss_scale=1.0,
        supervised=10,
        rows=2028,
        seconds=1.0,
    )


def test_a_line_has_the_numbers_that_the_objective_names():
    line = step_line(result(DPO), 9, None)
    assert line == "step 3/9  loss 0.6931  accuracy 75%  margin -0.50  norm 10.61  2,028 tok/s"
    line = step_line(result(PPO), 9, 2 * 10**9)
    assert line == ("step 3/9  loss 0.1000  reward -1.250  kl 12.50  entropy 2.25  length 16.0")
    line = step_line(result({"loss": 1.0, "token_loss": 1.0}), 9, 2 * 10**9)
    assert line == "step 3/9  loss 1.0000  lr 1.0e-06  norm 10.61  2,028 tok/s  2.00 GB"


@pytest.mark.parametrize("metrics", [DPO, PPO, {"loss": 1e9, "accuracy": 1.0, "margin": -1e9}])
@pytest.mark.parametrize("step", [1, 10**9])
def test_a_line_fits_a_terminal(metrics, step):
    assert len(step_line(result(metrics, step), 10**9, 10**12)) <= 80


def log_of(*entries):
    return [{"step": number, **entry} for number, entry in enumerate(entries, 1)]


def test_a_run_has_the_curves_of_its_numbers():
    log = log_of(DPO, {"validation_loss": 0.5, "validation_accuracy/cut": 0.75}, DPO)
    panels = {panel.title: curves for panel, curves in curves_of(log)}
    assert list(panels) == ["loss", "accuracy", "margin", "log-ratio to the reference"]
    assert [curve.label for curve in panels["loss"]] == ["training", "validation"]
    assert [curve.points for curve in panels["accuracy"]] == [
        [(1, 0.75), (3, 0.75)],
        [(2, 0.75)],
    ]
    assert panels["accuracy"][1].label == "validation, cut"
    tuned = curves_of(log_of({"loss": 1.0, "token_loss": 1.0}))
    assert [curve.metric for _, curves in tuned for curve in curves] == ["token_loss"]


def test_the_table_has_the_first_and_the_last_value():
    log = log_of(DPO | {"learning_rate": 1.0}, {"validation_accuracy/cut": 0.5}, DPO | {"loss": 0})
    rows = {row["name"]: (row["before"], row["after"]) for row in results_of(log)}
    assert rows["loss, training (first and last batch)"] == ("0.6931", "0.0000")
    assert rows["accuracy, validation, cut"] == ("50.0%", "50.0%")
    assert not any("learning rate" in name for name in rows)


def test_every_printed_number_is_drawn():
    assert set(PRINTED) <= {metric for panel in PANELS for metric in panel.labels}


@pytest.mark.parametrize("entries", [[], [DPO], [DPO, PPO], [{"kl": None}]])
def test_the_picture_has_a_place_for_each_panel(entries):
    picture = run_curves(log_of(*entries))
    panels = curves_of(log_of(*entries))
    assert picture.count('id="axes_') >= len(panels)
    assert "margin" in picture if DPO in entries else "margin" not in picture
