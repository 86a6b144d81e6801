"""A terminal in memory: a stream that says that it is one."""

import io
import re

# What rich writes by itself: colours, a hidden cursor, lines that are erased and written anew.
OWN = re.compile(r"\x1b\[[0-9;]*m|\x1b\[\?25[lh]|\x1b\[[12]?[AK]|\r|\x1b\]8;[^\x1b]*\x1b\\")
CODES = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u206f\ud800-\udfff]")


class FakeTerminal(io.TextIOWrapper):
    """A text stream into memory that says it is a terminal."""

    def __init__(self, encoding="utf-8", errors="strict"):
        super().__init__(io.BytesIO(), encoding, errors=errors, newline="", write_through=True)

    def isatty(self):
        """Yes."""
        return True

    def text(self):
        """What was written."""
        return self.buffer.getvalue().decode(self.encoding)


def control_codes(text):
    """The control codes in what was written, without those of colours and bars."""
    return set(CODES.findall(OWN.sub("", text)))
