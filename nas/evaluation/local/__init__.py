"""Worker processes on this machine."""

from typing import Any


def __getattr__(name: str) -> Any:
    if name != "LocalEvaluator":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from nas.evaluation.local.local import LocalEvaluator  # imported here, because worker processes do not need it

    return LocalEvaluator
