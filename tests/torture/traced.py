"""The command `minigpt2`, which notes in a file where it is: `traced FILE train ...`.

The file outlives a SIGKILL, so it says what the run was doing then.
"""

import sys
from contextlib import contextmanager
from mmap import mmap
from pathlib import Path

PHASES = ("start", "before answers", "steps", "accumulated step", "validation", "after answers")
START, BEFORE, STEPS, ACCUMULATED, VALIDATION, AFTER = range(len(PHASES))
WRITING = 1  # the byte that is 1 while a checkpoint is written
COUNT = slice(8, 16)  # the micro-batches that were computed, in all sessions
SIZE = 4096


class Marks:
    """What a run has noted in its file."""

    def __init__(self, path):
        if not path.exists():
            path.write_bytes(bytes(SIZE))
        with path.open("r+b") as file:
            self.bytes = mmap(file.fileno(), SIZE)

    @property
    def phase(self):
        """The number of the phase."""
        return self.bytes[0]

    @phase.setter
    def phase(self, number):
        self.bytes[0] = number

    @property
    def writing(self):
        """Whether a checkpoint is being written."""
        return bool(self.bytes[WRITING])

    @writing.setter
    def writing(self, is_true):
        self.bytes[WRITING] = is_true

    @property
    def micro_batches(self):
        """The micro-batches that were computed."""
        return int.from_bytes(self.bytes[COUNT], "little")

    @micro_batches.setter
    def micro_batches(self, count):
        self.bytes[COUNT] = count.to_bytes(8, "little")


def trace(marks):
    """Let the functions of a run note where it is."""
    from minigpt2.reports import before_after
    from minigpt2.training import checkpoint, evaluation, objective, step

    def within(module, name, phase_of):
        original = getattr(module, name)

        def noted(*arguments, **named):
            before, marks.phase = marks.phase, phase_of(arguments)
            result = original(*arguments, **named)
            marks.phase = STEPS if marks.phase == BEFORE else before
            return result

        setattr(module, name, noted)

    within(before_after, "answer_tests", lambda a: BEFORE if a[-1] == "before" else AFTER)
    within(evaluation, "validation_losses", lambda _: VALIDATION)

    add_gradients = objective.WeightedNLL.add_gradients

    def counted(*arguments):
        result = add_gradients(*arguments)
        marks.micro_batches += 1
        return result

    objective.WeightedNLL.add_gradients = counted
    gather_gradients = step.gather_gradients

    def gathered(state, *arguments, between, **named):
        def noted():
            marks.phase = ACCUMULATED
            between()

        marks.phase = ACCUMULATED if state.partial else STEPS
        result = gather_gradients(state, *arguments, between=noted, **named)
        marks.phase = STEPS
        return result

    step.gather_gradients = gathered
    new_folder = checkpoint.new_folder

    @contextmanager
    def writing(path):
        marks.writing = True
        with new_folder(path) as folder:
            yield folder
        marks.writing = False

    checkpoint.new_folder = writing


class AtImport:
    """Traces the functions of a run when its command is imported: not before, as it takes time."""

    def __init__(self, marks):
        self.marks = marks

    def find_spec(self, name, *rest):
        """Find nothing."""
        if name == "minigpt2.commands.train":
            sys.meta_path.remove(self)
            trace(self.marks)


def main():
    """Run the command."""
    path = sys.argv.pop(1)
    sys.meta_path.insert(0, AtImport(Marks(Path(path))))
    from minigpt2.__main__ import main as program

    return program()


if __name__ == "__main__":
    sys.exit(main())
