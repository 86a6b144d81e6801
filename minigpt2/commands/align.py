"""Align: the whole chain of alignment on the small base, from a mixture of styles to its report.

This is `minigpt2 align`.  Each stage is a run of another command, in a folder of its own, and what
is finished is not done again: a demonstration that was stopped continues.
"""

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from minigpt2.commands.align_exams import Exams
from minigpt2.commands.align_results import results_of, tables_of
from minigpt2.commands.align_stages import Stage, run_stage, stages, write_data
from minigpt2.durable import FolderLock, is_leftover, make_folder, remove_leftovers
from minigpt2.errors import UserError, require_at_least
from minigpt2.outputs import (
    as_options,
    json_text,
    naming,
    require_new_folder,
    write_json,
    write_texts,
)
from minigpt2.reading import parse_json, read_text
from minigpt2.reports.align_page import align_page
from minigpt2.reports.run_log import SETTINGS, SUMMARY
from minigpt2.reports.screen import Screen
from minigpt2.signals import stop_in
from minigpt2.wording import duration

REPORT = "report.html"
COMMAND = "align"


@dataclass(frozen=True, kw_only=True)
class AlignSettings:
    """Align the small base by a reward model, DPO, PPO and GRPO; hack a reward.

    Examples:
        minigpt2 align
        minigpt2 align --seed 1 --out runs/align-1

    Args:
        out: folder of the demonstration; one that was stopped continues, and what is finished
            is not done again
        model: model to begin with: a name, or the folder of a model or of a run
        seed: seed of all runs and of all sampled answers
    """

    out: Path = Path("runs/align")
    model: str = "tiny"
    seed: int = 0

    def __post_init__(self) -> None:
        require_at_least(0, self, "seed")


NAMES = tuple(field.name for field in fields(AlignSettings))


def align(settings: AlignSettings) -> dict[str, Any]:
    """Do all stages, and the exams between them; return the content of summary.json.

    Raises UserError if the folder holds something else.
    """
    folder = settings.out
    claim(settings)
    screen = Screen(until_closed=True)
    with FolderLock(folder):
        remove_leftovers(folder)
        write_json(folder / SETTINGS, {"command": COMMAND, **asdict(settings)}, replace=True)
        write_data(folder)
        every = stages(folder, settings.model, settings.seed)
        exams = Exams(folder, settings.seed, screen)
        try:
            for number, stage in enumerate(every, 1):
                screen.print(f"\n{number} of {len(every)}: {stage.title}", style="bold")
                run_stage(stage)
                exams.take(stage)
            return report(folder, every, exams, screen)
        except BaseException as error:
            if stop_in(error):
                screen.print(f"stopped   to continue: {command_line(settings)}")
            raise


def command_line(settings: AlignSettings) -> str:
    """Return the line that starts a demonstration, and continues it."""
    return " ".join(["minigpt2 align", *as_options(asdict(settings))])


def claim(settings: AlignSettings) -> None:
    """Make the folder; raises UserError if it holds something else than these settings' stages."""
    folder, path = settings.out, settings.out / SETTINGS
    if not path.is_file():
        require_new_folder(folder, "--out", ignore=is_leftover)
        with naming(folder):
            make_folder(folder)
        return
    content = parse_json(read_text(path), path)
    before = content if isinstance(content, dict) else {}
    if before.get("command", COMMAND) != COMMAND or not before.keys() <= {"command", *NAMES}:
        raise UserError(f"{folder} holds a run of another command: choose another --out")
    for name, value in asdict(settings).items():
        stored = before.get(name)
        if name != "out" and json_text(value) != json_text(stored):
            raise UserError(
                f"{folder} holds a demonstration whose {name} is {json_text(stored)}, not "
                f"{json_text(value)}: choose another --out"
            )


def report(folder: Path, every: list[Stage], exams: Exams, screen: Screen) -> dict[str, Any]:
    """Print the tables, write the report and summary.json; return what is in it."""
    results = results_of(every, exams)
    for table in tables_of(results):
        screen.print()
        screen.print(table.printed())
    write_texts({folder / REPORT: align_page(results, tables_of(results))}, replace=True)
    write_json(folder / SUMMARY, results, replace=True)
    screen.print(f"\n{duration(results['seconds'])} in all; see {folder / REPORT}")
    return results
