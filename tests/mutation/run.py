"""Mutants, each run in a process of its own, forked from one that has imported everything.

The tests that run a line that is changed are run until one fails: the nearest first, and of those
the quick ones before the slow ones.
"""

import gc
import os
import pickle
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import deque
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import pytest
from coverage import Coverage

from tests.mutation.mutants import Mutant
from tests.mutation.swap import caches, code_at, functions_by_code, run_anew, swap

KILLED, SURVIVED, TIMEOUT, CRASHED = "killed", "survived", "timeout", "crashed"
PYTEST = ["-qq", "-s", "-x", "-p", "no:cacheprovider", "--tb=native", "--assert=plain"]
MOST_SECONDS = 8.0  # of tests that are run on one mutant
GRACE = 60.0  # seconds that a mutant may wait
EXTRA_MEMORY = 4 << 30  # that a mutant may take


class Traces(NamedTuple):
    """What each test runs, and how long it takes."""

    lines: dict[str, dict[int, list[str]]]  # file -> line -> names of tests
    seconds: dict[str, float]  # of the processor, by the name of a test


class Child:
    """A forked process, with a folder of its own for temporary files."""

    def __init__(self, work, seconds: float):
        self.folder = tempfile.mkdtemp()
        self.deadline = time.monotonic() + GRACE + 10 * seconds
        self.pid = os.fork()
        if not self.pid:
            code = 70
            try:
                code = self.run(work, seconds)
            finally:
                os._exit(code)

    def run(self, work, seconds):
        """Do the work, silently, with limits of time and memory; return an exit code."""
        os.environ["PYTEST_DEBUG_TEMPROOT"] = tempfile.tempdir = self.folder
        silence = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):
            os.dup2(silence, stream)
        limit = int(seconds) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 1))
        with open("/proc/self/statm") as statm:
            now = int(statm.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + EXTRA_MEMORY, now + EXTRA_MEMORY))
        return work(self.folder)

    def outcome(self) -> str | None:
        """How it ended; None while it runs."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if not pid:
            if time.monotonic() < self.deadline:
                return None
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        shutil.rmtree(self.folder, ignore_errors=True)
        if not pid:
            return TIMEOUT
        code = os.waitstatus_to_exitcode(status)
        if code in (-signal.SIGXCPU, -signal.SIGKILL):
            return TIMEOUT
        return KILLED if code == 1 else CRASHED if code < 0 else SURVIVED


def run_items(session, items) -> int:
    """Run tests until one fails; return 1 if one did."""
    for i, item in enumerate(items):
        following = items[i + 1] if i + 1 < len(items) else None
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.testsfailed:
            return 1
    return 0


def in_order(groups: list[set[str]], seconds: dict[str, float]) -> list[str]:
    """The tests of one group after the other, quick ones first, for MOST_SECONDS at most."""
    order = [test for group in groups for test in sorted(group, key=lambda t: (seconds[t], t))]
    order = list(dict.fromkeys(order))
    totals = accumulate(seconds[test] for test in order)
    return [test for test, total in zip(order, totals, strict=True) if total < MOST_SECONDS]


class Runner:
    """A plugin of pytest that, once the tests are collected, runs them for each mutant."""

    def __init__(self, root: Path, files: list[str], mutants: list[Mutant], workers: int, report):
        self.root, self.files, self.mutants, self.workers = root, files, mutants, workers
        self.report = report
        self.importing = self.coverage()  # of what runs when modules are imported
        self.importing.start()

    def coverage(self) -> Coverage:
        """What notes which lines of the files run."""
        sources = [str(self.root / file) for file in self.files]
        return Coverage(include=sources, data_file=None, config_file=False)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session):
        """Run all mutants in place of the tests."""
        self.session = session
        self.importing.stop()
        data = self.importing.get_data()
        self.imported = {file: set(data.lines(str(self.root / file)) or ()) for file in self.files}
        self.items = {item.nodeid: item for item in session.items}
        session.config.pluginmanager.unregister(name="terminalreporter")
        self.functions = functions_by_code(self.root)
        self.caches = caches()
        gc.collect()
        gc.freeze()
        self.traces = self.trace()
        waiting, running = deque(self.mutants), {}
        while waiting or running:
            while waiting and len(running) < self.workers:
                mutant = waiting.popleft()
                tests = self.tests_of(mutant)
                if not tests:
                    self.report(mutant, SURVIVED)
                    continue
                seconds = 5 + 5 * sum(self.traces.seconds[test] for test in tests)
                running[Child(self.work_of(mutant, tests), seconds)] = mutant
            ended = {child: outcome for child in running if (outcome := child.outcome())}
            for child, outcome in ended.items():
                mutant = running.pop(child)
                self.report(mutant, outcome)
            if not ended:
                time.sleep(0.003)
        return True

    def trace(self) -> Traces:
        """Run all tests twice: which lines does each run by itself, and how long after others?"""

        def run(nodeid, item) -> bool:
            failed = run_items(self.session, [item])
            if failed:
                self.result.write_bytes(pickle.dumps(nodeid))
            return bool(failed)

        def work(folder):
            coverage, seconds = self.coverage(), {}
            coverage.start()
            for nodeid, item in self.items.items():
                coverage.switch_context(nodeid)
                self.forget_results()
                if run(nodeid, item):
                    return 1
            coverage.stop()
            for nodeid, item in self.items.items():
                start = time.process_time()
                if run(nodeid, item):
                    return 1
                seconds[nodeid] = time.process_time() - start
            data = coverage.get_data()
            lines = {file: data.contexts_by_lineno(str(self.root / file)) for file in self.files}
            self.result.write_bytes(pickle.dumps(Traces(lines, seconds)))
            return 0

        with tempfile.TemporaryDirectory() as folder:
            self.result = Path(folder, "traces")
            self.result.write_bytes(pickle.dumps("they take too long"))
            child = Child(work, 1800)
            while not (outcome := child.outcome()):
                time.sleep(0.05)
            result = pickle.loads(self.result.read_bytes())
        if outcome != SURVIVED:
            raise SystemExit(f"the tests fail without a mutant: {outcome}, {result}")
        return result

    def forget_results(self):
        """Keep nothing that was computed before the fork, the queue of helper threads included."""
        for cache in self.caches:
            cache.cache_clear()

    def is_imported(self, mutant: Mutant) -> bool:
        """Whether what is changed runs when modules are imported, or where no test runs it."""
        lines, (first, last) = self.traces.lines[mutant.file], mutant.place.body
        changed = range(mutant.first, mutant.last + 1)
        is_tested = any(test for line in changed for test in lines.get(line, ()))
        is_called = not self.imported[mutant.file].isdisjoint(range(first, last + 1))
        return not mutant.place.is_body or is_called or not is_tested

    def tests_of(self, mutant: Mutant) -> list[str]:
        """The tests that may notice a mutant, in the order in which they are run.

        Those that run what is changed come first.  If it runs when modules are imported, or no test
        runs it, then come those that run the rest of its function, the file's own, and all others.
        """
        lines, seconds = self.traces.lines[mutant.file], self.traces.seconds

        def running(first: int, last: int) -> set[str]:
            return {test for n in range(first, last + 1) for test in lines.get(n, ()) if test}

        groups = [running(mutant.first, mutant.last)]
        if self.is_imported(mutant):
            path = Path(mutant.file.replace("minigpt2/", "tests/", 1))
            name = path.parent.name if path.stem == "__init__" else path.stem
            own = f"{path.parent}/test_{name}.py::"  # also those that see a constant alone
            groups.append(running(*mutant.place.body))
            groups.append({test for test in seconds if test.startswith(own)})
            groups.append(running(0, max(lines, default=0)))
        return in_order(groups, seconds)

    def work_of(self, mutant: Mutant, tests: list[str]):
        """What a child does: run tests with a mutant's code."""
        is_imported = self.is_imported(mutant)

        def work(folder):
            path, place = self.root / mutant.file, mutant.place
            self.forget_results()
            if place.is_body:
                texts = path.read_text(encoding="utf-8"), mutant.text
                codes = [compile(text, str(path), "exec", dont_inherit=True) for text in texts]
                swap(*(code_at(code, place.path, place.first) for code in codes), self.functions)
            if is_imported:
                name = mutant.file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
                try:
                    run_anew(sys.modules[name], mutant.text)
                except Exception:
                    return 1  # the module cannot be imported
            return run_items(self.session, [self.items[test] for test in tests])

        return work


def run_mutants(root, files, mutants, tests, workers, report):
    """Run tests on mutants; report(mutant, outcome) is called for each."""
    from hypothesis import Phase, settings

    phases = (Phase.explicit, Phase.generate)  # a failure need not be shrunk
    settings.register_profile(
        "mutants", derandomize=True, database=None, deadline=None, phases=phases
    )
    settings.load_profile("mutants")
    sys.dont_write_bytecode = True
    runner = Runner(root, files, mutants, workers, report)
    code = pytest.main([*PYTEST, "-m", "not long", *tests], plugins=[runner])
    if code:
        raise SystemExit(code)
