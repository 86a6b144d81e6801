"""Equations in the heads of the kernels' files: they are computed below, and are the chapters'."""

import re

import pytest

from minigpt2.shipped import shipped
from tests.book.parse import docstring_lines, read_sources

FILES = sorted(path.name for path in shipped("kernels").glob("*.cu"))
NUMBER = r"\((\d+\.\d+)\)"
# Equations that a kernel writes in its own words, and why.
OWN_WORDS = {
    "x = h + b, where there is a bias": "the kernel adds the bias that linear (2.1) leaves out",
    "dtable[v] += Σ_{n : index[n] = v} dx[n]": "one kernel for both tables, (3.2) and (3.3)",
}


def equations_in_chapters():
    """The text of each equation that a docstring defines, by its number."""
    equations = {}
    for text in read_sources().values():
        for _, line in docstring_lines(text):
            if match := re.fullmatch(rf"\s+(\S.*?)\s\s+{NUMBER}\s*", line):
                equations[match[2]] = match[1]
    return equations


def equations_in_head(file):
    """(equation, numbers) of each equation in the comment that a kernel's file begins with."""
    for line in (shipped("kernels") / file).read_text(encoding="utf-8").splitlines():
        if not line.startswith("//"):
            return
        if match := re.fullmatch(rf"//\s+(\S.*?)\s\s+((?:{NUMBER} ?)+)", line):
            yield match[1], re.findall(NUMBER, match[2])


def terms_of(equation):
    """What an equation says is equal: {'o', 'a / ℓ'}.

    Spaces do not matter, nor brackets around a whole term; keep factors z are left out, since no
    kernel drops probabilities.
    """
    equation = re.sub(r"zᵢⱼ ", "", " ".join(equation.split()))
    terms = [term.strip() for term in re.split(r" (?:=|⟺) ", equation)]
    return {re.sub(r"^\(([^()]*)\)$", r"\1", term) for term in terms}


def agrees(equation, chapters):
    """Whether an equation says nothing but what its chapter says; it may leave out middle terms."""
    return len(terms_of(equation)) > 1 and terms_of(equation) <= terms_of(chapters)


@pytest.mark.parametrize("file", FILES)
def test_every_equation_of_the_head_is_computed_and_none_other(file):
    lines = (shipped("kernels") / file).read_text(encoding="utf-8").splitlines()
    first_code = next(n for n, line in enumerate(lines) if not line.startswith("//"))
    head = {tag for line in lines[:first_code] for tag in re.findall(r"\(\d+\.\d+\)", line)}
    code = {tag for line in lines[first_code:] for tag in re.findall(r"\(\d+\.\d+\)", line)}
    assert head == code


@pytest.mark.parametrize("file", FILES)
def test_every_equation_of_the_head_is_that_of_its_chapter(file):
    chapters, compared = equations_in_chapters(), 0
    for equation, numbers in equations_in_head(file):
        compared += 1
        if equation not in OWN_WORDS and "←" not in equation:
            assert agrees(equation, chapters[numbers[0]]), f"({numbers[0]}): {equation}"
        elif equation not in OWN_WORDS:
            assert equation == chapters[numbers[0]], f"({numbers[0]}): {equation}"
    assert compared


def test_every_exception_is_needed():
    heads = {equation for file in FILES for equation, _ in equations_in_head(file)}
    assert heads >= set(OWN_WORDS)


@pytest.mark.parametrize(
    ("equation", "chapters", "right"),
    [
        ("oᵢ = a / ℓ", "oᵢ = a / ℓ", True),
        ("Δᵢ = doᵢ · oᵢ", "Δᵢ = Σⱼ pᵢⱼ zᵢⱼ (doᵢ · vⱼ) = doᵢ · oᵢ", True),
        ("dpᵢⱼ = doᵢ · vⱼ", "dpᵢⱼ = zᵢⱼ (doᵢ · vⱼ)", True),
        ("p = exp(ℓ − λ)", "∂λ/∂ℓ = exp(ℓ − λ) = p", True),
        ("oᵢ = ℓ / a", "oᵢ = a / ℓ", False),
        ("dsᵢₙ = pᵢₙ (dpᵢₙ + Δᵢ)", "dsᵢₙ = pᵢₙ (dpᵢₙ − Δᵢ)", False),
        ("oᵢ", "oᵢ = a / ℓ", False),
    ],
)
def test_a_wrong_equation_is_noticed(equation, chapters, right):
    assert agrees(equation, chapters) == right
