"""What several tests start from."""

import gc
import os

import numpy as np
import pytest
from hypothesis import settings

from minigpt2.data.tokenizer import open_tokenizer
from minigpt2.device.fake_stream import Stream
from minigpt2.errors import UserError
from minigpt2.inference.model import Model, save_model
from minigpt2.model.config import GPT2Config
from minigpt2.model.initialisation import initialise
from minigpt2.shipped import shipped
from tests.device_option import DEVICES, choose_device


def pytest_addoption(parser):
    """Let the tests of the kernels run on a GPU."""
    parser.addoption("--device", choices=DEVICES, default=DEVICES[0], help="that runs the kernels")


settings.register_profile("tests", deadline=None)  # other work may come between
settings.load_profile("tests")


OF_A_TERMINAL = ("COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE")


def pytest_configure(config):
    """Forget the terminal that the tests were started in, and open the device that was asked for.

    What a command prints depends on the terminal; a test that needs one says so itself.  If the
    device cannot be opened, one line says why.
    """
    for name in OF_A_TERMINAL:
        os.environ.pop(name, None)
    os.environ["TERM"] = "xterm"
    try:
        choose_device(config.getoption("--device"))
    except UserError as error:
        pytest.exit(str(error), returncode=2)


def pytest_collection_finish():
    """Let the garbage collector pass over the tests and modules, which stay until the end."""
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_the_disk():
    """Let fsync do nothing: what a test wrote need not survive a power cut."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


@pytest.fixture(scope="session")
def tokenizer():
    """The small vocabulary that ships."""
    return open_tokenizer(shipped("weights/tiny"))


@pytest.fixture(scope="session")
def little_model(tmp_path_factory, tokenizer):
    """The folder of a model that is quick to run: random weights, the vocabulary that ships."""
    folder = tmp_path_factory.mktemp("models") / "little"
    config = GPT2Config(tokenizer.n_vocab, n_positions=96, n_embd=16, n_layer=2, n_head=2)
    save_model(folder, Model(initialise(config, np.random.default_rng(0)), tokenizer, None))
    return folder


@pytest.fixture
def no_curves(monkeypatch):
    """Leave the curves out of a run's page: matplotlib takes longer than a short run."""
    monkeypatch.setattr("minigpt2.reports.run_page.run_curves", lambda log: "")


@pytest.fixture(autouse=True)
def null_stream():
    """Leave the fake CuPy's launches in the stream that a fresh process has."""
    yield
    Stream.null.use()
