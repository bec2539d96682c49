"""The tables of a comparison, for terminal, page, MLflow and programs."""

from __future__ import annotations

from dataclasses import asdict
from statistics import median
from typing import TYPE_CHECKING, Any

from nas.report.summary import mean_and_deviation, percent
from nas.statistics import interval

if TYPE_CHECKING:
    from nas.comparison.result import Compared

Table = tuple[str, list[str], list[list[str]]]  # title, columns, rows


def strategies(compared: Compared) -> Table:
    """A row for each strategy: its winners over the seeds."""
    rows = []
    for label in compared.comparison.entries:
        found = [one for one in compared.result.searched if one.strategy == label]
        if not found:
            rows.append([label, "no winner", "", "", "", ""])
            continue
        rows.append(
            [
                label + f" ({len(found)} seed{'s' * (len(found) > 1)})" * (len(found) < compared.comparison.seeds),
                mean_and_deviation([one.test_accuracy for one in found], percentage=True),
                mean_and_deviation([one.validation_accuracy for one in found], percentage=True),
                f"{median(one.parameters for one in found):,.0f}",
                _reached([one.reached for one in found]),
                f"{median(one.seconds for one in found):,.0f}",
            ]
        )
    result, seeds = compared.result, compared.comparison.seeds
    many = f"{seeds} searches of each strategy: mean ± standard deviation, or median"
    title = f"{many if seeds > 1 else 'one search of each strategy'}; {result.test_images:,} test images, opened "
    title += "once" if result.opened == 1 else f"{result.opened} times"
    columns = [
        "strategy",
        "test accuracy",
        "validation",
        "parameters",
        f"trials to {result.target_text}",
        "seconds",
    ]
    return title, columns, rows


def baselines(compared: Compared) -> Table:
    """A row for each baseline."""
    rows = []
    for one in compared.result.tested:
        low, high = interval(one.accuracy, compared.result.test_images)
        known = one.baseline
        rows.append([
            known.name, percent(one.accuracy), f"{100 * low:.1f} to {100 * high:.1f}", f"{known.seconds:,.1f}",
            f"{known.setting}; {known.size}",
        ])  # fmt: skip
    columns = ["baseline", "test", "95 % interval", "seconds", "setting and size"]
    return "no search: models on the same images", columns, rows


def facts(compared: Compared) -> dict[str, Any]:
    """The result as plain data."""
    return {
        "comparison": str(compared.folder),
        "dataset": compared.state.dataset,
        "seeds": compared.comparison.seeds,
        "failed": compared.state.failed,
        **asdict(compared.result),
    }


def _reached(trials: list[int | None]) -> str:
    """The median number of trials until the target, of the searches that have reached it."""
    known = [count for count in trials if count is not None]
    if not known:
        return "never"
    some = "" if len(known) == len(trials) else f" ({len(known)} of {len(trials)})"
    return f"{median(known):.0f}{some}"


def scores(compared: Compared) -> list[tuple[str, float, int]]:
    """Name, value and seed of every test accuracy."""
    found = [(f"test_accuracy.{one.strategy}", one.test_accuracy, one.seed) for one in compared.result.searched]
    return found + [(f"test_accuracy.{one.baseline.name}", one.accuracy, 0) for one in compared.result.tested]
