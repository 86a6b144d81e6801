"""Showing: every token of an entry, its colour, its weight and what its row predicts."""

import io
import json
import re
from html import unescape

import pytest

from minigpt2.commands import show as chapter
from minigpt2.commands.show import ShowSettings, shift, show
from minigpt2.data.examples import encode
from minigpt2.data.loss_weights import LossWeights
from minigpt2.data.records import Record
from minigpt2.data.template import TEMPLATES
from minigpt2.data.tokenizer import Tokenizer
from minigpt2.errors import UserError
from minigpt2.reports.screen import Screen
from minigpt2.reports.tokens import tokens_of
from tests.data.small import small_tokenizer

BYTES = small_tokenizer()
RECORD = Record("Say é.", "", "é!")
ENTRIES = [
    {"instruction": f"Say {word}.", "input": "", "output": word} for word in ("<b>", "é\n", "x y")
]


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "data.json"
    path.write_text(json.dumps(ENTRIES))
    return str(path)


def tokens(loss_weights=LossWeights()):  # noqa: B008
    example = encode(RECORD, BYTES, TEMPLATES["raw"])
    return tokens_of(example, loss_weights.of(example), BYTES)


def test_tokens_spell_the_example_and_characters_of_several_bytes_are_whole():
    shown = tokens()
    assert "".join(t.text for t in shown) == "Say é.é!<|endoftext|>"
    assert "\ufffd" not in "".join(t.text for t in shown)
    assert [t.place for t in shown] == list(range(len(shown)))
    assert [t.text for t in shown if t.is_answer] == ["", "é", "!", "<|endoftext|>"]


def test_the_shift_shows_the_row_that_predicts_each_token_near_the_answers_ends():
    table = shift(tokens(LossWeights(0.5)))
    columns = [list(column.cells) for column in table.columns]
    rows = [[str(cell) for cell in row] for row in zip(*columns, strict=True)]
    assert rows == [
        ["…", "", "", ""],
        ["5", "'é'", "'.'", "0.5"],
        ["6", "'.'", "''", "1"],
        ["7", "''", "'é'", "1"],
        ["…", "", "", ""],
        ["9", "'!'", "<|endoftext|>", "1"],
    ]


def printed(monkeypatch, settings, **options):
    """What is printed, on a terminal that is wide."""
    out = io.StringIO()
    screen = Screen(file=out, width=200, wrap=True, **options)
    monkeypatch.setattr(chapter, "Screen", lambda **given: screen)
    show(settings)
    return out.getvalue()


def test_prompts_are_grey_and_answers_green(data, little_model, monkeypatch):
    settings = ShowSettings(data=data, model=str(little_model), count=1, template="raw")
    text = printed(monkeypatch, settings, force_terminal=True, color_system="standard")
    body = text.splitlines()[2]
    colours = re.findall(r"\x1b\[([\d;]+)m(.*?)\x1b\[0m", body)
    grey = "".join(t for code, t in colours if code == "90")
    green = "".join(t for code, t in colours if "32" in code.split(";"))
    assert grey == "Say <b>." and green == "<b><|endoftext|>"


def test_entries_are_told_with_their_tokens_and_cuts(data, little_model, monkeypatch):
    settings = ShowSettings(data=data, model=str(little_model), first=1, count=9, context=20)
    text = printed(monkeypatch, settings)
    assert re.findall(r"^entry (\d)  \d+ prompt tokens, \d+ answer tokens; cut: \d+ of", text, re.M)
    assert "entry 0" not in text and "entry 2" in text and "↵" in text
    drop = ShowSettings(data=data, model=str(little_model), context=20, truncate="drop")
    assert printed(monkeypatch, drop).count("longer than the context of 20, dropped") == 3
    weighed = ShowSettings(data=data, model=str(little_model), prompt_weight=0.5, loss="example")
    assert "weight of a prompt token 0.0" in printed(monkeypatch, weighed)


