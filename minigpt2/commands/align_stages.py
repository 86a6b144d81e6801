"""Stages of align: the runs of which the demonstration consists, and their settings.

Settings that differ from a command's defaults are those that suit the small base.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minigpt2.commands.dpo import DpoSettings, dpo
from minigpt2.commands.grpo import GrpoSettings, grpo
from minigpt2.commands.ppo import PpoSettings, ppo
from minigpt2.commands.resume import is_finished
from minigpt2.commands.reward import RewardSettings, reward
from minigpt2.commands.train import TrainSettings, train
from minigpt2.data.almanac import questions
from minigpt2.data.almanac.ask import Record
from minigpt2.data.almanac.preferences import pair, preferences
from minigpt2.durable import make_folder
from minigpt2.outputs import naming, write_texts
from minigpt2.reports.run_log import SETTINGS

DATA = "data"
STYLE = 3  # a stream of random numbers, besides those of data/almanac/preferences
EPS = 3e-3  # of AdamW: most gradients are smaller, so weights that hardly matter hardly change
SMALL_EPS = 1e-6  # of AdamW, for reward models, for GRPO, and to hack a reward
LONGEST = 96  # tokens of an answer; padded ones have up to 76
QUESTIONS = {"ppo": 96, "hacked": 64, "grpo": 16}  # that a policy answers at once
EXAMS = 4  # about so many of PPO's models have one: those of its checkpoints
STEPS = {  # of each stage
    "mixture": 300,
    "reward": 220,
    "dpo": 40,
    "ppo": 56,
    "shallow": 20,
    "hacked": 40,
    "undertuned": 16,
    "grpo": 48,
}


class Stage(NamedTuple):
    """A run of another command, in a folder of its own, and what is measured after it."""

    name: str
    title: str
    settings: Any
    run: Callable[[Any], Any]
    modes: tuple[str, ...] = ("greedy", "sampled")  # of the exam of its model
    followed: bool = False  # whether the model of each checkpoint has an exam, too

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        return self.settings.out


def data_sets() -> dict[str, Any]:
    """Return the data of all stages by name."""
    lists: dict[str, Any] = {"train": questions().train, **preferences()._asdict()}
    padded = [pair for pair in lists["pairs"] if pair["kind"] == "padded"]
    return {**lists, "padded_pairs": padded, "style_pairs": style_pairs(lists["train"])}


def style_pairs(train: Sequence[Record]) -> list[Record]:
    """Return a pair of a direct and a padded answer to each question."""
    rng = np.random.default_rng([0, STYLE])
    pairs = [pair(rng, "padded", question, ()) for question in train]
    return [record for record in pairs if record]


def write_data(folder: Path) -> None:
    """Write the data of all stages, unless they are there.  Raises UserError if that fails."""
    paths = {folder / DATA / f"{name}.json": records for name, records in data_sets().items()}
    if all(path.is_file() for path in paths):
        return
    with naming(folder / DATA):
        make_folder(folder / DATA)
    texts = {path: json.dumps(records, indent=2) + "\n" for path, records in paths.items()}
    write_texts(texts, replace=True)


class Settings:
    """The settings of all stages in a folder, with a model to begin with and a seed."""

    def __init__(self, folder: Path, model: str, seed: int):
        self.folder, self.model, self.seed = folder, model, seed

    def data(self, name: str) -> str:
        """Return the file of a data set."""
        return str(self.folder / DATA / f"{name}.json")

    def run(self, name: str) -> str:
        """Return the folder of a stage."""
        return str(self.folder / name)

    def common(self, name: str, learning_rate: float, eps: float = EPS) -> dict[str, Any]:
        """Return what all stages set."""
        return {
            "out": self.folder / name,
            "steps": STEPS[name],
            "learning_rate": learning_rate,
            "eps": eps,
            "weight_decay": 0.0,
            "seed": self.seed,
        }

    def tuning(self, name: str, data: str) -> TrainSettings:
        """Return the settings of a stage that tunes."""
        return TrainSettings(
            **self.common(name, 0.006),
            data=self.data(data),
            model=self.model,
            batch_size=32,
            warmup=0.05,
            validation=0.0,
            samples=0,
            log_every=20,
        )

    def reward(self, name: str, pairs: str) -> RewardSettings:
        """Return the settings of a stage that trains a reward model."""
        return RewardSettings(
            **self.common(name, 1e-3, SMALL_EPS),
            data=self.data(pairs),
            test=self.data("held_out_pairs"),
            model=self.run("mixture"),
            validation=0.0,
        )

    def dpo(self) -> DpoSettings:
        """Return the settings of DPO."""
        return DpoSettings(
            **self.common("dpo", 1.5e-4),
            data=self.data("style_pairs"),
            model=self.run("mixture"),
            beta=1.0,
            validation=0.0,
            samples=0,
        )

    def ppo(
        self, name: str, reward: str, *, learning_rate: float, eps: float, beta: float
    ) -> PpoSettings:
        """Return the settings of a stage of PPO, with the reward model of another stage."""
        return PpoSettings(
            **self.common(name, learning_rate, eps),
            data=self.data("train"),
            model=self.run("mixture"),
            reward_model=self.run(reward),
            value="apart",
            beta=beta,
            prompts=QUESTIONS[name],
            epochs=2,
            minibatches=2,
            max_new_tokens=LONGEST,
            samples=0,
            save_every=max(1, STEPS[name] // EXAMS),
            keep=0,
        )

    def grpo(self) -> GrpoSettings:
        """Return the settings of GRPO."""
        return GrpoSettings(
            **self.common("grpo", 5e-5, SMALL_EPS),
            data=self.data("arithmetic"),
            model=self.run("undertuned"),
            check="equation",
            prompts=QUESTIONS["grpo"],
            max_new_tokens=LONGEST,
            samples=0,
        )


def stages(folder: Path, model: str, seed: int) -> list[Stage]:
    """Return all stages in their order."""
    of = Settings(folder, model, seed)
    honest = of.ppo("ppo", "reward", learning_rate=6e-4, eps=EPS, beta=0.1)
    hacked = of.ppo("hacked", "shallow", learning_rate=5e-4, eps=SMALL_EPS, beta=1e-6)
    shallow = of.reward("shallow", "padded_pairs")
    few = of.tuning("undertuned", "train")
    return [
        Stage(
            "mixture", "tuning on padded and direct answers", of.tuning("mixture", "mixture"), train
        ),
        Stage("reward", "a reward model", of.reward("reward", "pairs"), reward, ()),
        Stage("dpo", "DPO on padded and direct answers", of.dpo(), dpo),
        Stage("ppo", "PPO with this reward model", honest, ppo, followed=True),
        Stage("shallow", "a reward model that has seen padding alone", shallow, reward, ()),
        Stage("hacked", "PPO that hacks it", hacked, ppo, followed=True),
        Stage("undertuned", "tuning for a few steps", few, train),
        Stage("grpo", "GRPO on sums and differences", of.grpo(), grpo),
    ]


def run_stage(stage: Stage) -> None:
    """Do what is left to do of a stage."""
    if is_finished(stage.folder):
        return
    resume = (stage.folder / SETTINGS).is_file()
    stage.run(replace(stage.settings, resume=resume))
