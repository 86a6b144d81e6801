"""What a mutant takes the place of is found, whatever the garbage collector passes over."""

import gc

from minigpt2 import parallel
from tests.mutation.swap import caches, functions_by_code, place_of

ROOT = parallel.__file__.rpartition("/")[0]


def test_functions_and_caches_are_found_although_the_tests_have_frozen_them():
    gc.freeze()  # as tests/conftest.py does
    try:
        assert parallel.helpers in caches()
        gc.freeze()
        code = parallel.help_all.__code__
        assert parallel.help_all in functions_by_code(ROOT)[place_of(code)]
    finally:
        gc.freeze()


def test_other_functions_are_not_the_packages():
    assert all(key[0].startswith(ROOT) for key in functions_by_code(ROOT))
