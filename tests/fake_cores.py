"""A machine that seems to have another number of cores."""


def fake_core_count(monkeypatch, count):
    """Let the engine work as on a machine with so many cores."""
    for module in ("parallel", "ops.attention"):
        monkeypatch.setattr(f"minigpt2.{module}.cores", lambda: count)
