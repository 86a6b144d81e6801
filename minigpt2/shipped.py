"""Shipped files: the kernels and the small weights that come with the package.

In the repository they are next to the package, in an installation they are inside it.  Only this
module needs to know which.
"""

from os.path import exists  # False for a name that the system refuses
from pathlib import Path

HERE = Path(__file__).parent


def shipped(name: str) -> Path:
    """Return the path of something that comes with the package, such as `weights/tiny`."""
    installed = HERE / "_shipped" / name
    return installed if exists(installed) else HERE.parent / name
