"""Paths of a run: its settings name files relative to the folder in which it was started.

A run may be resumed in another folder.  A path that names nothing there is taken from the first.
"""

import os
from pathlib import Path
from typing import Any

from minigpt2.commands.dataset import ALMANAC
from minigpt2.data.template import TEMPLATES

PATHS = {  # settings that may name a file
    *("data", "test", "template", "model", "start"),
    *("reward_model", "tuning_data"),
}
NO_FILES = {ALMANAC, *TEMPLATES}
STARTED_IN = "started_in"  # what settings.json has besides the settings: that folder


def name_of(data: str) -> str:
    """Return the name of a data set, of which those of its runs are made: `.` is a folder, too."""
    return Path(os.path.abspath(data)).stem or "data"


def from_here(name: str, value: Any, started_in: str) -> Any:
    """Return a setting of a run that was started in a folder, as it is called in this one."""
    if isinstance(value, list):
        return [from_here(name, item, started_in) for item in value]
    if name not in PATHS or not isinstance(value, str) or value in NO_FILES:
        return value
    path = os.path.join(started_in, value)
    return path if os.path.exists(path) and not os.path.exists(value) else value
