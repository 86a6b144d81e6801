"""A machine with another number of cores."""


def take_cores(monkeypatch, count):
    """Let the engine take this machine to have so many cores."""
    for module in ("parallel", "ops.attention"):
        monkeypatch.setattr(f"minigpt2.{module}.cores", lambda: count)
