"""Includes: one text, whose lines are known."""

import re

from minigpt2.device.includes import expanded_lines, text_of
from minigpt2.shipped import shipped


def test_included_text_keeps_its_lines():
    number, file, compared = 0, "", 0
    originals = {
        path.name: path.read_text(encoding="utf-8").splitlines()
        for path in shipped("kernels").glob("*.cu*")
    }
    for line in text_of("layer_norm.cu").splitlines():
        directive = re.fullmatch(r'#line (\d+) "(.*)"', line)
        if directive:
            number, file = int(directive[1]), directive[2]
            continue
        assert originals[file][number - 1] == line
        number, compared = number + 1, compared + 1
    assert compared > 150


def test_a_file_is_included_once(tmp_path):
    (tmp_path / "a.cu").write_text('#include "b.cuh"\n#include "c.cuh"\nkernel\n')
    (tmp_path / "b.cuh").write_text('#include "c.cuh"\nfrom b\n')
    (tmp_path / "c.cuh").write_text("from c\n")
    lines = expanded_lines(tmp_path, "a.cu", set())
    assert [line for line in lines if line[0] != "#"] == ["from c", "from b", "kernel"]
    assert lines[-2:] == ['#line 3 "a.cu"', "kernel"]
