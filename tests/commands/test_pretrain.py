"""Pretraining: how the text becomes steps, and that the shipped base is what it says."""

import json
from itertools import islice

import numpy as np
import pytest

from minigpt2.commands import pretrain as chapter
from minigpt2.commands.pretrain import PretrainSettings, almanac_texts, words_of
from minigpt2.data import documents as chapter_of_text
from minigpt2.data.almanac import documents
from minigpt2.data.documents import DocumentBatches, as_root, longest_piece, pieces
from minigpt2.inference.model import open_model
from minigpt2.model.config import TINY, GPT2Config
from minigpt2.shipped import shipped

STORY = "Zinc\nZinc is a metal. Its symbol is Zn.\nTom had 9 eggs. He ate 5.\n8 + 9 = 17.\nThe end."


@pytest.mark.parametrize("longest", [1, 8, 16, 1000])
def test_pieces_are_whole_units_and_nothing_is_lost(tokenizer, longest):
    runs = [tokenizer.decode(ids) for ids in pieces(STORY, tokenizer, longest)]
    assert "\n".join(runs) == STORY
    assert all(run[0].isalnum() and run[-1] == "." for run in runs)
    assert runs[0].startswith("Zinc\nZinc is a metal. Its symbol is Zn.")
    assert len(runs) == (4 if longest == 1 else len(runs)) and (longest < 1000 or len(runs) == 1)


def test_a_piece_has_at_most_the_longest_number_of_ids_if_a_unit_fits(tokenizer):
    for text in islice(documents(np.random.default_rng(0)), 50):
        for ids in pieces(text, tokenizer, 100):
            assert len(ids) <= 100


def test_a_root_begins_and_ends_with_end_of_text_and_all_but_the_first_is_a_target():
    root = as_root([5, 6, 7], stop=99, context=10, number=3)
    assert root.answers == [3] * 5
    assert root.ids == [99, 5, 6, 7, 99]
    assert root.weights == [0.0, 1.0, 1.0, 1.0, 1.0]
    assert as_root([5, 6, 7], stop=99, context=2).ids == [99, 5, 6]


def test_a_step_holds_whole_pieces_and_at_most_so_many_rows(tokenizer):
    data = DocumentBatches(lambda: almanac_texts(0), tokenizer, context=256, steps=5500, rows=200)
    place = 0, 0
    for _ in range(20):
        (batch,), *place = data.at(*place)
        assert 100 < len(batch.ids) <= 200
        assert len(batch.targets) == len(batch.ids)
        assert batch.ids[0] == tokenizer.end_of_text
        assert batch.targets[-1] == tokenizer.end_of_text


def test_a_step_out_of_turn_is_the_one_of_its_place(tokenizer):
    def data():
        texts = lambda: almanac_texts(7)  # noqa: E731
        return DocumentBatches(texts, tokenizer, context=256, steps=9, rows=100)

    in_turn = data()
    expected = [in_turn.at(0, number) for number in range(9)]
    again = data()
    for number in (5, 2, 3, 8, 0):
        (batch,), epoch, position = again.at(0, number)
        assert (epoch, position) == (0, number + 1)
        np.testing.assert_array_equal(batch.ids, expected[number].batches[0].ids)


def test_tokens_that_spell_one_word_have_one_number(tokenizer):
    numbers = words_of(tokenizer)
    spelled = {}
    for token, number in enumerate(numbers.tolist()):
        spelled.setdefault(number, []).append(tokenizer.bytes_of(token))
    assert sorted(spelled) == list(range(len(spelled))) and len(numbers) == tokenizer.n_vocab
    one = next(forms for forms in spelled.values() if b"a" in forms)
    assert {b"a", b"A"} <= set(one) <= {b"a", b"A", b" a", b" A"}


def test_text_is_plain_until_pieces_grow(tokenizer):
    drawn = {"plain": 0, "all": 0}

    def telling(kind):
        while True:
            drawn[kind] += 1
            yield "Zinc is a metal."

    texts = lambda: (telling("plain"), telling("all"))  # noqa: E731
    data = DocumentBatches(texts, tokenizer, context=256, steps=20, rows=100)
    seen = [(data.at(0, number), dict(drawn))[1] for number in range(20)]
    assert seen[6]["plain"] and not seen[6]["all"]
    assert seen[-1]["plain"] == seen[8]["plain"] and seen[-1]["all"] > seen[8]["all"] > 0


def test_pieces_are_short_at_first_and_whole_documents_at_last():
    lengths = [longest_piece(step, 1000, 256) for step in range(1, 1001)]
    assert lengths == sorted(lengths)
    assert set(lengths[:350]) == {chapter_of_text.SHORT}
    assert set(lengths[550:]) == {256}


def test_a_short_pretraining_leaves_a_model_that_opens(tmp_path, tokenizer, monkeypatch):
    little = GPT2Config(tokenizer.n_vocab, n_positions=64, n_embd=16, n_layer=2, n_head=2)
    monkeypatch.setattr(chapter, "TINY", little)
    monkeypatch.setattr(chapter, "almanac_tokenizer", lambda n_vocab: tokenizer)
    settings = PretrainSettings(out=tmp_path / "run", steps=30, rows=300, warmup=5)
    summary = chapter.pretrain(settings)
    log = (tmp_path / "run/log.jsonl").read_text()
    losses = [json.loads(line)["loss"] for line in log.splitlines()]
    assert losses[-1] < losses[0] - 0.3
    assert summary["done"]["tokens"] > 30 * 200
    assert (tmp_path / "run/base/model.safetensors").is_file()


def test_the_shipped_base_has_the_shape_and_the_size_that_are_told():
    folder = shipped("weights/tiny")
    config = GPT2Config.load(folder / "config.json")
    assert config == TINY
    assert 3_000_000 <= config.n_parameters <= 5_000_000
    assert f"{config.n_parameters:,}" in (folder / "README.md").read_text()
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 10 * 2**20


def test_a_step_that_no_machine_can_hold_is_refused_before_anything_is_made(run, tmp_path):
    outcome = run("pretrain", "--rows", "1000000000", "--steps", "1", "--out", "run")
    assert outcome.code == 2 and "a step of 1,000,000,000 tokens would take" in outcome.err
    assert not (tmp_path / "run").exists()


def test_pretraining_goes_on_from_a_model(tmp_path, little_model):
    settings = PretrainSettings(out=tmp_path / "run", start=str(little_model), steps=1, rows=90)
    assert chapter.pretrain(settings)["done"]["tokens"] > 0
    assert (
        open_model(str(tmp_path / "run")).parameters.config
        == open_model(str(little_model)).parameters.config
    )


def test_the_vocabulary_is_learnt_from_the_text_and_the_questions(monkeypatch):
    monkeypatch.setattr(chapter, "SAMPLE", 5)
    monkeypatch.setattr(chapter, "REPEATS", 1)
    learnt = chapter.almanac_tokenizer(300)
    assert learnt.n_vocab == 300 and len(learnt.encode(" the")) == 1
