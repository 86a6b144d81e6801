"""Equations in the heads of the kernels' files: the code computes them, and they are the chapters'.

A head may differ from its chapter only where DIFFERENCES says so, and only in that way.
"""

import re
from functools import cache

import pytest

from book.parse import docstring_lines, read_sources
from minigpt2.shipped import shipped

FILES = sorted(path.name for path in shipped("kernels").glob("*.cu"))
NUMBER = r"\((\d+\.\d+)\)"


def without_keep_factors(equation):
    """A chapter's equation without dropout: z = 1, and no brackets around what is left."""
    return re.sub(r"= \(([^()]*)\)$", r"= \1", equation.replace("zᵢⱼ ", ""))


def without_middle_terms(equation):
    """The first and the last term of a chain of equalities, without what follows a comma."""
    first, *_, last = without_keep_factors(equation).split(" = ")
    return f"{first} = {last}"


# What a head may do to a chapter's equation, and why.
NO_DROPOUT = without_keep_factors, "no kernel drops probabilities"
RESULT = without_middle_terms, "the middle terms are steps of the derivation"


def written_as(equation):
    """A head's own way to write an equation."""
    return lambda _: equation


DIFFERENCES = {
    ("attention.cu", "8.9"): NO_DROPOUT,
    ("attention.cu", "8.10"): RESULT,
    ("attention.cu", "8.11"): (
        written_as("λᵢ = m + ln ℓ"),
        "the kernel has m and ℓ, not the sum over all keys",
    ),
    ("attention_dkv.cu", "8.13"): NO_DROPOUT,
    ("attention_dkv.cu", "8.14"): NO_DROPOUT,
    ("attention_dkv.cu", "8.17"): RESULT,
    ("attention_dq.cu", "8.14"): NO_DROPOUT,
    ("attention_dq.cu", "8.17"): RESULT,
    ("attention_delta.cu", "8.18"): RESULT,
    ("attention_mma_dq.cu", "8.18"): RESULT,  # without tensor cores Δ has a file of its own
    ("cross_entropy.cu", "9.5"): (
        written_as("pₙᵥ = exp(ℓₙᵥ − λₙ)"),
        "the kernel needs p, not that it is a derivative",
    ),
    ("decode_attention.cu", "8.9"): NO_DROPOUT,
    ("embedding.cu", "3.2"): (
        written_as("dtable[v] += Σ_{n : index[n] = v} dx[n]"),
        "one kernel adds to both tables, (3.2) and (3.3), in the order of (3.4)",
    ),
    ("gelu.cu", "2.1"): (written_as("x = h + b"), "the kernel adds the bias of the linear map"),
    ("gelu.cu", "2.4"): (
        written_as("dbₖ = Σₙ dxₙₖ"),
        "the gradient of the linear map's output is dx",
    ),
    ("gelu.cu", "5.2"): RESULT,
    ("gelu.cu", "5.6"): RESULT,
    ("layer_norm.cu", "4.8"): RESULT,
}
DIFFERENCES |= {  # on tensor cores the equations are the same
    (file.replace("attention", "attention_mma"), number): difference
    for (file, number), difference in DIFFERENCES.items()
    if file.startswith("attention") and file.replace("attention", "attention_mma") in FILES
}


@cache
def equations_in_chapters():
    """The text of each equation that a docstring defines, by its number."""
    equations = {}
    for text in read_sources().values():
        for _, line in docstring_lines(text):
            if match := re.fullmatch(rf"\s+(\S.*?)\s\s+{NUMBER}\s*", line):
                equations[match[2]] = " ".join(match[1].split())
    return equations


def head_of(file):
    """The comment that a kernel's file begins with, and the code after it, as lines."""
    lines = (shipped("kernels") / file).read_text(encoding="utf-8").splitlines()
    code = next(number for number, line in enumerate(lines) if not line.startswith("//"))
    return lines[:code], lines[code:]


def equations_in(head):
    """(first number, equation) of each equation in a head."""
    for line in head:
        if match := re.fullmatch(rf"//\s+(\S.*?)\s\s+((?:{NUMBER} ?)+)", line):
            yield re.findall(NUMBER, match[2])[0], " ".join(match[1].split())


