"""Worker processes on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nas.evaluation.local.local import LocalEvaluator as LocalEvaluator


def __getattr__(name: str) -> Any:
    if name == "LocalEvaluator":  # imported when it is asked for: worker processes do without it
        from nas.evaluation.local.local import LocalEvaluator

        return LocalEvaluator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
