"""Writes the golden file of proposals: what each strategy proposes on each space, for made-up scores.

    python tests/golden/write_candidates.py tests/golden/candidates.json

A change of this file means that searches find other networks than before: say so in CHANGELOG.md.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

from nas import plugins
from nas.architecture.architecture import Limits
from nas.objectives import Objective, scored
from nas.trial import Job, Trial, job_seed

PLUGINS = Path(__file__).parents[2] / "plugins"
STRATEGIES = ("evolve", "trial-and-error", "reference")
SPACES = ("cnn", "lecture", "nasbench201")
SEEDS = (0, 1, 2)
CANDIDATES, BATCH = 48, 8
OBJECTIVES = [Objective.parse("-validation_loss")]


def proposals(strategy: str, space: str, seed: int) -> list[str]:
    """The ids of the first candidates, in order; fewer where nothing is left to propose."""
    made = plugins.create(plugins.find("space", space, [PLUGINS]), {}).within(Limits())
    asked = plugins.create(plugins.find("strategy", strategy), {}, space=made, objectives=OBJECTIVES, seed=seed)
    ids: list[str] = []
    while len(ids) < CANDIDATES:
        candidates = asked.ask(BATCH)
        if not candidates:
            break
        asked.tell([trial_of(Job(one, 1.0, job_seed(seed, one.architecture.id))) for one in candidates])
        ids += [one.architecture.id for one in candidates]
    return ids


def trial_of(job: Job) -> Trial:
    """A trial with a loss that follows from the network's id; one in sixteen fails."""
    number = int(hashlib.sha256(job.candidate.architecture.id.encode()).hexdigest()[:8], 16)
    if number % 16 == 0:
        return Trial.failed(job, "crash", "made up")
    loss = number / 0xFFFFFFFF
    metrics = {"validation_loss": loss, "validation_accuracy": 1 - loss / 3, "parameters": 1000.0}
    return scored(Trial(job, metrics), OBJECTIVES)


def write(path: Path) -> None:
    """Write what all strategies propose on all spaces."""
    found = {
        f"{strategy} on {space}, seed {seed}": proposals(strategy, space, seed)
        for strategy in STRATEGIES
        for space in SPACES
        for seed in SEEDS
    }
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
