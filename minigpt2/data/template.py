"""Template: how a question becomes a prompt, the same way in training and in use.

The texts are Alpaca's (Taori et al. 2023).  A prompt ends with a line break, so
that the answer starts a fresh line and its first token does not depend on how
the prompt's last word was cut into tokens.
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

WITHOUT_INPUT = """\
Below is an instruction that describes a task. Write a response that appropriately completes \
the request.

### Instruction:
{instruction}

### Response:
"""


def prompt_of(record: Record) -> str:
    """Return the prompt of a record: all that the model reads before it answers."""
    template = WITH_INPUT if record.input else WITHOUT_INPUT
    return template.format(instruction=record.instruction, input=record.input)
