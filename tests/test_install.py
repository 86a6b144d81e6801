"""An installed package finds what comes with it, and so does a checkout."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from minigpt2.shipped import shipped

ROOT = Path(__file__).parent.parent
CACHES = shutil.ignore_patterns("__pycache__")
ASK = """
from pathlib import Path
import minigpt2
from minigpt2.data.almanac import facts
from minigpt2.shipped import shipped
from minigpt2.weights import load_parameters
place = Path(minigpt2.__file__).parent
assert place.is_relative_to({site!r}), place
assert shipped("kernels").is_relative_to(place) and (shipped("kernels") / "README.md").is_file()
assert load_parameters(shipped("weights/tiny")).config.n_layer == 4
assert len(facts()) > 1000
"""

# A command of the package in the folder alone: the environment may have the checkout installed.
RUN = """
import runpy, sys
finders = [f for f in sys.meta_path if "editable" not in getattr(f, "__module__", "")]
sys.meta_path = finders
runpy.run_module("minigpt2", run_name="__main__", alter_sys=True)
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder into which `pip install .` has put the package, from a copy of the source."""
    source, site = tmp_path_factory.mktemp("source") / "minigpt2", tmp_path_factory.mktemp("site")
    source.mkdir()
    for name in ("minigpt2", "kernels", "weights/tiny"):
        shutil.copytree(ROOT / name, source / name, ignore=CACHES)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    options = ["--no-build-isolation", "--disable-pip-version-check", "--target", str(site)]
    environment = {**os.environ, "PYTHONWARNINGS": "default"}  # those of pip are not ours
    subprocess.run([*command, *options, str(source)], env=environment, check=True)
    return site


def files_in(folder):
    """The files in a folder and below, without what was made from them."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix() for path in paths if path.suffix != ".pyc"}


@pytest.mark.parametrize(
    ("source", "place"),
    [("minigpt2", ""), ("kernels", "_shipped/kernels"), ("weights/tiny", "_shipped/weights/tiny")],
)
def test_an_installed_package_has_every_file(site, source, place):
    lacking = files_in(ROOT / source) - files_in(site / "minigpt2" / place)
    assert not lacking


def test_an_installed_package_finds_the_kernels_and_the_small_weights(site, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(site)}
    script = ASK.format(site=str(site))
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, check=True)


@pytest.mark.parametrize(
    "arguments",
    [("answer", "--question", "What is 2 + 2?"), ("plan", "--run", "grpo", "--time", "false")],
    ids=str,
)
def test_an_installed_command_runs(site, tmp_path, arguments):
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, "-c", RUN, *arguments]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_a_checkout_finds_them_next_to_the_package():
    assert shipped("kernels") == ROOT / "kernels"
    assert shipped("weights/tiny") == ROOT / "weights" / "tiny"
