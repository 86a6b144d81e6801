"""Template files: what is read is text as it is in the file, and what is refused, with its line."""

import json
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minigpt2.data.template import TEMPLATES, Template
from minigpt2.data.template_files import open_template, stored_template
from minigpt2.errors import UserError

PLACE = "question: '{instruction}'\n"


def test_a_template_from_a_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "question: |\n  Q {instruction}\nquestion_with_input: '{input}? {instruction}'\n"
    )
    template = open_template(str(path))
    assert (
        template.first_prompt("Add.") == "Q Add.\n"
        and template.first_prompt("Add.", "1") == "1? Add."
    )
    template.save(tmp_path)
    assert stored_template(tmp_path) == template
    assert stored_template(tmp_path / "elsewhere") is None
    assert open_template(str(tmp_path / "template.json")) == template


@pytest.mark.parametrize("ending", ["yaml", "YML", "json"])
def test_texts_are_those_of_the_file_whatever_yaml_makes_of_them(tmp_path, ending):
    texts = {"question": "{instruction}\t🔑\n", "opening": "no", "opening_with_input": "2020-13-45"}
    path = tmp_path / f"mine.{ending}"
    path.write_text(json.dumps(texts, indent="\t" if ending == "json" else 2))
    assert open_template(str(path)) == Template(**texts)


def test_a_text_without_quotation_marks_is_a_text(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(PLACE + "opening: 3\nopening_with_input: 1e3\nquestion_with_input:\n")
    assert open_template(str(path)) == Template(
        "{instruction}", opening="3", opening_with_input="1e3"
    )


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "mine.yaml is empty: it must hold the texts of a template: question, question_with"),
        ("[", "mine.yaml, line 1, is not YAML"),
        ("[" * 1000, "it is nested too deeply"),
        ("- a", "mine.yaml is a list: it must hold the texts of a template"),
        ("opening: a", "has no text 'question'"),
        ("question: 2020-13-45", "'question' has no place for {instruction}"),
        ("question: " + "9" * 5000, "'question' has no place for {instruction}"),
        ("question: ''", "'question' has no place"),
        ("question:", "'question' has no place"),
        (PLACE + "question_with_input: '{input}'", "'question_with_input' has no place for {ins"),
        (PLACE + "question_with_input: '{instruction}'", "has no place for {input}"),
        (PLACE + "system: 'Be kind.'", "'system' has no place for {system}"),
        (PLACE + "system: ''", "'system' has no place for {system}"),
        (PLACE + "opening: '{system}'", "'opening' has {system}, which is not filled in there"),
        ("question: '{instruction} {system}'", "'question' has {system}, which is not filled in"),
        (PLACE + "answer: a", "'answer' is none of a template's question"),
        (PLACE + "opening: [a]", "line 2: 'opening' is not text, but a list"),
        (PLACE + "opening: {a: b}", "line 2: 'opening' is not text, but a mapping"),
        (PLACE + PLACE, "line 2: 'question' is in line 1, too"),
        (PLACE + 'opening: "\\ud800"', "line 2: 'opening' is not text"),
        (PLACE + "x" * 100_000 + ": 1", "is not YAML"),
        ("question: &a [*a, *a]", "line 1: 'question' is not text, but a list"),
        ("? a\n: b\n? [c]\n: d", "line 3: a name must be a text, not a list"),
        ("question: !!python/object:os.system x", "'question' has no place"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused(tmp_path, text, error):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as refused:
        open_template(str(path))
    assert error in str(refused.value) and str(path) in str(refused.value)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 600


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "is not JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        ("[1]", "holds a list, not the texts of a template"),
        ("null", "holds null, not the texts of a template"),
        ('{"question": null}', "has no text 'question'"),
        ('{"question": "{instruction}", "opening": 3}', "'opening' is not text, but a number"),
        ('{"question": "{instruction}", "question": ""}', "has the field 'question' twice"),
    ],
)
def test_a_stored_template_that_is_damaged_is_refused(tmp_path, text, error):
    (tmp_path / "template.json").write_text(text)
    with pytest.raises(UserError, match=r"template.json ?") as refused:
        stored_template(tmp_path)
    assert error in str(refused.value)


TEXTS = st.text().map(lambda text: text.replace("{", "("))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TEXTS, TEXTS)
def test_a_template_is_read_as_it_was_saved(tmp_path, before, after):
    question = f"{before}{{instruction}}{after}"
    template = replace(TEMPLATES["alpaca"], question=question, opening=before)
    template.save(tmp_path)
    assert stored_template(tmp_path) == open_template(str(tmp_path / "template.json")) == template


BYTES = st.binary(max_size=40) | st.text("[]{},:'\"\\\n -?&*!|>%@#question1", max_size=40).map(
    str.encode
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(BYTES, st.sampled_from(["mine.yaml", "mine.json", "template.json"]))
def test_whatever_a_file_holds_it_is_a_template_or_one_line(tmp_path, content, name):
    (tmp_path / name).write_bytes(content)
    try:
        open_template(str(tmp_path / name))
        stored_template(tmp_path)
    except UserError as error:
        assert "\n" not in str(error) and str(tmp_path) in str(error)


def test_an_unknown_template_is_refused():
    with pytest.raises(UserError, match=r"'alpac' is none of alpaca, qa, chat, raw, nor a \.yaml"):
        open_template("alpac")
    with pytest.raises(UserError, match="there is no file"):
        open_template("missing.yaml")


def test_a_question_may_have_a_place_for_the_input(tmp_path):
    (tmp_path / "mine.yaml").write_text("question: '{instruction} ({input})'")
    template = open_template(str(tmp_path / "mine.yaml"))
    assert template.later_prompt("Add.", "1 + 2") == "Add. (1 + 2)"


def test_the_texts_of_a_template_are_listed_where_one_is_missing(tmp_path):
    (tmp_path / "mine.yaml").write_text("opening: a")
    names = "question, question_with_input, opening, opening_with_input, system"
    with pytest.raises(UserError, match=f"has no text 'question'; a template has {names}$"):
        open_template(str(tmp_path / "mine.yaml"))
