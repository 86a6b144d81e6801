"""Page of a run: it holds what the run's files hold, and needs no other file."""

import json
import re
from html import unescape

import pytest

from minigpt2.commands.setup import TrainSettings
from minigpt2.commands.train import train
from minigpt2.reports import plots


@pytest.fixture(scope="module")
def folder(tmp_path_factory, little_model):
    """A finished run on questions with marks that HTML must escape."""
    folder = tmp_path_factory.mktemp("run")
    asked = [f'Is {n} < {n + 1} & "so"?' for n in range(9)]
    entries = [{"instruction": q, "output": f"<b>{n}</b>"} for n, q in enumerate(asked)]
    (folder / "data.json").write_text(json.dumps(entries))
    settings = TrainSettings(
        model=str(little_model),
        data=str(folder / "data.json"),
        out=folder / "run",
        test=str(folder / "data.json"),
        steps=4,
        evaluate_every=2,
        prompt_weight=0.1,
        validation=0.3,
        samples=1,
        max_new_tokens=3,
    )
    train(settings)
    return folder / "run"


def text_of(page):
    """What a reader sees of a page, on one line."""
    body = re.sub(r"<(style|svg).*?</\1>", "", page, flags=re.S)
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", body)).split())


def test_the_page_tells_what_the_files_hold(folder):
    text = text_of((folder / "report.html").read_text())
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    summary = json.loads((folder / "summary.json").read_text())
    for key in ("token_loss", "example_loss", "validation_token_loss", "validation_example_loss"):
        losses = [entry[key] for entry in log if key in entry]
        assert f"{losses[0]:.4f} {losses[-1]:.4f}" in text
    assert summary["data"]["described"] in text and "prompt_weight 0.1" in text
    for row in json.loads((folder / "answers.json").read_text()):
        assert row["instruction"] in text and row["output"] in text
        assert " ".join(row["after"].split()) in text
    assert "data, exact match 0 of 9 (0.0%)" in text


def test_the_page_escapes_what_it_shows_and_loads_nothing(folder):
    page = (folder / "report.html").read_text()
    assert "<b>" not in page and "&lt;b&gt;" in page
    outside = re.findall(r"""(?:src|href)=["'](?!#)([^"']*)""", page)
    assert not [link for link in outside if not link.startswith("#")]
    assert page.count("<svg") == 1 and '<span class="t w"' in page


def test_without_a_library_the_curves_are_missed(folder, monkeypatch):
    import builtins

    real = builtins.__import__

    def without(name, *rest):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    assert plots.run_curves([]) == ""
