"""Training a tokenizer: ids in GPT-2's order, digits apart, the same text the same files."""

import json
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt2.data.tokenizer import open_tokenizer
from minigpt2.data.train_tokenizer import train_tokenizer
from minigpt2.data.vocabulary import END_OF_TEXT, byte_of_character, bytes_of
from minigpt2.errors import UserError

TEXTS = [f"The sum of {n} and {n} is {2 * n}, says the cat's café." for n in range(100, 150)]
SIZE = 276
TRAINED = train_tokenizer(TEXTS, SIZE)
VOCAB = json.loads(TRAINED.files["vocab.json"])
MERGES = [line.split(" ") for line in TRAINED.files["merges.txt"].decode().splitlines()[1:]]


def test_ids_are_bytes_then_merges_then_end_of_text():
    assert list(VOCAB.values()) == list(range(SIZE)) and TRAINED.n_vocab == SIZE
    assert list(VOCAB)[:256] == list(byte_of_character())
    assert list(VOCAB)[256:-1] == [left + right for left, right in MERGES]
    assert list(VOCAB)[-1] == END_OF_TEXT and TRAINED.end_of_text == SIZE - 1
    assert len(MERGES) == SIZE - 257


def test_digits_are_never_merged():
    for token in list(VOCAB)[256:-1]:
        assert not any(chr(byte).isdigit() for byte in bytes_of(token)), token
    for number in ("7", "42", "100", "149", "1234567890"):
        for text in (number, f"The sum of {number}", f"x{number}y", f" {number}."):
            pieces = [TRAINED.decode([i]) for i in TRAINED.encode(text)]
            assert [p for p in pieces if any(map(str.isdigit, p))] == list(number)


def test_what_is_frequent_becomes_short():
    assert len(TRAINED.encode(" sum")) == 1
    assert len(TRAINED.encode(" zyx")) == 4


@given(st.text() | st.sampled_from(TEXTS))
@settings(deadline=None)
def test_a_learnt_tokenizer_round_trips(text):
    assert TRAINED.decode(TRAINED.encode(text)) == text


def test_a_text_with_few_pairs_gives_a_smaller_vocabulary():
    trained = train_tokenizer(["ab ab"], 1000)
    assert trained.n_vocab == 256 + 2 + 1  # ab, and a blank before it
    assert trained.end_of_text == 258


@given(st.lists(st.text("ab ", max_size=12), min_size=1, max_size=6), st.integers(257, 290))
@settings(deadline=None, max_examples=50)
def test_any_texts_can_be_learnt_from(texts, size):
    trained = train_tokenizer(texts, size)
    assert trained.n_vocab <= size
    for text in texts:
        assert trained.decode(trained.encode(text)) == text


def test_the_same_text_gives_the_same_files():
    assert train_tokenizer(iter(TEXTS), SIZE).files == TRAINED.files


def test_a_learnt_tokenizer_opens_from_its_folder(tmp_path):
    TRAINED.save(tmp_path)
    assert open_tokenizer(tmp_path).encode(TEXTS[0]) == TRAINED.encode(TEXTS[0])


def test_without_the_library_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(UserError) as refused:
        train_tokenizer(TEXTS, 300)
    assert str(refused.value) == (
        "training a tokenizer needs the package `tokenizers`: pip install 'minigpt2[pretrain]'"
    )


def test_a_number_is_spelled_digit_by_digit_however_frequent_it_is():
    assert train_tokenizer(["12 12 12 12 345 345"] * 9, 300).n_vocab == 257
