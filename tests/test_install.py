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


def test_an_installed_package_finds_the_kernels_and_the_small_weights(site, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(site)}
    script = ASK.format(site=str(site))
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, check=True)


def test_an_installed_command_answers(site, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, "-m", "minigpt2", "answer", "--question", "What is 2 + 2?"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_a_checkout_finds_them_next_to_the_package():
    assert shipped("kernels") == ROOT / "kernels"
    assert shipped("weights/tiny") == ROOT / "weights" / "tiny"
