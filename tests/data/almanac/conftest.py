"""Text and questions that several tests of the almanac look at."""

import numpy as np
import pytest

from minigpt2.data import almanac
from minigpt2.data.almanac import ask
from tests.data.almanac.common import first_documents


@pytest.fixture(scope="session")
def text():
    """The first 2000 documents."""
    return first_documents(2000)


@pytest.fixture(scope="session")
def question_set():
    """The questions that ship."""
    return almanac.questions()


@pytest.fixture(scope="session")
def held():
    """The subjects that are held out, by table."""
    return ask.held_out_subjects(np.random.default_rng(0))
