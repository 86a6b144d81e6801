"""Fingerprint: every change of what a run depends on changes it, and nothing else does."""

import platform
from hashlib import sha256
from pathlib import Path
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigpt2 import __version__
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


def test_digests_are_those_of_checkpoints_that_were_written_before():
    """Counts and ids are 64-bit numbers, marks are bytes; records are text."""
    examples = [Example([7, 8, 50_000], [False, True, True]), Example([9], [True])]
    first = pack("<4q", 3, 7, 8, 50_000) + bytes([0, 1, 1])
    whole = pack("<q", 2) + first + pack("<2q", 1, 9) + bytes([1]) + pack("<q", 0)
    assert digest_of_examples([examples, []]) == sha256(whole).hexdigest()
    text = "[('a', 'b', 'ć', 's', (), '')][]"
    records = [Record("a", "b", "ć", system="s")]
    assert digest_of_records([records, []]) == sha256(text.encode()).hexdigest()
    plain = records[0]
    preferences = [plain._replace(rejected=r, kind=k) for r in ("", "d") for k in ("", "cut")]
    assert len({digest_of_records([[record]]) for record in [plain, *preferences]}) == 5


@pytest.fixture
def kernels(tmp_path, monkeypatch):
    """An empty folder in the place of that of the kernels."""
    folders = {"kernels": tmp_path}
    monkeypatch.setattr(fingerprint, "shipped", folders.__getitem__)
    return tmp_path


def test_the_code_is_that_of_the_modules(kernels):
    digest, root = sha256(), Path(fingerprint.__file__).parents[1]
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root)}".encode() + path.read_bytes())
    assert digest_of_code() == digest.hexdigest()
    assert versions("cpu")["version"] == f"{__version__} ({digest.hexdigest()[:12]})"


@pytest.mark.parametrize("ending", ["py", "cu", "cuh", "h", "cpp"])
def test_the_code_is_that_of_the_kernels_too(kernels, ending):
    digests = [digest_of_code()]
    for name in (f"extra.{ending}", f"more/extra.{ending}"):
        (kernels / name).parent.mkdir(exist_ok=True)
        (kernels / name).write_text("// one more kernel")
        digests.append(digest_of_code())
    assert len(set(digests)) == 3
    (kernels / "notes.md").write_text("words")
    assert digest_of_code() == digests[-1]


def test_what_has_changed_is_said_with_what_it_was():
    now = versions("cpu: NumPy")
    assert changes(now, now) == []
    assert changes(now | {"NumPy": "9.9"}, now) == [f"NumPy: 9.9, was {now['NumPy']}"]
    assert changes(now, {}) == []
    assert (
        now["CPU"] == fingerprint.cpu() and now["cores"].isdigit() and now["device"] == "cpu: NumPy"
    )


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="Linux describes its CPU there")
def test_a_cpu_has_the_name_that_linux_gives_it(monkeypatch, tmp_path):
    assert str(fingerprint.CPU) == "/proc/cpuinfo"
    monkeypatch.setattr(fingerprint, "CPU", tmp_path / "cpuinfo")
    lines = ["processor\t: 0", "model name\t: Some CPU @ 3.00GHz", "flags\t\t: fpu", ""]
    fingerprint.CPU.write_text("\n".join(lines) * 2)
    assert fingerprint.cpu() == "Some CPU @ 3.00GHz"
    fingerprint.CPU.write_text("processor\t: 0\nFeatures\t: fp\n")
    assert fingerprint.cpu() == (platform.processor() or platform.machine())


def test_a_machine_without_a_description_of_its_cpu_has_a_name(monkeypatch, tmp_path):
    monkeypatch.setattr(fingerprint, "CPU", tmp_path / "none")
    assert fingerprint.cpu()
