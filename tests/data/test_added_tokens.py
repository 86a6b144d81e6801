"""Added tokens: special tokens in a file of their own."""

import json

import pytest

from minigpt2.data.tokenizer import open_tokenizer
from minigpt2.errors import UserError
from tests.data.small import small_tokenizer
from tests.data.test_vocabulary import MERGES, VOCAB, added, described

FIRST = len(json.loads(VOCAB))  # the id after those of the vocabulary


@pytest.fixture
def folder(tmp_path):
    """The folder of a small tokenizer in two files."""
    small_tokenizer(MERGES).save(tmp_path)
    return tmp_path


def add(folder, tokens):
    """Write the file of added tokens."""
    (folder / "added_tokens.json").write_text(json.dumps(tokens), encoding="utf-8")


def test_added_tokens_have_the_ids_after_the_vocabularys_and_no_text_becomes_them(folder):
    plain = open_tokenizer(folder)
    add(folder, {"[PAD]": FIRST, "<|endoftext|>": plain.end_of_text, "[SEP]": FIRST + 1})
    tokenizer = open_tokenizer(folder)
    assert tokenizer.n_vocab == plain.n_vocab + 2 == FIRST + 2
    assert tokenizer.decode([FIRST, *plain.encode("hello"), FIRST + 1]) == "[PAD]hello[SEP]"
    assert tokenizer.encode("[PAD]") == plain.encode("[PAD]")
    again = folder / "again"
    again.mkdir()
    tokenizer.save(again)
    assert open_tokenizer(again).decode([FIRST]) == "[PAD]"


def test_tokenizer_json_may_have_tokens_that_the_vocabulary_lacks(folder):
    """As transformers 4 writes a tokenizer with an added token: in four files."""
    value = described()
    value["model"]["vocab"] = json.loads(VOCAB)
    value["added_tokens"] = [added("<|endoftext|>", FIRST - 1), added("[PAD]", FIRST)]
    (folder / "tokenizer.json").write_text(json.dumps(value), encoding="utf-8")
    add(folder, {"[PAD]": FIRST})
    tokenizer = open_tokenizer(folder)
    assert tokenizer.n_vocab == FIRST + 1 and tokenizer.decode([FIRST]) == "[PAD]"
    assert len(tokenizer.files) == 4


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (["[PAD]"], "does not map tokens to ids"),
        ({"[PAD]": "7"}, "does not map tokens to ids"),
        ({"[PAD]": FIRST + 1}, "are not"),
        ({"[PAD]": FIRST - 1}, "are not"),
        ({"[PAD]": FIRST, "[SEP]": FIRST}, "are not"),
    ],
)
def test_ids_that_do_not_follow_are_refused(folder, tokens, words):
    add(folder, tokens)
    with pytest.raises(UserError, match=rf"added_tokens\.json.* {words}"):
        open_tokenizer(folder)
