"""The tables of a comparison, for terminal, page, MLflow and programs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from statistics import median
from typing import TYPE_CHECKING, Any

from nas.comparison.curves import best_so_far, quartiles
from nas.comparison.progress import progress_of
from nas.data.kinds import NOUNS
from nas.objectives import FRACTIONS, Objective
from nas.report.words import mean_and_deviation, percent
from nas.statistics import interval

if TYPE_CHECKING:
    from nas.comparison.result import Compared

SHARES = (0.5, 1.0)  # of the trials, at which the table of progress has the best score so far
Table = tuple[str, list[str], list[list[str]]]  # title, columns, rows


def tables(compared: Compared) -> dict[str, Table]:
    """Every table for which a comparison has data, by its name."""
    found = {"strategies": strategies(compared), "progress": progress(compared)}
    has_any = compared.result.tested or compared.state.left_out
    return {**found, "baselines": baselines(compared)} if has_any else found


def strategies(compared: Compared) -> Table:
    """A row for each strategy: its winners over the seeds."""
    rows = []
    for label in compared.comparison.entries:
        found = [one for one in compared.result.searched if one.strategy == label]
        if not found:
            rows.append([label, "no winner", "", "", ""])
            continue
        rows.append(
            [
                label + f" ({len(found)} seed{'s' * (len(found) > 1)})" * (len(found) < compared.comparison.seeds),
                mean_and_deviation([one.test_accuracy for one in found], percentage=True),
                mean_and_deviation([one.validation_accuracy for one in found], percentage=True),
                f"{median(one.parameters for one in found):,.0f}",
                f"{median(one.seconds for one in found):,.0f}",
            ]
        )
    result, seeds, noun = compared.result, compared.comparison.seeds, NOUNS[compared.state.kind].many
    many = f"{seeds} searches of each strategy: mean ± standard deviation, or median"
    title = f"{many if seeds > 1 else 'one search of each strategy'}; {result.test_images:,} test {noun}, opened "
    title += "once" if result.opened == 1 else f"{result.opened} times"
    return title, ["strategy", "test accuracy", "validation", "parameters", "seconds"], rows


def progress(compared: Compared) -> Table:
    """A row for each strategy: the best score so far, and what it takes to reach the target."""
    objective = Objective.parse(compared.comparison.first.objectives[0])
    went = {one.folder: progress_of(compared.folder / one.folder) for one in compared.result.searched}
    most = max((len(one.scores) for one in went.values()), default=0)
    points = sorted({math.ceil(most * share) for share in SHARES})
    rows = []
    for label in compared.comparison.entries:
        found = [one for one in compared.result.searched if one.strategy == label]
        if not found:
            continue
        curves = [best_so_far(p.scores, [1.0] * len(p.scores)) for p in (went[one.folder] for one in found)]
        low, middle, high = quartiles(curves, points) * objective.sign
        cells = [_value(value, objective) for value in middle]
        cells.append("–".join(_value(value, objective) for value in sorted((low[-1], high[-1]))))
        cells += [_middle([one.reached for one in found]), _middle([one.reached_seconds for one in found])]
        rows.append([label, *cells])
    target, name = compared.result.target_text, objective.metric.replace("_", " ")
    title = f"best {name} so far, median of the seeds; median trials and seconds until {target}"
    columns = ["strategy", *(f"after {n:,}" for n in points), "quartiles", "trials until", "seconds until"]
    return title, columns, rows


def _value(value: float, objective: Objective) -> str:
    """A score as text; accuracies in percent."""
    if not math.isfinite(value):
        return "none"
    return f"{100 * value:.2f}" if objective.metric in FRACTIONS else f"{value:#.3g}"


def baselines(compared: Compared) -> Table:
    """A row for each baseline; of texts, with the bits per character; of one that is left out, with the reason."""
    rows, has_bits = [], any(one.bits is not None for one in compared.result.tested)
    for one in compared.result.tested:
        low, high = interval(one.accuracy, compared.result.test_images)
        known = one.baseline
        rows.append([
            known.name, percent(one.accuracy), f"{100 * low:.1f} to {100 * high:.1f}",
            *(["" if one.bits is None else f"{one.bits:.3f}"] if has_bits else []),
            f"{known.seconds:,.1f}", f"{known.setting}; {known.size}",
        ])  # fmt: skip
    bits = ["bits per character"] if has_bits else []
    columns = ["baseline", "test", "95 % interval", *bits, "seconds", "setting and size"]
    rows += [[name, *[""] * (len(columns) - 2), reason] for name, reason in compared.state.left_out.items()]
    return f"no search: models on the same {NOUNS[compared.state.kind].many}", columns, rows


def facts(compared: Compared) -> dict[str, Any]:
    """The result as plain data."""
    return {
        "comparison": str(compared.folder),
        "dataset": compared.state.dataset,
        "seeds": compared.comparison.seeds,
        "failed": compared.state.failed,
        "left_out": compared.state.left_out,
        **asdict(compared.result),
    }


def _middle(costs: Sequence[float | None]) -> str:
    """The median of what it took to reach the target, of the searches that have reached it."""
    known = [cost for cost in costs if cost is not None]
    if not known:
        return "never"
    some = "" if len(known) == len(costs) else f" ({len(known)} of {len(costs)})"
    return f"{median(known):,.0f}{some}"


def scores(compared: Compared) -> list[tuple[str, float, int]]:
    """Name, value and seed of every test accuracy."""
    found = [(f"test_accuracy.{one.strategy}", one.test_accuracy, one.seed) for one in compared.result.searched]
    return found + [(f"test_accuracy.{one.baseline.name}", one.accuracy, 0) for one in compared.result.tested]
