"""A disk that is nearly full, without one."""

import resource
from contextlib import contextmanager


@contextmanager
def nearly_full_disk(room):
    """Let no file become larger than `room` bytes, as if the disk were full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
