"""Includes: one text, whose lines are known."""

import re

from minigpt2.device.includes import text_of
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
