"""Nothing that is read is run: the package keeps to that, and each rule notices what does not."""

from pathlib import Path

import pytest

import minigpt2
from book.parse import read_sources
from tests.book.security import page_faults, security_faults
from tests.book.test_package import assert_none

PAGES = Path(minigpt2.__file__).parent / "pages"


def test_nothing_unpickles_evaluates_or_shells_out():
    assert_none(security_faults(read_sources()))


def test_every_page_escapes_its_values():
    assert_none(page_faults({path.name: path.read_text() for path in PAGES.glob("*.html")}))


@pytest.mark.parametrize(
    ("module", "text", "what"),
    [
        ("a", "import pickle", "imports pickle"),
        ("a", "from marshal import loads", "imports marshal.loads"),
        ("a", "import shelve as s\ns.open(x)", "imports shelve"),
        ("a", "import torch.serialization", "imports torch.serialization"),
        ("a", "eval(text)", "uses eval"),
        ("a", "run = exec", "uses exec"),
        ("a", "import builtins\nbuiltins.exec(text)", "uses builtins.exec"),
        ("a", "__import__(name)", "uses __import__"),
        ("a", "import os\nos.system(text)", "uses os.system"),
        ("a", "from os import popen as p", "uses os.popen"),
        ("a", "import os\nos.execvp(a, b)", "uses os.execvp"),
        ("a", "import numpy as np\nnp.load(path)", "uses numpy.load"),
        ("a", "f(path, allow_pickle=False)", "passes allow_pickle"),
        ("a", "import yaml\nyaml.load(text)", "uses yaml.load"),
        ("a", "import yaml\nyaml.compose(text, Loader=yaml.UnsafeLoader)", "yaml.UnsafeLoader"),
        ("a", "from yaml import full_load", "uses yaml.full_load"),
        ("a", "import subprocess", "uses subprocess"),
        ("device/compile", "import subprocess\nsubprocess.run('ls')", "runs a text"),
        ("device/compile", "import subprocess\nsubprocess.run(x, shell=True)", "passes shell"),
        ("device/compile", "import subprocess\nsubprocess.getoutput(x)", "subprocess.getoutput"),
        ("device/compile", "import tempfile\ntempfile.mktemp()", "uses tempfile.mktemp"),
        ("a", "from importlib import import_module", "uses importlib.import_module"),
        ("a", "from ctypes import CDLL", "uses ctypes.CDLL"),
        ("reports/html", "from jinja2 import Environment\nEnvironment()", "does not escape"),
        ("reports/html", "f(autoescape=False)", "does not escape"),
        ("reports/html", "pages.from_string(text)", "uses from_string"),
    ],
)
def test_what_could_run_what_is_read_is_reported(module, text, what):
    faults = security_faults({module: text})
    assert faults and all(what in fault for fault in faults[-1:]), faults


@pytest.mark.parametrize(
    "text",
    [
        "import re\nre.compile('x')",
        "import json, os\nos.environ, os.execution, json.loads(x)",
        "import yaml\nyaml.compose(x, Loader=yaml.SafeLoader)\nyaml.safe_dump(x)",
        "model.eval_loss, self.code, executor(x)",
    ],
)
def test_what_runs_nothing_is_not_reported(text):
    assert security_faults({"a": text}) == []


@pytest.mark.parametrize(
    "line",
    [
        "{{ title | safe }}",
        "{% autoescape false %}",
        "<script>x</script>",
        '<a href="{{ x }}">',
        "<td class={{ x }}>",
        '<b onclick="{{ x }}">',
    ],
)
def test_a_page_that_does_not_escape_is_reported(line):
    assert page_faults({"a.html": line})
