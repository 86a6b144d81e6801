"""Commands from Python: each is a function that takes the settings of its command by name.

    import minigpt2

    summary = minigpt2.train("questions.json", model="gpt2", epochs=2)
    minigpt2.dpo("pairs.json", model=summary["run"]["folder"])

The official weights must be there: `minigpt2 download gpt2` fetches them, once.

Wrong settings raise `minigpt2.UserError`, a ValueError, with one sentence that says what is wrong.
A run returns its summary, which holds every number that was printed; summary["run"]["folder"] is
where its checkpoints are.
"""

from dataclasses import MISSING, fields
from typing import Any, get_type_hints

from minigpt2.checked import checked
from minigpt2.cli import action, build_settings, refused_by, settings_class
from minigpt2.errors import UserError
from minigpt2.help import is_path
from minigpt2.settings import require_names


def train(data: Any = None, **settings: Any) -> dict[str, Any]:
    """Tune a model as `minigpt2 train` does; return the run's summary.

    `minigpt2 train --help` lists the settings and their defaults.
    """
    return run_command("train", data, settings)


def reward(data: Any = None, **settings: Any) -> dict[str, Any]:
    """Train a reward model as `minigpt2 reward` does; return the run's summary.

    `minigpt2 reward --help` lists the settings and their defaults.
    """
    return run_command("reward", data, settings)


def dpo(data: Any = None, **settings: Any) -> dict[str, Any]:
    """Let a model prefer the chosen answers as `minigpt2 dpo` does; return the run's summary.

    `minigpt2 dpo --help` lists the settings and their defaults.
    """
    return run_command("dpo", data, settings)


def ppo(data: Any = None, **settings: Any) -> dict[str, Any]:
    """Let a model learn from rewards as `minigpt2 ppo` does; return the run's summary.

    `minigpt2 ppo --help` lists the settings and their defaults.
    """
    return run_command("ppo", data, settings)


def grpo(data: Any = None, **settings: Any) -> dict[str, Any]:
    """Let a model compare its own answers as `minigpt2 grpo` does; return the run's summary.

    `minigpt2 grpo --help` lists the settings and their defaults.
    """
    return run_command("grpo", data, settings)


def evaluate(data: Any = None, **settings: Any) -> dict[str, Any]:
    """Measure a model as `minigpt2 evaluate` does; return the numbers.

    `minigpt2 evaluate --help` lists the settings and their defaults.
    """
    return run_command("evaluate", data, settings)


def run_command(name: str, data: Any, others: dict[str, Any]) -> Any:
    """Do what a command does, with its data, if not None, and its other settings, by name.

    Raises UserError for wrong ones.
    """
    values = others if data is None else {"data": data, **others}
    kind = settings_class(name)
    if reasons := [refused_by(kind)[word] for word in values if word in refused_by(kind)]:
        raise UserError(reasons[0])
    hints = get_type_hints(kind)
    settings = checked(hints, values, name)
    for field in fields(kind):
        required = field.default is MISSING and field.default_factory is MISSING
        if required and field.name not in settings:
            raise UserError(f"{name} needs {field.name}: pass {field.name}=...")
    for setting, value in values.items():
        if value is not None and is_path(setting, hints[setting]):
            names = value if isinstance(value, list | tuple) else [value]
            require_names(name, setting, hints[setting], [str(path) for path in names])
    return action(name)(build_settings(name, settings))
