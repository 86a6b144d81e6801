"""Vocabulary: what is read of its files, and what is said of those that cannot be used."""

import json
import re
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt2.data.tokenizer import Tokenizer, open_tokenizer
from minigpt2.data.vocabulary import (
    END_OF_TEXT,
    byte_of_character,
    bytes_of,
    from_one_file,
    from_two_files,
)
from minigpt2.errors import UserError
from minigpt2.wording import shorten
from tests.data.small import MERGES, files_of, small_tokenizer


def test_the_188_printable_bytes_stand_for_themselves_the_others_follow_from_256_on():
    table = byte_of_character()
    assert len(table) == 256 and set(table.values()) == set(range(256))
    themselves = [character for character, byte in table.items() if ord(character) == byte]
    assert len(themselves) == 188 and all(c.isprintable() and c != " " for c in themselves)
    others = {c: byte for c, byte in table.items() if ord(c) != byte}
    assert [ord(c) for c in others] == list(range(256, 324))
    assert list(others.values()) == sorted(others.values())
    assert table["Ġ"] == 0x20 and table["Ċ"] == 0x0A and table["Ā"] == 0 and table["!"] == 33
    assert list(table)[:3] == ["!", '"', "#"] and list(table)[188] == "Ā"


def test_bytes_of_a_token():
    assert bytes_of("Ġthe") == b" the" and bytes_of("Ã©") == "é".encode()


VOCAB, TXT = files_of(MERGES)


def with_end(value):
    """vocab.json with another id for end-of-text."""
    return json.dumps({**json.loads(VOCAB), END_OF_TEXT: value}).encode()


