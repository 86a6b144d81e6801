"""Data set: the settings that name a data set, and the one way to open it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from minigpt2.adapter_weights import whole_model
from minigpt2.data.batches import TrainingSet, split, training_set
from minigpt2.data.examples import Example, encode, spells_end_of_text
from minigpt2.data.formats import ALPACA_FORMAT, PREFERENCE_FORMATS, Format
from minigpt2.data.loading import DataSet, load_data
from minigpt2.data.loss_weights import LossWeights
from minigpt2.data.records import Record
from minigpt2.data.template import Template
from minigpt2.data.template_files import open_template, stored_template
from minigpt2.data.tokenizer import Tokenizer, gpt2_tokenizer
from minigpt2.data.truncation import Cuts, Policy, fit_to_context, require_examples, truncate_all
from minigpt2.data.vocabulary import END_OF_TEXT
from minigpt2.errors import UserError, require_at_least
from minigpt2.inference.model import Model, RewardModel, tokenizer_for
from minigpt2.model.config import OFFICIAL, GPT2Config
from minigpt2.model_folders import find_model
from minigpt2.reports.progress import tracked
from minigpt2.tensors import folder_of
from minigpt2.terminal import note
from minigpt2.wording import plural

ALMANAC = "almanac"
Kind = Literal["questions", "pairs", "prompts"]  # prompts may have answers


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """The settings of a data set and of its examples.

    Args:
        data: file or folder of questions and answers, or "almanac" for the questions that ship
        model: model whose tokenizer and context length are used: a name, or the folder of a
            model or of a run
        columns: your field for each field of a format, e.g. {"instruction": "ask"}
        skip_bad: leave out entries that cannot be used, such as those with an empty answer, and
            print how many
        template: alpaca, qa, chat, raw, or a .yaml or .json file of your own (default: the
            template that the model was tuned with, or else that of the data's format)
        context: longest sequence in tokens (default: the model's context)
        truncate: what to do with an example that is longer than the context: answer cuts the end
            of the answer, and the prompt only where it alone exceeds half of the context; prompt
            cuts the prompt until the answer fits; drop leaves the example out
    """

    data: str
    model: str = "tiny"
    columns: dict[str, str] | None = None
    skip_bad: bool = False
    template: str | None = None
    context: int | None = None
    truncate: Policy = "answer"

    def __post_init__(self) -> None:
        require_at_least(1, self, "context")


@dataclass(frozen=True, kw_only=True)
class WeightedDataSettings(DataSettings):
    """The settings of a data set and of its tokens' weights in the loss.

    Args:
        prompt_weight: weight of a prompt token in the loss (answer tokens: 1)
        loss: token weighs every answer token the same, example every example
    """

    prompt_weight: float = 0.0
    loss: Literal["token", "example"] = "token"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(0, self, "prompt_weight")

    def loss_weights(self) -> LossWeights:
        """Return the weights of tokens in the loss."""
        return LossWeights(self.prompt_weight, self.loss == "example")


class Reader(NamedTuple):
    """What it takes to read a data set: tokenizer, context, and a tuned model's template."""

    tokenizer: Tokenizer
    longest: int  # tokens
    template: Template | None  # of a tuned model


class Dataset(NamedTuple):
    """Records, with all that turns them into examples."""

    name: str
    format: str
    records: list[Record]
    numbers: Sequence[int]  # of the records' entries in the data
    tokenizer: Tokenizer
    template: Template
    context: int  # tokens
    truncate: Policy

    def encode(self, records: Sequence[Record]) -> list[Example]:
        """Return records as examples of any length."""
        return list(self._encoded(records))

    def examples(self, records: Sequence[Record]) -> tuple[list[Example], Cuts]:
        """Return records as examples that fit the context, and the counts of cuts.

        Raises UserError if no example is left.
        """
        fitting, cuts = truncate_all(self._encoded(records), self.context, self.truncate)
        require_examples(fitting, cuts, self.context)
        return fitting, cuts

    def training_set(self, validation: float, seed: int) -> TrainingSet:
        """Return all records as examples to train on, and a share for validation.

        Raises UserError if no example is left to train on.
        """
        encoded, context = self.encode(self.records), self.context
        examples = training_set(encoded, context, self.truncate, validation=validation, seed=seed)
        require_examples(examples.training, examples.cuts, context)
        return examples

    def training_numbers(self, validation: float, seed: int) -> list[int]:
        """Return the number of the entry that each example of `training_set` to train on is of."""
        places, _ = split(range(len(self.records)), validation, seed)
        numbers = []
        for place, example in zip(
            places, self.encode([self.records[p] for p in places]), strict=True
        ):
            pieces = fit_to_context(example, self.context, self.truncate)
            numbers += [self.numbers[place]] * len(pieces)
        return numbers

    def _encoded(self, records: Sequence[Record]) -> Iterator[Example]:
        """Yield records as examples of any length."""
        for record in tracked("encoding", records):
            yield encode(record, self.tokenizer, self.template)


def warnings_of(records: Sequence[Record], cuts: Cuts) -> list[str]:
    """Return what a user should know about the examples before training on them."""
    warnings = []
    if cuts.no_question:
        verb = "has" if cuts.no_question == 1 else "have"
        warnings.append(
            f"{plural(cuts.no_question, 'example')} {verb} no question left: use a longer "
            "--context, a shorter --template, or another --truncate"
        )
    spelled = sum(spells_end_of_text(record) for record in records)
    if spelled:
        verb = "spells" if spelled == 1 else "spell"
        warnings.append(
            f"{plural(spelled, 'text')} {verb} {END_OF_TEXT}: there it is ordinary text, and never "
            "the token that ends an answer"
        )
    return warnings


def reader_of(model: Model | RewardModel) -> Reader:
    """Return the reader of an open model."""
    return Reader(model.tokenizer, model.parameters.config.n_positions, model.template)


def open_reader(model: str) -> Reader:
    """Return the reader of a model without opening its weights; raises UserError."""
    if model in OFFICIAL:
        return Reader(gpt2_tokenizer(), OFFICIAL[model].n_positions, None)
    path = folder_of(find_model(model))
    folder = whole_model(path)
    config = GPT2Config.load(folder / "config.json")
    tokenizer = tokenizer_for(folder, config.vocab_size, warn=note)
    return Reader(tokenizer, config.n_positions, stored_template(path) or stored_template(folder))


def open_dataset(settings: DataSettings, reader: Reader, kind: Kind = "questions") -> Dataset:
    """Open a data set, of the almanac its questions or its pairs.

    The template is the one in the settings, else the one that the model was tuned with, else the
    one of the data's format.  Raises UserError if a file cannot be used, or if the context is
    longer than the model's.
    """
    data = open_data(settings.data, settings.columns, settings.skip_bad, kind)
    template = None if settings.template else reader.template
    context = settings.context or reader.longest
    if context > reader.longest:
        raise UserError(
            f"context {context} is longer than the {reader.longest} of {settings.model}"
        )
    return Dataset(
        name=settings.data,
        format=data.format.name,
        records=data.records,
        numbers=data.numbers,
        tokenizer=reader.tokenizer,
        template=template or open_template(settings.template or data.format.template),
        context=context,
        truncate=settings.truncate,
    )


def open_data(
    name: str,
    columns: Mapping[str, str] | None = None,
    skip_bad: bool = False,
    kind: Kind = "questions",
) -> DataSet:
    """Return the records of some data, of the almanac those to train on; raises UserError."""
    if name == ALMANAC:
        records, data_format = almanac_data(pairs=kind == "pairs")
        return DataSet(records, data_format, [], range(len(records)))
    return open_files(Path(name), columns, skip_bad, kind)


def open_files(
    path: Path, columns: Mapping[str, str] | None, skip_bad: bool, kind: Kind = "questions"
) -> DataSet:
    """Return the records of a file or folder, and print what is left out; raises UserError."""
    data = load_data(path, columns, skip_bad, prompts=kind == "prompts")
    for text in data.notes:
        note(text)
    return data


def almanac_data(*, pairs: bool) -> tuple[list[Record], Format]:
    """Return the trained questions or the trained pairs of the almanac, and their format."""
    from minigpt2.data.almanac import questions  # these take time to load
    from minigpt2.data.almanac.preferences import preferences

    if pairs:
        return almanac_records(preferences(0).pairs), PREFERENCE_FORMATS[0]
    return almanac_records(questions(0).train), ALPACA_FORMAT


def almanac_records(entries: Sequence[Mapping[str, str]]) -> list[Record]:
    """Return the almanac's questions or pairs as records."""
    return [
        Record(
            entry["instruction"],
            entry["input"],
            entry["chosen"] if "chosen" in entry else entry["output"],
            rejected=entry.get("rejected"),
            kind=entry.get("kind", ""),
        )
        for entry in entries
    ]
