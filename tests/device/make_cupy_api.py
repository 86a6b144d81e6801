"""Write a list of the names and keywords that CuPy has: `python -m tests.device.make_cupy_api`.

It needs CuPy's wheel, not a GPU.  The fake CuPy refuses what is not in the list.
"""

import inspect
import json
import warnings
from pathlib import Path

import numpy as np

import minigpt2.device

TARGET = Path(minigpt2.device.__file__).parent / "cupy_api.json"


def keywords_of(name, function):
    """The keywords that a function takes; None if its signature does not show them."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (ValueError, TypeError):
        return ["casting", "dtype", "out"] if isinstance(getattr(np, name), np.ufunc) else None
    if any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return [parameter.name for parameter in parameters]


def api_of(cupy):
    """What CuPy has of NumPy's names: functions with keywords, constants, methods of arrays."""
    functions, constants = {}, []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in dir(np):
            value = None if name.startswith("_") else getattr(cupy, name, None)
            if value is None or inspect.ismodule(value):
                continue
            if isinstance(value, type) or not callable(value):
                constants.append(name)
            else:
                functions[name] = keywords_of(name, value)
    methods = [name for name in dir(cupy.ndarray) if not name.startswith("_")]
    return {
        "cupy": cupy.__version__,
        "functions": functions,
        "constants": constants,
        "ndarray": methods,
    }


def written(api):
    """The text of the file."""
    return json.dumps(api, indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    import cupy

    TARGET.write_text(written(api_of(cupy)), encoding="utf-8")
    print(f"{TARGET.name}: CuPy {cupy.__version__}")