def test_a_page_holds_every_token_with_its_weight(data, little_model, tmp_path, capsys):
    page = tmp_path / "page.html"
    show(ShowSettings(data=data, model=str(little_model), html=page, template="qa"))
    assert "3 entries written to" in capsys.readouterr().out
    text = page.read_text()
    first = text.split('<div class="entry">')[1].split("</div>")[0]
    span = r'<span class="t (\w)( s)?" title="([^"]*)">(.*?)</span>(?=<span class="t|$)'
    spans = re.findall(span, first, re.S)
    shown = "".join(unescape(re.sub(r"<[^>]*>", "", s)) for *_, s in spans).replace("↵", "")
    assert shown == "Question:\nSay <b>.\n\nAnswer:\n<b><|endoftext|>"
    notes = [unescape(note) for _, _, note, _ in spans]
    assert all(f"place {k}, id " in note for k, note in enumerate(notes))
    for (kind, *_), note in zip(spans, notes, strict=True):
        assert ("weight 1;" in note) == (kind == "a")
    assert notes[-1].endswith("predicts nothing") and "predicts <|endoftext|>" in notes[-2]
    with pytest.raises(UserError, match="exists already"):
        show(ShowSettings(data=data, model=str(little_model), html=page))


def test_an_entry_has_its_number_in_the_file_also_where_others_are_left_out(
    little_model, tmp_path, monkeypatch
):
    entries = [*ENTRIES[:1], {"instruction": "No answer"}, *ENTRIES[1:], {"instruction": 3}]
    (tmp_path / "data.json").write_text(json.dumps(entries))
    settings = {"data": str(tmp_path / "data.json"), "model": str(little_model), "skip_bad": True}

    def numbers(**more):
        text = printed(monkeypatch, ShowSettings(**settings, **more))
        return [int(number) for number in re.findall(r"^entry (\d)", text, re.M)]

    assert numbers(count=9) == [0, 2, 3] and numbers(first=1) == numbers(first=2) == [2, 3]
    assert numbers(count=2) == [0, 2] and numbers(first=3) == [3]
    with pytest.raises(UserError, match="first must be below 4"):
        show(ShowSettings(**settings, first=4))


INVISIBLE = "one\r\ntwo\u200b\u00a0\ufeff\tthree\u202e"


def test_what_is_invisible_is_spelled_in_the_terminal_and_on_the_page(
    little_model, tmp_path, monkeypatch
):
    (tmp_path / "data.json").write_text(json.dumps([{"question": "Why?", "answer": INVISIBLE}]))
    settings = {"data": str(tmp_path / "data.json"), "model": str(little_model)}
    text = printed(monkeypatch, ShowSettings(**settings))
    assert re.search(re.escape(r"two\u200b\xa0\ufeff→") + " +three.u202e<.endoftext.>", text)
    assert "one\\r↵\ntwo" in text
    show(ShowSettings(**settings, html=tmp_path / "page.html"))
    page = (tmp_path / "page.html").read_text()
    body = unescape(re.sub("<[^>]*>", "", page.split('<div class="entry">')[1].split("</div>")[0]))
    assert body.endswith("one\\r↵\ntwo\\u200b\\xa0\\ufeff→\tthree\\u202e<|endoftext|>")


def test_a_text_that_spells_end_of_text_looks_different_from_the_token(
    little_model, tmp_path, monkeypatch
):
    entries = [
        {"question": "A fruit?", "answer": answer} for answer in ("Fig.<|endoftext|>", "Fig.")
    ]
    (tmp_path / "data.json").write_text(json.dumps(entries))
    settings = ShowSettings(data=str(tmp_path / "data.json"), model=str(little_model))
    first, second = printed(monkeypatch, settings).split("entry 1")
    assert "Fig.<·|endoftext|><|endoftext|>" in first and "Fig.<|endoftext|>" in second
    assert "spells <|endoftext|> (with a · here)" in first and "spells" not in second


def test_of_a_large_data_set_only_what_is_printed_is_encoded(little_model, tmp_path, monkeypatch):
    entries = [{"question": f"What is {n}?", "answer": f"{n}"} for n in range(500)]
    (tmp_path / "data.json").write_text(json.dumps(entries))
    texts, encode_text = [], Tokenizer.encode
    monkeypatch.setattr(
        Tokenizer, "encode", lambda self, text: texts.append(text) or encode_text(self, text)
    )
    settings = {"data": str(tmp_path / "data.json"), "model": str(little_model)}
    assert "What is 301?" in printed(monkeypatch, ShowSettings(**settings, first=300, count=2))
    assert len(texts) == 2 * 2


def test_an_entry_that_is_not_there_is_refused(data, little_model):
    with pytest.raises(UserError, match="has 3 entries: first must be below 3"):
        show(ShowSettings(data=data, model=str(little_model), first=3))


def test_a_context_beyond_the_models_is_refused(data, little_model):
    with pytest.raises(UserError, match="context 97 is longer than the 96 of"):
        show(ShowSettings(data=data, model=str(little_model), context=97))
