"""World: one process is a world that adds nothing."""

import numpy as np

from minigpt2.training.world import ONE_PROCESS


def test_a_world_of_one_process_leaves_numbers_and_arrays_as_they_are():
    array = np.arange(3.0)
    assert ONE_PROCESS.sum(2.5) == 2.5
    ONE_PROCESS.sum_in_place(array)
    assert array.tolist() == [0, 1, 2]
