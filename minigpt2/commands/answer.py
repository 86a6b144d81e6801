"""Answer: a model answers one question."""

from dataclasses import dataclass

from minigpt2.commands.decoding import DecodingSettings
from minigpt2.data.records import Record
from minigpt2.errors import UserError
from minigpt2.inference.answers import answer_questions
from minigpt2.terminal import note, write


@dataclass(frozen=True, kw_only=True)
class AnswerSettings(DecodingSettings):
    """Answer a question with a model.

    Examples:
        minigpt2 answer "Which country has the capital Copenhagen?" --model runs/almanac-1
        minigpt2 answer "Put this in order." --input "3, 1, 2" --temperature 0.7

    Output:
        The answer.  In a terminal, control codes in it are spelled, as \\x1b.
        A file or a pipe gets it as the model wrote it.

    Args:
        question: question or instruction
        input: text that the question is about, if it needs one
    """

    question: str
    input: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.question.strip():
            raise UserError("the question is empty")


def answer(settings: AnswerSettings) -> str:
    """Print the answer, and return it."""
    (text,) = answer_questions(
        settings.open_model(),
        [Record(settings.question, settings.input, "")],
        max_new_tokens=settings.max_new_tokens,
        sampling=settings.sampling(),
        rng=settings.rng(),
        warn=note,
    )
    write(text)
    return text
