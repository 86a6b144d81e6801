"""Standard input, output and errors: closed, full, or with other contents."""

from tests.inputs.row import LITTLE, refused, works

FULL = "/dev/full"
SHORT = "--max-new-tokens 2"

# fmt: off
# ruff: noqa: E501 (a row is a line)
ROWS = [
    works("no standard output in a run", f"train ok.json --out run {LITTLE}", "", closed=(1,), makes="run"),
    works("no standard output for an answer", f"answer hi {SHORT}", "", closed=(1,)),
    works("no standard output for the help", "--help", "", closed=(1,)),
    works("no standard input for a chat", f"chat {SHORT}", "", closed=(0,)),
    works("no standard input for a text", f"generate {SHORT}", "", closed=(0,)),
    works("no standard error", f"answer hi {SHORT}", "", closed=(2,)),
    works("no stream at all", f"answer hi {SHORT}", "", closed=(0, 1, 2)),
    refused("no standard error for an error", "train no.json", "", closed=(2,)),
    refused("a full disk for a page of help", "--help", "standard output: No space left on device", printed=FULL),
    refused("a full disk for the settings", "train --print-config", "standard output: No space left on device", printed=FULL),
    refused("a full disk for a text", f"generate hi {SHORT}", "standard output: No space left on device", printed=FULL),
    refused("a full disk for a table", "stats ok.json", "standard output: No space left on device", printed=FULL),
    refused("a full disk for a chat", f"chat {SHORT}", "standard output: No space left on device", printed=FULL, typed="hi\n"),
    works("a full disk for a run", f"train ok.json --out run {LITTLE}", "standard output: No space left on device; continuing without it", printed=FULL, makes="run"),
    refused("Latin-1 for a text", f"generate {SHORT}", "standard input is not UTF-8 text", typed=b"caf\xe9"),
    refused("binary for a text", f"generate {SHORT}", "standard input is not UTF-8 text", typed=bytes(range(256))),
    refused("a million words", f"generate {SHORT}", "the model reads at most 256", typed="word " * 1_000_000),
    refused("a million line breaks", f"generate {SHORT}", "the model reads at most 256", typed="\n" * 1_000_000 + "x"),
    works("Latin-1 in a chat", f"chat {SHORT}", "is not UTF-8 text", typed=b"caf\xe9\nhi\n"),
    works("control codes in a chat", f"chat {SHORT}", "\\x1b[2J", typed="/\x1b[2J\n"),
    works("a long line in a chat", f"chat {SHORT}", "tokens", typed="word " * 10_000 + "\nhi\n"),
    works("an unknown command in a chat", f"chat {SHORT}", "/help lists the commands", typed="/foo\n"),
    works("nothing in a chat", f"chat {SHORT}", "", typed="\n\n"),
    works("a conversation that is saved", f"chat {SHORT}", "written to x.json", typed="hi\n/save x.json\n", makes="x.json"),
    works("a conversation that would overwrite", f"chat {SHORT}", "ok.json exists already", typed="/save ok.json\n"),
    works("a conversation without a folder", f"chat {SHORT}", "nowhere/x.json cannot be written", typed="/save nowhere/x.json\n"),
    works("a conversation on a full disk", f"chat {SHORT}", "x.json cannot be written", typed="/system " + "a" * 5000 + "\n/save x.json\n", largest=1024),
    works("no text at all", f"generate {SHORT}", "", typed=""),
    works("ASCII only", "show ok.json --count 1", "Count to 1", variables={"PYTHONIOENCODING": "ascii"}),
]
