"""Equations in the heads of the kernels' files."""

import re

import pytest

from minigpt2.shipped import shipped

FILES = sorted(path.name for path in shipped("kernels").glob("*.cu"))


@pytest.mark.parametrize("file", FILES)
def test_every_equation_of_the_head_is_computed_and_none_other(file):
    lines = (shipped("kernels") / file).read_text(encoding="utf-8").splitlines()
    first_code = next(n for n, line in enumerate(lines) if not line.startswith("//"))
    head = {tag for line in lines[:first_code] for tag in re.findall(r"\(\d+\.\d+\)", line)}
    code = {tag for line in lines[first_code:] for tag in re.findall(r"\(\d+\.\d+\)", line)}
    assert head == code
