"""Fingerprint: every change of what a run depends on changes it, and nothing else does."""

from hypothesis import given
from hypothesis import strategies as st

from minigpt2.data.examples import Example
from minigpt2.data.records import Record
from minigpt2.training import fingerprint
from minigpt2.training.fingerprint import (
    changes,
    digest_of_code,
    digest_of_examples,
    digest_of_records,
    versions,
)

EXAMPLES = st.lists(
    st.lists(st.tuples(st.integers(0, 50_000), st.booleans()), max_size=4).map(
        lambda pairs: Example([i for i, _ in pairs], [part for _, part in pairs])
    ),
    max_size=4,
)
PARTS = st.lists(EXAMPLES, max_size=3)
TEXTS = st.text(max_size=3)
RECORDS = st.lists(st.lists(st.builds(Record, TEXTS, TEXTS, TEXTS), max_size=2), max_size=2)


def plain(parts):
    """The ids and marks of examples, part by part."""
    return [[(example.ids, example.is_answer) for example in part] for part in parts]


@given(PARTS, PARTS)
def test_examples_have_one_digest_if_they_are_the_same(parts, others):
    same = plain(parts) == plain(others)
    assert (digest_of_examples(parts) == digest_of_examples(others)) == same


@given(RECORDS, RECORDS)
def test_so_have_records(parts, others):
    assert (digest_of_records(parts) == digest_of_records(others)) == (parts == others)


def test_a_token_moved_to_the_next_example_or_part_is_noticed():
    one, two = Example([1], [True]), Example([2], [True])
    both, none = Example([1, 2], [True, True]), Example([], [])
    cases = [[[one, two]], [[one], [two]], [[both]], [[both, none]], [[none, both]], [[two, one]]]
    assert len({digest_of_examples(parts) for parts in cases}) == len(cases)


def test_the_code_is_that_of_the_modules_and_kernels(tmp_path, monkeypatch):
    before = digest_of_code()
    assert digest_of_code() == before and before[:12] in versions("cpu")["version"]
    (tmp_path / "extra.cu").write_text("// one more kernel")
    monkeypatch.setattr(fingerprint, "shipped", lambda name: tmp_path)
    assert digest_of_code() != before


def test_what_has_changed_is_said_with_what_it_was():
    now = versions("cpu: NumPy")
    assert changes(now, now) == []
    assert changes(now | {"NumPy": "9.9"}, now) == [f"NumPy: 9.9, was {now['NumPy']}"]
    assert changes(now, {}) == []
    assert now["CPU"] and now["cores"].isdigit() and now["device"] == "cpu: NumPy"


def test_a_machine_without_a_description_of_its_cpu_has_a_name(monkeypatch, tmp_path):
    monkeypatch.setattr(fingerprint, "CPU", tmp_path / "none")
    assert fingerprint.cpu()
