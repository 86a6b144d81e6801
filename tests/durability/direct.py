"""The smallest program that writes checkpoints: durable's functions, and nothing around them.

It also stands for programs that do it wrongly: `PLANTED` has some, and each must be noticed.
"""

import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from minigpt2 import durable, outputs
from minigpt2.durable import (
    FolderLock,
    make_folder,
    new_folder,
    remove_folder,
    remove_leftovers,
)
from minigpt2.outputs import write_texts
from tests.durability.disk import read_tree

STEPS, KEEP = 3, 2
NAMES = ("runs",)  # one of which an error names
VALIDATED = b"validated" * 9  # state.json of the last checkpoint, in the end
DISK = 4096  # bytes that one disk has more than the one before


def write(root, relies_on=lambda path: None):
    """Begin a run in root/runs/x, or continue it: STEPS checkpoints, of which KEEP stay."""
    run = Path(root) / "runs" / "x"
    with outputs.naming(run):
        make_folder(run)
    with FolderLock(run):
        remove_leftovers(run)
        if not (run / "run.json").exists():
            write_texts({run / "run.json": "settings"})
        relies_on(run / "run.json")
        for step in range(newest(run) + 1, STEPS + 1):
            write_checkpoint(run, step)
            relies_on(run / name_of(step))
            remove_old(run)
        remove_old(run)
        validate(run)
        relies_on(run / name_of(STEPS))
        for text in ("begun", "done"):
            write_texts({run / "summary.json": text}, replace=True)
            relies_on(run / "summary.json")


def write_checkpoint(run, step):
    """Write one checkpoint."""
    with new_folder(run / name_of(step)) as folder:
        for name, content in contents(step).items():
            (folder / name).write_bytes(content)


def validate(run):
    """Replace the state in the last checkpoint."""
    folder = run / name_of(STEPS)
    with outputs.whole_file(
        folder / "state.json", replace=True, hidden=outputs.hidden_name(folder)
    ) as hidden:
        hidden.write_bytes(VALIDATED)


def remove_old(run):
    """Remove all checkpoints but the newest."""
    for folder in sorted(run.glob("checkpoint-*"))[:-KEEP]:
        remove_folder(folder)


def name_of(step):
    """The name of a checkpoint."""
    return f"checkpoint-{step:06}"


def newest(run):
    """The step of the newest checkpoint; 0 if there is none."""
    return max((int(path.name[-6:]) for path in run.glob("checkpoint-*")), default=0)


def contents(step):
    """What is in a checkpoint."""
    return {"model.safetensors": b"weights %d" % step * 9, "state.json": b"state %d" % step * 9}


def faults(root):
    """What is wrong with the checkpoints that are visible."""
    run = Path(root) / "runs" / "x"
    for folder in sorted(run.glob("checkpoint-*")):
        expected = contents(int(folder.name[-6:]))
        if read_tree(folder) not in (expected, {**expected, "state.json": VALIDATED}):
            yield f"{folder.name} is not whole"


def differences(root):
    """How the end of a run differs from what it should be."""
    run = Path(root) / "runs" / "x"
    names = [*map(name_of, (STEPS - 1, STEPS)), "lock", "run.json", "summary.json"]
    if sorted(path.name for path in run.iterdir()) != names:
        yield f"the run has {sorted(path.name for path in run.iterdir())}"
    if (run / name_of(STEPS) / "state.json").read_bytes() != VALIDATED:
        yield "the last checkpoint has an old state"
    if (text := (run / "summary.json").read_text()) != "done":
        yield f"summary.json has {text}"


# Programs that are wrong.


def renamed_before_fsync(hidden, path):
    """Rename a folder, then fsync what is in it."""
    os.rename(hidden, path)
    durable.fsync_tree(path)
    outputs.fsync_folder(path.parent)


def never_fsynced(hidden, path):
    """Rename a folder, and that is all."""
    os.rename(hidden, path)


def removed_in_place(path):
    """Remove a folder without taking its name first."""
    shutil.rmtree(path)
    outputs.fsync_folder(path.parent)


def removed_without_fsync(path):
    """Take a folder's name, and remove it at once."""
    hidden = outputs.hidden_name(path)
    os.rename(path, hidden)
    shutil.rmtree(hidden)


def removed_first(run, step):
    """Remove all checkpoints before the next is written."""
    for folder in run.glob("checkpoint-*"):
        remove_folder(folder)
    write_checkpoint_rightly(run, step)


def written_in_place(run, step):
    """Write a checkpoint under its own name."""
    folder = run / name_of(step)
    folder.mkdir()
    for name, content in contents(step).items():
        (folder / name).write_bytes(content)
    durable.fsync_tree(folder)
    outputs.fsync_folder(run)


def state_before_weights(run, step):
    """Rename each file of a checkpoint into its place, and not the folder."""
    folder = run / name_of(step)
    make_folder(folder)
    for name, content in reversed(contents(step).items()):
        with outputs.whole_file(folder / name) as hidden:
            hidden.write_bytes(content)


write_checkpoint_rightly = write_checkpoint
HERE = "tests.durability.direct"
PLANTED = {
    "renamed before fsync": ("minigpt2.durable.publish", renamed_before_fsync),
    "never fsynced": ("minigpt2.durable.publish", never_fsynced),
    "files not fsynced": ("minigpt2.durable.fsync_file", lambda path: None),
    "folders not fsynced": ("minigpt2.durable.fsync_folder", lambda path: None),
    "removed in place": (f"{HERE}.remove_folder", removed_in_place),
    "removed without fsync": (f"{HERE}.remove_folder", removed_without_fsync),
    "removed before the next is written": (f"{HERE}.write_checkpoint", removed_first),
    "written in place": (f"{HERE}.write_checkpoint", written_in_place),
    "renamed file by file": (f"{HERE}.write_checkpoint", state_before_weights),
    "small files not fsynced": ("minigpt2.outputs.fsync_file", lambda path: None),
    "names of small files not fsynced": ("minigpt2.outputs.fsync_folder", lambda path: None),
}


@contextmanager
def planted(name):
    """Do one thing wrongly."""
    target, wrong = PLANTED[name]
    with patch(target, wrong):
        yield