def faults_of(file, head, chapters, differences):
    """Equations of a head that are not their chapter's, and differences that do not exist."""
    faults, unused = [], {number for where, number in differences if where == file}
    for number, equation in equations_in(head):
        chapter, expected = chapters[number], chapters[number]
        if (file, number) in differences:
            expected = differences[file, number][0](chapter)
            if expected != chapter:
                unused.discard(number)
        if equation != expected:
            faults.append(f"{file} ({number}): {equation!r}, not {expected!r}")
    return faults + [
        f"{file} ({number}): the listed difference does not exist" for number in unused
    ]


@pytest.mark.parametrize("file", FILES)
def test_every_equation_of_the_head_is_computed_and_none_other(file):
    head, code = (set(re.findall(NUMBER, "\n".join(lines))) for lines in head_of(file))
    assert head == code


@pytest.mark.parametrize("file", FILES)
def test_every_equation_of_the_head_is_that_of_its_chapter(file):
    head, _ = head_of(file)
    assert list(equations_in(head))
    assert faults_of(file, head, equations_in_chapters(), DIFFERENCES) == []


def test_every_difference_is_of_a_kernel_and_has_a_reason():
    assert {file for file, _ in DIFFERENCES} <= set(FILES)
    assert all(reason for _, reason in DIFFERENCES.values())


CHAPTERS = {
    "8.10": "oᵢ = a / ℓ",
    "8.14": "dpᵢⱼ = zᵢⱼ (doᵢ · vⱼ)",
    "8.17": "dsᵢₙ = Σⱼ dpᵢⱼ pᵢⱼ (δⱼₙ − pᵢₙ) = pᵢₙ (dpᵢₙ − Δᵢ)",
}
HEAD = [
    "// Attention.",
    "//     oᵢ = a / ℓ                (8.10)",
    "//     dpᵢⱼ = doᵢ · vⱼ           (8.14)",
    "//     dsᵢₙ = pᵢₙ (dpᵢₙ − Δᵢ)    (8.17)",
]
LISTED = {("a.cu", "8.14"): NO_DROPOUT, ("a.cu", "8.17"): RESULT}


def test_listed_differences_are_no_faults():
    assert faults_of("a.cu", HEAD, CHAPTERS, LISTED) == []


@pytest.mark.parametrize(
    ("number", "change", "listed", "fault"),
    [
        ("8.10", ("a / ℓ", "ℓ / a"), {}, "(8.10): 'oᵢ = ℓ / a', not 'oᵢ = a / ℓ'"),
        ("8.14", ("vⱼ", "kⱼ"), {}, "(8.14): 'dpᵢⱼ = doᵢ · kⱼ', not 'dpᵢⱼ = doᵢ · vⱼ'"),
        ("8.14", ("= doᵢ · vⱼ", "= zᵢⱼ (doᵢ · vⱼ)"), {}, "(8.14): 'dpᵢⱼ = zᵢⱼ (doᵢ · vⱼ)', not"),
        ("8.17", ("−", "+"), {}, "(8.17): 'dsᵢₙ = pᵢₙ (dpᵢₙ + Δᵢ)', not"),
        ("8.10", ("", ""), {("a.cu", "8.10"): RESULT}, "(8.10): the listed difference does not"),
        ("8.10", ("", ""), {("a.cu", "8.11"): RESULT}, "(8.11): the listed difference does not"),
    ],
)
def test_another_difference_is_a_fault(number, change, listed, fault):
    head = [line.replace(*change) if f"({number})" in line else line for line in HEAD]
    faults = faults_of("a.cu", head, CHAPTERS, LISTED | listed)
    assert len(faults) == 1 and fault in faults[0]


def test_a_difference_that_the_chapter_no_longer_has_is_a_fault():
    chapters = CHAPTERS | {"8.14": "dpᵢⱼ = doᵢ · vⱼ"}
    (fault,) = faults_of("a.cu", HEAD, chapters, LISTED)
    assert fault == "a.cu (8.14): the listed difference does not exist"


def test_no_line_of_a_kernel_is_longer_than_100_columns():
    for path in shipped("kernels").rglob("*.*"):
        if path.suffix in (".cu", ".cuh", ".h", ".cpp"):
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                assert len(line) <= 100, f"{path.name}:{number}"
