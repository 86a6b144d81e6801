"""Paths of a run: what is here stays, the rest is looked for where the run was started."""

import pytest

from minigpt2.commands.run_paths import from_here, name_of


@pytest.mark.parametrize(
    "name, value, expected",
    [
        ("data", "a.json", "{}/a.json"),
        ("data", "b.json", "b.json"),  # it is here, too
        ("data", "none.json", "none.json"),
        ("data", "almanac", "almanac"),
        ("template", "qa", "qa"),
        ("test", ["a.json", "b.json"], ["{}/a.json", "b.json"]),
        ("test", None, None),
        ("schedule", "a.json", "a.json"),
    ],
)
def test_a_path_is_named_from_here(name, value, expected, tmp_path, monkeypatch):
    first, here = tmp_path / "first", tmp_path / "here"
    for folder, files in [(first, ("a.json", "b.json", "almanac", "qa")), (here, ("b.json",))]:
        folder.mkdir()
        for file in files:
            (folder / file).touch()
    monkeypatch.chdir(here)
    listed = isinstance(expected, list)
    expected = [e.format(first) for e in (expected if listed else [expected]) if e is not None]
    found = from_here(name, value, str(first))
    assert (found if listed else [found]) == (expected or [None])


def test_a_data_set_has_a_name_however_it_is_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for data in (".", "./", tmp_path, f"{tmp_path}/../{tmp_path.name}/"):
        assert name_of(str(data)) == tmp_path.stem
    assert name_of("a/questions.json") == "questions" and name_of("almanac") == "almanac"
    assert name_of("/") == "data"
