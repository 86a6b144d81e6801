"""Commands from Python: the same runs as on the command line, and wrong settings in words."""

import json

import pytest

import minigpt2
from minigpt2.commands.evaluate import EvaluateSettings, evaluate


@pytest.fixture
def data(tmp_path):
    """A data set of six questions."""
    path = tmp_path / "data.json"
    path.write_text(json.dumps([{"instruction": f"Say {n}.", "output": f"{n}"} for n in range(6)]))
    return path


def test_a_run_and_an_evaluation_are_those_of_the_commands(little_model, data, tmp_path):
    out = tmp_path / "run"
    summary = minigpt2.train(
        data=data, model=little_model, out=str(out), steps=2, samples=0, device="cpu"
    )
    assert summary["run"]["folder"] == str(out) and (out / "report.html").exists()
    tuned = minigpt2.GPT2.from_pretrained(out)
    assert tuned.template is not None
    numbers = minigpt2.evaluate(data=data, model=out, max_new_tokens=3)
    settings = EvaluateSettings(data=str(data), model=str(out), max_new_tokens=3)
    assert numbers == evaluate(settings)


def test_the_runs_of_alignment_return_their_summaries(little_model, tmp_path):
    pairs = [{"instruction": f"Say {n}.", "chosen": f"{n}", "rejected": "no"} for n in range(6)]
    (tmp_path / "pairs.json").write_text(json.dumps(pairs))
    (tmp_path / "data.json").write_text(json.dumps([{**p, "output": p["chosen"]} for p in pairs]))
    common = {"model": little_model, "device": "cpu", "steps": 1}
    answers = {"max_new_tokens": 2, "prompts": 2, "samples": 0, "check": "exact", **common}
    for name, data, settings in (
        ("reward", "pairs.json", common),
        ("dpo", "pairs.json", {**common, "samples": 0}),
        ("ppo", "data.json", {**answers, "epochs": 1}),
        ("grpo", "data.json", {**answers, "answers": 2}),
    ):
        out = tmp_path / name
        summary = getattr(minigpt2, name)(data=tmp_path / data, out=out, **settings)
        assert summary["run"]["folder"] == str(out)
        assert json.loads((out / "summary.json").read_text())["run"]["folder"] == str(out)
        assert "<svg" in (out / "report.html").read_text()


WRONG = {
    "nearly beta": (lambda: minigpt2.dpo(betta=1), "did you mean 'beta'"),
    "a refused setting": (lambda: minigpt2.ppo(top_k=3), "answers are drawn from all tokens"),
    "near": (lambda: minigpt2.train(epoch=2), "did you mean 'epochs'"),
    "no choice": (lambda: minigpt2.train(loss="foo"), "loss must be one of 'token', 'example'"),
    "number as text": (lambda: minigpt2.train(batch_size="8"), "batch_size must be a whole"),
    "half a step": (lambda: minigpt2.train(steps=1.5), "steps must be a whole number or None"),
    "no file": (lambda: minigpt2.train(data=""), "data is empty: give a file or folder"),
    "no folder": (lambda: minigpt2.train(out=""), "out is empty: give a folder"),
    "no test": (lambda: minigpt2.train(test=["a.json", ""]), "test is empty"),
    "no such name": (
        lambda: minigpt2.evaluate(data="a\0b"),
        "data has a character that no name can",
    ),
    "flag": (lambda: minigpt2.train(recompute=1), "recompute must be True or False, not 1"),
    "no data": (lambda: minigpt2.evaluate(), "evaluate needs data: pass data="),
    "huge epochs": (lambda: minigpt2.train(epochs=10**400), "epochs is too large"),
    "huge steps": (lambda: minigpt2.train(steps=10**400), "steps is too large"),
}


@pytest.mark.parametrize("call", WRONG)
def test_wrong_settings_are_refused_in_words(call):
    action, text = WRONG[call]
    with pytest.raises(minigpt2.UserError, match=text):
        action()
