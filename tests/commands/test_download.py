"""download, run as a user would."""


def test_weights_that_are_not_official_are_refused_in_one_line(run):
    outcome = run("download", "gpt3")
    assert outcome.code == 2 and outcome.out == ""
    assert outcome.err.startswith("minigpt2: ") and outcome.err.count("\n") == 1
    assert "no official weights 'gpt3'" in outcome.err
