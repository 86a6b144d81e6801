"""Exams of align: what the models of its stages answer to the held-out questions, in files.

An exam that is in its file is not taken again.
"""

from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from minigpt2.alignment.exam import Exam, examine, restored, stored
from minigpt2.alignment.log_probs import Answer
from minigpt2.alignment.reward_model import score_answers
from minigpt2.commands.align_stages import Stage
from minigpt2.commands.dataset import almanac_records
from minigpt2.data.almanac import questions
from minigpt2.data.almanac.preferences import preferences
from minigpt2.data.examples import encode
from minigpt2.data.records import Record
from minigpt2.data.template import ALPACA
from minigpt2.durable import make_folder
from minigpt2.inference.model import RewardModel, open_model, open_reward_model
from minigpt2.model_folders import checkpoints_of
from minigpt2.outputs import naming, write_json
from minigpt2.reading import parse_json, read_text
from minigpt2.reports.progress import progress
from minigpt2.reports.run_log import SUMMARY
from minigpt2.reports.screen import Screen

HELD_OUT = 150  # questions of each list
SCORED_EVERY = 6  # of so many held-out pairs, one has its answers scored
LARGEST = 1 << 22  # bytes of a file
Questions = dict[str, list[Record]]  # by the name of the list


def held_out() -> Questions:
    """Return the held-out questions: facts and arithmetic."""
    almanac = questions(0)
    return {
        "facts": almanac_records(almanac.held_out_facts[:HELD_OUT]),
        "arithmetic": almanac_records(almanac.held_out_arithmetic[:HELD_OUT]),
    }


class Exams:
    """The exams of a demonstration, in files of its folder."""

    def __init__(self, folder: Path, seed: int, screen: Screen):
        self.folder = folder / "exams"
        self.seed = seed
        self.screen = screen
        self.questions = held_out()
        self.records = [record for records in self.questions.values() for record in records]
        with naming(self.folder):
            make_folder(self.folder)

    def take(self, stage: Stage) -> None:
        """Let the models of a stage take their exams, but for those in files."""
        if not stage.modes:
            return self._score(stage)
        if stage.followed:
            for path in checkpoints_of(stage.folder)[:-1]:
                self._take(f"{stage.name}-{step_of(path)}", path, ("greedy",))
        self._take(stage.name, stage.folder, stage.modes)

    def _take(self, name: str, model: Path, modes: Sequence[str]) -> None:
        """Let a model take an exam, unless it is in its file."""
        path = self.folder / f"{name}.json"
        if path.is_file():
            return
        started = perf_counter()
        count = len(modes) * len(self.records)
        with progress(f"exam of {name}", count, self.screen) as advance:
            exam = examine(open_model(str(model)), self.records, self.seed, modes, advance)
        write_json(path, {"seconds": perf_counter() - started, **stored(exam)}, replace=True)

    def _score(self, stage: Stage) -> None:
        """Let a reward model score answers of each kind, unless that is in its file."""
        path = self.folder / f"{stage.name}.json"
        if path.is_file():
            return
        started = perf_counter()
        model = open_reward_model(str(stage.folder))
        with progress(f"scores of {stage.name}", 0, self.screen):
            scores = {
                kind: float(score_answers(model.parameters, answers, model.bias).mean())
                for kind, answers in answers_by_kind(model).items()
            }
        write_json(path, {"seconds": perf_counter() - started, "scores": scores}, replace=True)

    def judged(self, stage: Stage) -> dict[str, Any]:
        """Return a reward model's accuracy on held-out pairs, and its mean scores, by kind."""
        summary = self._read(stage.folder / SUMMARY)
        scores = self._read(self.folder / f"{stage.name}.json")["scores"]
        return {"accuracy": summary["after"]["held_out_pairs"]["kinds"], "scores": scores}

    def seconds(self) -> float:
        """Return the time of all exams."""
        return sum(self._read(path)["seconds"] for path in self.folder.glob("*.json"))

    def of(self, name: str) -> Exam:
        """Return an exam."""
        values = self._read(self.folder / f"{name}.json")
        return restored({mode: rows for mode, rows in values.items() if mode != "seconds"})

    def along(self, stage: Stage) -> dict[int, Exam]:
        """Return the exams of a stage's checkpoints by their steps; the last has all modes."""
        *before, last = checkpoints_of(stage.folder)
        exams = {step_of(path): self.of(f"{stage.name}-{step_of(path)}") for path in before}
        return {**exams, step_of(last): self.of(stage.name)}

    def _read(self, path: Path) -> dict[str, Any]:
        """Return what a file of an exam holds."""
        return parse_json(read_text(path, LARGEST), path)


def answers_by_kind(model: RewardModel) -> dict[str, list[Answer]]:
    """Return the ids of right, worse and empty answers to held-out questions."""
    pairs = almanac_records(preferences(0).held_out_pairs[::SCORED_EVERY])
    answers: dict[str, list[Answer]] = {"right": [], "empty": []}
    for pair in pairs:
        for kind, text in (("right", pair.output), (pair.kind, pair.rejected or ""), ("empty", "")):
            example = encode(pair._replace(output=text), model.tokenizer, model.template or ALPACA)
            place = example.last_answer
            answers.setdefault(kind, []).append(Answer(example.ids[:place], example.ids[place:]))
    return answers


def step_of(checkpoint: Path) -> int:
    """Return the steps that a checkpoint was saved after."""
    return int(checkpoint.name.split("-")[1])
