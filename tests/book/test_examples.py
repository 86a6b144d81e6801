"""The worked examples of the chapters run, and print what the chapters show."""

import doctest
import importlib

import pytest

from book.parse import contents_of, equations_of, read_sources

SOURCES = read_sources()
WITH_EXAMPLES = [module for module, text in SOURCES.items() if ">>> " in text]
MATHEMATICS = (
    "ops/",
    "model/",
    "training/",
    "data/",
    "inference/",
    "alignment/",
    "planning/",
)  # with an example in every chapter


@pytest.mark.parametrize("module", WITH_EXAMPLES)
def test_the_examples_print_what_the_chapter_shows(module):
    name = f"minigpt2.{module.replace('/', '.')}".removesuffix(".__init__")
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted and not result.failed


def test_a_chapter_with_equations_has_an_example():
    chapters = [module for module in contents_of(SOURCES).numbers if module.startswith(MATHEMATICS)]
    with_equations = [module for module in chapters if equations_of(SOURCES[module]).defined]
    assert len(with_equations) > 15
    assert [module for module in with_equations if module not in WITH_EXAMPLES] == []


def test_a_wrong_number_is_noticed():
    wrong = doctest.DocTestParser().get_doctest(">>> print(1 + 1)\n3\n", {}, "wrong", None, None)
    silent = doctest.DocTestRunner(verbose=False)
    silent.run(wrong, out=lambda text: None)
    assert silent.failures == 1
