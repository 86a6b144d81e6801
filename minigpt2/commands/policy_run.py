"""Run on policy: the setup of `ppo` and `grpo`, where their settings become values."""

from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

from minigpt2.alignment.on_policy import Phases
from minigpt2.alignment.verifiable_rewards import checkable
from minigpt2.commands.dataset import Dataset, open_dataset, reader_of
from minigpt2.commands.policy_settings import PolicySettings
from minigpt2.commands.rewards import Reward, by_check, by_model
from minigpt2.commands.run_settings import training_config
from minigpt2.commands.setup import first_numbers
from minigpt2.commands.tests import choose_samples, open_tests
from minigpt2.data.records import Record
from minigpt2.device.devices import open_device
from minigpt2.errors import UserError
from minigpt2.inference.model import Model, open_model
from minigpt2.model.parameters import Parameters
from minigpt2.planning.room import require_state
from minigpt2.terminal import note
from minigpt2.training.config import TrainingConfig
from minigpt2.training.evaluation import Limits
from minigpt2.training.precision import check_precision
from minigpt2.training.run import Every
from minigpt2.training.state import State, new_state
from minigpt2.wording import plural


class Prompts(NamedTuple):
    """The prompts of a run, each once, with their records."""

    ids: list[list[int]]
    records: list[Record]
    without_room: int  # left out: their answer would not fit the context
    unchecked: int  # left out: no answer can meet the check
    longest_answer: int  # tokens that may be drawn

    @property
    def longest(self) -> int:
        """The most tokens of a prompt with its answer."""
        return max(map(len, self.ids)) + self.longest_answer

    def line(self) -> str:
        """Return a line that describes them."""
        tokens = sum(map(len, self.ids)) / len(self.ids)
        most = plural(self.longest_answer, "token")
        text = f"{plural(len(self.ids), 'prompt')} with a mean length of {tokens:.0f}, answers of "
        text += f"{most} at most"
        if self.without_room:
            text += f"; {plural(self.without_room, 'prompt')} left out, without room for an answer"
        if self.unchecked:
            text += f"; {plural(self.unchecked, 'record')} left out, which no answer can meet"
        return text


class PolicyRun(NamedTuple):
    """The values of a run."""

    model: Model  # the policy, with the template of the prompts
    reference: Parameters  # the model that the run starts from
    dataset: Dataset
    prompts: Prompts
    reward: Reward
    tests: dict[str, list[Record]]
    samples: list[Record]  # these questions' answers are printed
    limits: Limits
    state: State
    config: TrainingConfig
    every: Every
    is_tuned: bool  # the model came with a template

    def phases(self, settings: PolicySettings, steps: int, **others: Any) -> Phases:
        """Return the phases of a run, each of so many steps."""
        return Phases(
            self.prompts.ids,
            self.state,
            prompts_per_phase=settings.prompts,
            steps_per_phase=steps,
            samples=settings.answers,
            stop=self.dataset.tokenizer.end_of_text,
            max_new_tokens=self.prompts.longest_answer,
            temperature=settings.temperature,
            **others,
        )


def setup_policy(
    settings: PolicySettings,
    start: str | None,
    extended: Callable[[Parameters, Reward], Parameters] = lambda policy, reward: policy,
) -> PolicyRun:
    """Open model, data and reward; `start` is the model of a run that continues.

    `extended` returns the policy with a value function.  Raises UserError if something cannot be
    used.
    """
    library = open_device(settings.device)
    check_precision(settings.precision, library)
    tests = open_tests(settings.data, settings.test, settings.columns, settings.skip_bad)
    model = open_model(start or settings.model, warn=note)
    require_state(model.parameters.config, library)
    dataset = open_dataset(settings, reader_of(model), "questions" if settings.check else "prompts")
    prompts = prompts_of(dataset, settings)
    reward = reward_of_settings(settings, dataset, prompts, library)
    reference = open_model(settings.model).parameters.on(library)
    parameters = extended(model.parameters.on(library), reward)
    rng = first_numbers(settings.seed)
    return PolicyRun(
        model=Model(parameters, model.tokenizer, dataset.template),
        reference=reference,
        dataset=dataset,
        prompts=prompts,
        reward=reward,
        tests=tests,
        samples=choose_samples(list(tests.values()) or [prompts.records], settings.samples, rng),
        limits=Limits(dataset.context, settings.truncate, settings.max_new_tokens),
        state=new_state(parameters, settings.precision, settings.seed),
        config=training_config(settings, settings.steps),
        every=Every(settings.log_every, 0, settings.save_every, settings.save_minutes),
        is_tuned=model.template is not None,
    )


def reward_of_settings(
    settings: PolicySettings, dataset: Dataset, prompts: Prompts, library: ModuleType
) -> Reward:
    """Return what scores the answers; raises UserError."""
    if settings.check:
        return by_check(settings.check, settings.must_end, prompts.records, dataset.tokenizer)
    name, tokenizer = settings.reward_model or "", dataset.tokenizer
    return by_model(name, library, tokenizer, dataset.template, prompts.longest)


def prompts_of(dataset: Dataset, settings: PolicySettings) -> Prompts:
    """Return the questions of a data set as prompts that leave room for an answer.

    Raises UserError if there is none, or none whose answer can be checked.
    """
    records = [record for record in dataset.records if not record.is_text]
    if not records:
        raise UserError(f"{dataset.name} has texts, but no question to answer")
    questions = len(records)
    if settings.check:
        outputs = [record.output for record in records]
        records = [records[i] for i in checkable(settings.check, outputs, dataset.name)]
    examples = dataset.encode(records)
    lengths = [len(example.ids) - example.last_answer for example in examples]
    if not settings.max_new_tokens and not any(record.output for record in records):
        raise UserError(
            f"{dataset.name} has no answers, so max_new_tokens is needed: how long may "
            "an answer be?"
        )
    most = settings.max_new_tokens or min(max(lengths), max(1, dataset.context // 2))
    distinct: dict[tuple[Any, ...], tuple[list[int], Record]] = {}
    for record, example in zip(records, examples, strict=True):
        ids = example.ids[: example.last_answer]
        distinct.setdefault((*ids, record.output), (ids, record))
    fitting = [pair for pair in distinct.values() if len(pair[0]) + most <= dataset.context + 1]
    if not fitting:
        raise UserError(
            f"{dataset.name}: no prompt leaves room for an answer of {plural(most, 'token')} in "
            f"the context of {dataset.context:,}: lower max_new_tokens, or use another template"
        )
    return Prompts(
        ids=[ids for ids, _ in fitting],
        records=[record for _, record in fitting],
        without_room=len(distinct) - len(fitting),
        unchecked=questions - len(records),
        longest_answer=most,
    )
