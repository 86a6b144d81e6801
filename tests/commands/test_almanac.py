"""The files of `minigpt2 almanac` are data sets that the program reads."""

import json

from minigpt2.data.loading import load_data


def test_preferences_are_files_that_the_program_reads(run, tmp_path):
    outcome = run("almanac", "--out", "out", "--preferences")
    assert outcome.code == 0
    counts = {path.stem: len(json.loads(path.read_text())) for path in tmp_path.glob("out/*.json")}
    assert set(counts) == {
        *("train", "held_out_facts", "held_out_arithmetic"),
        *("mixture", "pairs", "held_out_pairs", "arithmetic"),
    }
    for name, count in counts.items():
        data = load_data(tmp_path / f"out/{name}.json")
        assert len(data.records) == count
        assert all((r.rejected is not None) == name.endswith("pairs") for r in data.records)
        noun = "pairs" if name.endswith("pairs") else "questions"
        assert f"{name}.json: {count:,} {noun}" in outcome.out


def test_the_questions_alone_are_three_files(run, tmp_path):
    assert run("almanac", "--out", "out").code == 0
    assert len(list(tmp_path.glob("out/*.json"))) == 3
