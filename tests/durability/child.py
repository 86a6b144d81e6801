"""Child: a run in a forked process, which may be killed, or whose calls may fail."""

import os
import signal
import sys
import traceback
from contextlib import nullcontext
from errno import EDQUOT, ENOSPC
from tempfile import TemporaryFile
from typing import NamedTuple

from minigpt2.errors import UserError
from tests.durability.calls import Watch

FULL = (ENOSPC, EDQUOT)  # names can still be changed and removed, and what is there be fsynced
BUG = 99  # the exit code of an exception that is none of the program's own


class Ended(NamedTuple):
    """How a child ended: its exit code, or minus the signal; what it wrote to its streams."""

    code: int
    text: str

    @property
    def killed(self):
        """Whether it was killed."""
        return self.code == -signal.SIGKILL


def in_child(act, folder):
    """Do something in a forked process that works in `folder`; its result is the exit code."""
    sys.stdout.flush()
    sys.stderr.flush()
    with TemporaryFile() as streams:
        if not (pid := os.fork()):
            code = BUG
            try:
                os.dup2(streams.fileno(), 1)
                os.dup2(streams.fileno(), 2)
                os.chdir(folder)
                code = act() or 0
            except UserError as error:
                os.write(2, f"minigpt2: {error}\n".encode())
                code = 2
            except BaseException:
                os.write(2, traceback.format_exc().encode())
            finally:
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        streams.seek(0)
        return Ended(os.waitstatus_to_exitcode(status), streams.read().decode(errors="replace"))


class Killing(Watch):
    """Ends the process, as SIGKILL does, before call number n, or in the middle of write n."""

    def __init__(self, root, n, *, middle=False):
        super().__init__(root)
        self.left, self.middle = n, middle

    def before(self, call, half):
        if self.middle and half is None:
            return
        if self.left == 0:
            if self.middle:
                half()
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1


class Failing(Watch):
    """Lets call number n fail; with `lasting` all later ones, too, that need what is missing."""

    def __init__(self, root, n, error, *, lasting):
        super().__init__(root)
        self.left, self.error, self.lasting = n, error, lasting
        self.failed = False

    def before(self, call, half):
        self.left -= 1
        needs = self.error not in FULL or call.name in ("create", "write", "mkdir", "link")
        if self.left == -1 or (self.lasting and self.left < 0 and needs):
            first, self.failed = not self.failed, True
            if first and self.lasting and half and len(call.data) > 1:
                return half()  # the disk has room for so much
            raise OSError(self.error, os.strerror(self.error))
        return None


def run(work, folder, watch=None):
    """Begin or continue a run in a folder, in a child whose calls are watched."""

    def act():
        with watch or nullcontext():
            return work.write(folder)

    return in_child(act, folder)