@pytest.mark.parametrize(
    ("vocab", "merges"),
    [
        (VOCAB[:-5], TXT),
        (b"", TXT),
        (b"[]", TXT),
        (b"3", TXT),
        (b"null", TXT),
        (b"\xff\xfe", TXT),
        (VOCAB, TXT + b"\xff \xfe\n"),
        (VOCAB, TXT + b"h e l\n"),
        (VOCAB, TXT + b"hel\n"),
        (VOCAB, TXT + "h ☃\n".encode()),
        (VOCAB, TXT[: len(TXT) // 2]),
        (VOCAB, b""),
        (VOCAB, TXT + b"w o\n"),
        (VOCAB, b"#version: 0.2\nl l\nh e\nhe ll\n\xc4\xa0 w\n"),
        (VOCAB.replace(b'"hell"', b'"hall"'), TXT),
        (VOCAB.replace(b'"hell"', '"☃"'.encode()), TXT),
        (VOCAB.replace(b"<|endoftext|>", b"<|end|>"), TXT),
        (with_end(5), TXT),
        (with_end(-1), TXT),
        (with_end(1000), TXT),
        (with_end("260"), TXT),
        (with_end(None), TXT),
        (with_end(260.0), TXT),
        (VOCAB.replace(b'"!": 0', b'"!": false'), TXT),
        (VOCAB.replace(b'"!": 0', b'"!": 0, "!": 0'), TXT),
        (VOCAB + b"\xff", TXT),
        (VOCAB, TXT + b"x" * 3000 + b"\n"),
    ],
    ids=range(27),
)
def test_damaged_files_are_a_user_error(vocab, merges):
    with pytest.raises(UserError, match=r"broken/(vocab\.json|merges\.txt)") as refused:
        from_two_files(vocab, merges, "broken")
    assert len(str(refused.value)) < 200


# tokenizer.json.  The library that writes such files says what their ids are.

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
BYTE_LEVEL["trim_offsets"] = True
TEXTS = [
    "Hello, hello worlds!  It's they'll WE'VE\n\n\tnaïve café 東京 12345",
    "the lamp is at the door and the river is green, greener than the lamp " * 3,
    "".join(map(chr, range(32, 600))),
    f"a{END_OF_TEXT}b <unused>",
]


def added(content, number, **changes):
    """An entry of the added tokens."""
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": number, "content": content, **flags, "special": True, **changes}


def described(merges=MERGES, order=1, more=(), as_text=True):
    """A tokenizer.json as a value: end-of-text first, bytes and merges in another order of ids."""
    tokens = [END_OF_TEXT, *list(byte_of_character())[::order], *map("".join, merges), *more]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [added(END_OF_TEXT, 0)],
        "normalizer": None,
        "pre_tokenizer": dict(BYTE_LEVEL),
        "post_processor": None,
        "decoder": dict(BYTE_LEVEL),
        "model": {
            "type": "BPE",
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": [" ".join(pair) if as_text else list(pair) for pair in merges],
        },
    }


def opened(value, folder):
    """The tokenizer of a folder that has this tokenizer.json only."""
    (folder / "tokenizer.json").write_text(json.dumps(value))
    return open_tokenizer(folder)


def trained():
    """What the library learns from a text, with special tokens first."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=[END_OF_TEXT, "<pad>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return json.loads(tokenizer.to_str())


@pytest.mark.parametrize(
    "value",
    [
        described(),
        described(order=-1, as_text=False),
        described(more=["<unused>", "ĠnoĠmerge", "with a space"]),
        trained(),
    ],
    ids=["as GPT-2's", "another order", "tokens that no merge makes", "trained"],
)
def test_tokenizer_json_alone_gives_the_ids_of_the_library_that_writes_it(tmp_path, value):
    tokenizer = opened(value, tmp_path)
    theirs = tokenizers.Tokenizer.from_str(json.dumps(value))
    assert tokenizer.n_vocab == theirs.get_vocab_size() == len(value["model"]["vocab"])
    assert tokenizer.end_of_text == theirs.token_to_id(END_OF_TEXT) == 0
    for text in TEXTS:
        pieces = text.split(END_OF_TEXT)  # text never becomes a special token here
        for piece in pieces:
            assert tokenizer.encode(piece) == theirs.encode(piece).ids
        assert tokenizer.decode(tokenizer.encode(text)) == text
    ids = list(range(tokenizer.n_vocab))
    for start in range(0, len(ids), 7):
        some = ids[start : start + 7]
        assert tokenizer.decode(some) == theirs.decode(some, skip_special_tokens=False)


def test_tokenizer_json_is_saved_and_opened_again(tmp_path):
    tokenizer = opened(described(order=-1), tmp_path)
    again = tmp_path / "again"
    again.mkdir()
    tokenizer.save(again)
    assert [path.name for path in again.iterdir()] == ["tokenizer.json"]
    assert open_tokenizer(again).encode("hello world") == tokenizer.encode("hello world")


def test_files_of_both_kinds_must_agree(tmp_path):
    small_tokenizer(MERGES).save(tmp_path)
    value = described()
    with pytest.raises(UserError, match=r"tokenizer\.json and vocab\.json differ"):
        opened(value, tmp_path)
    value["model"]["vocab"] = json.loads(VOCAB)
    value["added_tokens"] = [added(END_OF_TEXT, len(json.loads(VOCAB)) - 1)]
    tokenizer = opened(value, tmp_path)
    assert tokenizer.encode("hello") == small_tokenizer(MERGES).encode("hello")
    assert set(tokenizer.files) == {"tokenizer.json", "vocab.json", "merges.txt"}


def change(**parts):
    """A change of parts at the top."""
    return lambda value: value | parts


def change_model(**parts):
    """A change of parts of the model."""
    return lambda value: value | {"model": value["model"] | parts}


def change_vocab(**tokens):
    """A change of tokens; None takes one out."""

    def changed(value):
        vocab = {t: i for t, i in (value["model"]["vocab"] | tokens).items() if i is not None}
        return change_model(vocab=vocab)(value)

    return changed


SPLIT = {"type": "Split", "pattern": {"Regex": "x"}, "behavior": "Isolated", "invert": False}
AROUND = {"type": "TemplateProcessing", "single": [{"SpecialToken": {}}, {"Sequence": {}}]}
LAST = len(described()["model"]["vocab"])


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (change_model(type="WordPiece"), "its model is 'WordPiece'; GPT-2's tokenizer has BPE"),
        (change_model(type="Unigram"), "its model is 'Unigram'"),
        (change(normalizer={"type": "NFC"}), "its normalizer is 'NFC'; GPT-2's tokenizer has none"),
        (change(normalizer={"type": "Sequence", "normalizers": [{"type": "NFKC"}]}), "'NFKC'"),
        (change(pre_tokenizer=None), "its pre_tokenizer is None"),
        (change(pre_tokenizer={"type": "Metaspace"}), "'Metaspace'; GPT-2's"),
        (
            change(pre_tokenizer={"type": "Sequence", "pretokenizers": [SPLIT, BYTE_LEVEL]}),
            "its pre_tokenizer is 'Split + ByteLevel'",
        ),
        (change(pre_tokenizer=BYTE_LEVEL | {"add_prefix_space": True}), "add_prefix_space false"),
        (change(pre_tokenizer=BYTE_LEVEL | {"use_regex": False}), "use_regex true"),
        (change(post_processor=AROUND), "its post_processor is 'TemplateProcessing'"),
        (change(decoder={"type": "WordPiece"}), "its decoder is 'WordPiece'"),
        (change_model(dropout=0.1), "its dropout is 0.1"),
        (change_model(continuing_subword_prefix="##"), "continuing_subword_prefix is '##'"),
        (change_model(end_of_word_suffix="</w>"), "end_of_word_suffix is '</w>'"),
        (change_model(ignore_merges=True), "its ignore_merges is True"),
        (change_vocab(**{"!": None, "?!": 1}), "it has no token b'!'"),
        (change_vocab(hell=None), "are not 0 to"),
        (change_vocab(hell=3), "are not 0 to"),
        (change_vocab(**{"!": 1.0}), "are not 0 to"),
        (change_vocab(**{"!": True}), "are not 0 to"),
        (change_vocab(more=LAST + 1), f"are not 0 to {LAST}"),
        (change_model(merges=["h e", "he l", "x"]), "is not a tokenizer.json"),
        (change_model(merges=["he ll"]), "but one of them is not a token yet"),
        (change_model(merges=["x" * 3000 + " h"]), "but one of them is not a token yet"),
        (change_model(merges=["h e", "l l", "he l", "hel l", "Ġ w"]), "it has no token b'hel'"),
        (change(added_tokens=[]), ""),
        (change(added_tokens=[added(END_OF_TEXT, 7)]), "has two ids"),
        (
            change(added_tokens=[added(END_OF_TEXT, 0), added("lamp", LAST, special=False)]),
            "its token 'lamp' is added and not special",
        ),
        (lambda value: {}, "is not a tokenizer.json"),
        (lambda value: [], "is not a tokenizer.json"),
        (change_model(vocab=None), "is not a tokenizer.json"),
        (change_model(merges=3), "is not a tokenizer.json"),
        (change(added_tokens=[3]), "is not a tokenizer.json"),
        (change(pre_tokenizer=3), "is not a tokenizer.json"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_what_gpt2s_tokenizer_cannot_do_is_refused_by_name(tmp_path, changed, words):
    value = changed(described())
    if not words:  # this one is as good without
        assert opened(value, tmp_path).end_of_text == 0
        return
    with pytest.raises(UserError) as refused:
        opened(value, tmp_path)
    text = str(refused.value)
    assert words in text and str(tmp_path / "tokenizer.json") in text and len(text) < 400


def test_without_end_of_text_it_is_refused(tmp_path):
    value = described()
    value["model"]["vocab"]["</s>"] = value["model"]["vocab"].pop(END_OF_TEXT)
    value["added_tokens"] = [added("</s>", 0)]
    with pytest.raises(UserError, match=r"it has no token <\|endoftext\|>"):
        opened(value, tmp_path)


def test_merges_that_the_encoder_would_apply_in_another_way_are_refused(tmp_path):
    """Of b, c and d come bc and cd, and bcd of bc and d; by the order, b and cd are left."""
    merges = [("c", "d"), ("b", "c"), ("bc", "d")]
    value = described(merges)
    theirs = tokenizers.Tokenizer.from_str(json.dumps(value))
    assert theirs.encode("bcd").tokens == ["b", "cd"]
    with pytest.raises(UserError, match="its merges never make its token b'bcd'"):
        opened(value, tmp_path)


def test_a_token_of_several_merges_is_read_if_they_follow_each_other(tmp_path):
    merges = [("a", "b"), ("b", "c"), ("ab", "c"), ("a", "bc"), ("c", "d")]
    value = described(merges)
    value["model"]["vocab"] = {t: i for i, t in enumerate(dict.fromkeys(value["model"]["vocab"]))}
    theirs = tokenizers.Tokenizer.from_str(json.dumps(value))
    tokenizer = opened(value, tmp_path)
    for text in ("abc", "bcd", "abcd abc bc", "abccdab"):
        assert tokenizer.encode(text) == theirs.encode(text).ids
    apart = [*merges[:3], ("c", "d"), ("a", "bc")]
    value["model"]["merges"] = [" ".join(pair) for pair in apart]
    with pytest.raises(UserError, match="it joins b'abc' twice"):
        opened(value, tmp_path)


def test_two_tokens_that_never_meet_may_spell_a_third(tmp_path):
    """Of a and bc would come abc, but where an a is before b and c, ab is joined first."""
    value = described([("a", "b"), ("b", "c"), ("ab", "c")])
    theirs = tokenizers.Tokenizer.from_str(json.dumps(value))
    tokenizer = opened(value, tmp_path)
    for text in ("abc", "bcabc", "aabcc"):
        assert tokenizer.encode(text) == theirs.encode(text).ids


def test_a_file_that_is_not_utf_8_is_named_with_its_byte(tmp_path):
    contents = json.dumps(described(), ensure_ascii=False).encode()
    (tmp_path / "tokenizer.json").write_bytes(contents.replace(b"hell", b"he\xff\xff", 1))
    with pytest.raises(UserError, match=r"tokenizer\.json is not UTF-8 text: .*, byte \d+"):
        open_tokenizer(tmp_path)


def test_a_post_processor_that_adds_nothing_changes_nothing(tmp_path):
    alone = {"Sequence": {"id": "A", "type_id": 0}}
    processor = {"type": "TemplateProcessing", "single": [alone], "pair": [alone]}
    tokenizer = opened(described() | {"post_processor": processor}, tmp_path)
    assert tokenizer.encode("hello") == opened(described(), tmp_path).encode("hello")


@given(
    st.lists(st.tuples(*[st.sampled_from(["a", "b", "ab", "ba", "aa", "bb", "aba"])] * 2)),
    st.data(),
)
@settings(deadline=None, max_examples=200)
def test_whatever_the_merges_the_ids_are_the_librarys_or_it_is_refused(pairs, data):
    known, merges = {"a", "b"}, []
    for left, right in pairs:
        if left in known and right in known and (left, right) not in merges:
            known.add(left + right)
            merges.append((left, right))
    value = described(merges)
    value["model"]["vocab"] = {t: i for i, t in enumerate(dict.fromkeys(value["model"]["vocab"]))}
    try:
        vocabulary = from_one_file(json.dumps(value).encode(), Path("tokenizer.json"))
    except UserError as refused:
        assert "twice" in str(refused) or "never make" in str(refused)
        return
    theirs = tokenizers.Tokenizer.from_str(json.dumps(value))
    tokenizer = Tokenizer(vocabulary, {}, "random")
    for text in data.draw(st.lists(st.text("ab", min_size=1, max_size=12), min_size=5)):
        assert tokenizer.encode(text) == theirs.encode(text).ids


@pytest.mark.parametrize(
    ("merges", "line", "shown"),
    [
        (TXT + b"x" * 60 + b"\n", 6, "x" * 60),
        (TXT + b"x" * 61 + b"\n", 6, shorten("x" * 61, width=60)),
        (b"#version: 0.2\nh\n", 2, "h"),
    ],
)
def test_a_line_that_is_no_merge_is_shown_with_its_number(merges, line, shown):
    with pytest.raises(UserError) as refused:
        from_two_files(VOCAB, merges, "broken")
    assert str(refused.value) == f"broken/merges.txt, line {line}, is not two tokens: {shown!r}"


def test_line_ends_of_windows_are_those_of_the_file(tmp_path):
    merges = TXT.replace(b"\n", b"\r\n")
    assert from_two_files(VOCAB, merges, "here") == from_two_files(VOCAB, TXT, "here")


SEQUENCE = {"type": "Sequence"}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (change_model(merges=["he ll"]), "it joins b'he' and b'll', but one of them is not a"),
        (change_model(merges=["h  e"]), "is not a tokenizer.json: "),
        (
            change(added_tokens=[added(END_OF_TEXT, 0), added("lamp", LAST, special=False)]),
            "its token 'lamp' is added and not special: text that has it is cut in another way "
            "than GPT-2's",
        ),
        (
            change(post_processor=SEQUENCE | {"processors": [AROUND]}),
            "its post_processor is 'TemplateProcessing'; GPT-2's tokenizer has ByteLevel",
        ),
        (
            change(decoder=SEQUENCE | {"decoders": [{"type": "WordPiece"}]}),
            "its decoder is 'WordPiece'; GPT-2's tokenizer has ByteLevel",
        ),
        (
            change(pre_tokenizer={"type": "ByteLevel"}),  # by default it adds a space
            "its pre_tokenizer cuts text in another way than GPT-2's, with add_prefix_space false "
            "and use_regex true",
        ),
    ],
)
def test_what_is_wrong_with_a_tokenizer_is_told_in_full(tmp_path, changed, words):
    with pytest.raises(UserError) as refused:
        opened(changed(described()), tmp_path)
    assert words in str(refused.value)


def test_json_that_is_damaged_is_named(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match=re.escape(f"{tmp_path / 'tokenizer.json'} is not JSON")):
        open_tokenizer(tmp_path)


def test_the_folder_of_damaged_files_is_named_beside_tokenizer_json(tmp_path):
    (tmp_path / "vocab.json").write_bytes(VOCAB)
    (tmp_path / "merges.txt").write_text("#version: 0.2\nhe\n")
    with pytest.raises(UserError, match=re.escape(str(tmp_path / "merges.txt"))):
        opened(described(), tmp_path)


def test_parts_that_may_be_absent_have_gpt2s_defaults(tmp_path):
    value = described() | {"post_processor": dict(BYTE_LEVEL)}
    del value["model"]["type"], value["pre_tokenizer"]["use_regex"]
    assert opened(value, tmp_path).encode("hello") == opened(described(), tmp_path).encode("hello")


def test_two_tokens_never_meet_where_the_last_part_of_the_first_was_joined_before(tmp_path):
    """Of ab and c would come abc, but where a b is before c, bc is joined first."""
    value = described([("b", "c"), ("a", "b"), ("a", "bc")])
    theirs = tokenizers.Tokenizer.from_str(json.dumps(value))
    tokenizer = opened(value, tmp_path)
    for text in ("abc", "bcabc", "aabcc", "abab"):
        assert tokenizer.encode(text) == theirs.encode(text).ids


def test_of_two_equal_tokens_the_second_is_the_younger(tmp_path):
    """Of six a's, four are joined and then two, in this order, which is none of the merges."""
    value = described([("a", "a"), ("aa", "aa"), ("aa", "aaaa")])
    theirs = tokenizers.Tokenizer.from_str(json.dumps(value))
    assert theirs.encode("aaaaaa").tokens == ["aaaa", "aa"]
    with pytest.raises(UserError, match="its merges never make its token b'aaaaaa'"):
        opened(value, tmp_path)
