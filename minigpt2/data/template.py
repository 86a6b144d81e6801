"""Template: how a question becomes a prompt, the same way in training and in use.

The texts are Alpaca's (Taori et al. 2023).  A prompt ends with a line break, so
that the answer starts a fresh line and its first token does not depend on how
the prompt's last word was cut into tokens.

In a conversation the first question has the prompt of a single one, or a text of
the user's, the system's message, in place of the opening.  Later questions have no
opening.  Each answer is closed by end-of-text.
"""

from minigpt2.data.records import Record

WITH_INPUT = """\
Below is an instruction that describes a task, paired with an input that provides further \
context. Write a response that appropriately completes the request.

### Instruction:
{instruction}

### Input:
{input}

### Response:
"""

QUESTION = """\
### Instruction:
{instruction}

### Response:
"""

WITHOUT_INPUT = f"""\
Below is an instruction that describes a task. Write a response that appropriately completes \
the request.

{QUESTION}"""


def prompt_of(record: Record) -> str:
    """Return the prompt of a record: all that the model reads before it answers."""
    template = WITH_INPUT if record.input else WITHOUT_INPUT
    return template.format(instruction=record.instruction, input=record.input)


def first_prompt(question: str, system: str = "") -> str:
    """Return the prompt of a conversation's first question."""
    if not system:
        return prompt_of(Record(question, "", ""))
    return f"{system}\n\n{next_prompt(question)}"


def next_prompt(question: str) -> str:
    """Return the prompt of a later question, which follows an answer and end-of-text."""
    return QUESTION.format(instruction=question)
