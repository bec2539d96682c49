"""A strategy as a search uses it: as a plugin, whose answers are checked and not awaited for ever."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from functools import partial
from threading import Thread
from typing import TypeVar

from nas import plugins
from nas.architecture.layer import Layer
from nas.errors import NasError, PluginError, SpaceError, TooLateError, UnknownLayerError, plain, quoted
from nas.spaces.questions import Question
from nas.spaces.space import Candidate, SearchSpace
from nas.strategies.strategy import Strategy
from nas.training.recipe import Recipe, check_questions
from nas.trial import Trial

Result = TypeVar("Result")

# Seconds after which a late strategy that computes must let the end of the search go on. With Python's 5 ms, each
# wait for a file or for PyTorch would cost the search 5 ms.
SWITCH = 1e-4


class CheckedStrategy:
    """Asks a strategy and tells it, until a moment (``time.monotonic``; None: however long it takes).

    Args:
        strategy: proposes candidates.
        space: the space of the candidates, which is checked, and each candidate with it; None for no check.
        warn: receives a line about a strategy that does not answer in time.
    """

    def __init__(self, strategy: Strategy, space: SearchSpace | None, warn: Callable[[str], None]) -> None:
        self._strategy, self._space, self._warn = strategy, space, warn
        self._questions: dict[str, Question] | None = None  # of the space, so far
        self.name = str(getattr(strategy, "label", type(strategy).__name__))  # in messages

    def ask(self, count: int, in_training: Sequence[Candidate], until: float | None) -> list[Candidate] | None:
        """The next candidates; None if there is no answer in time.

        Args:
            count: so many, at most.
            in_training: the candidates that were proposed and are not told yet, the oldest first.
            until: the moment.

        Raises:
            PluginError: the strategy fails, or its answer is not a list of candidates of the space.
            SpaceError: the space has two questions of one name, or a wrong question about the recipe.
        """
        self._check_space()
        self._strategy.in_training = tuple(in_training)
        try:
            proposed = self._call("ask", partial(self._strategy.ask, count), until)
        except TooLateError:
            return None
        if not isinstance(proposed, list) or not all(isinstance(item, Candidate) for item in proposed):
            raise PluginError(
                f"the strategy {self.name} must return a list of Candidates from ask, not {proposed!r:.80}"
            )
        for candidate in proposed[:count]:
            self._check_data(candidate)
        self._check_space(proposed[:count])
        return proposed[:count]

    def tell(self, trials: Sequence[Trial], in_training: Sequence[Candidate], until: float | None) -> None:
        """Tell the strategy. If it takes too long, the time is over, and it is not asked again.

        Raises:
            PluginError: the strategy fails.
        """
        self._strategy.in_training = tuple(in_training)
        with suppress(TooLateError):
            self._call("tell", partial(self._strategy.tell, trials), until)

    def _call(self, method: str, call: Callable[[], Result], until: float | None) -> Result:
        label = f"the strategy {self.name}"
        try:
            return plugins.guarded(partial(_in_time, call, until, label), f"{label} failed in {method}")
        except TooLateError as error:
            self._warn(f"{error}: the search ends without waiting longer")
            raise

    def _check_data(self, candidate: Candidate) -> None:
        """Require that the journal can write a candidate and read it back."""
        problem: object = f"{quoted(dict(candidate.choices))} or its network is read back as another"
        try:
            text = json.dumps(candidate.to_dict(), allow_nan=False)
            if Candidate.from_dict(json.loads(text)) == candidate:
                return
        except UnknownLayerError as error:
            kinds = {type(layer) for layer in candidate.architecture.layers}
            kind = next((kind for kind in kinds if f"layer {kind.__name__!r}" in str(error)), Layer)
            place = "a notebook or script" if kind.__module__ == "__main__" else kind.__module__
            message = f"the layer {kind.__name__} is defined in {place}, where workers cannot find it"
            raise PluginError(f"{message}: save the class in a file of plugins/") from None
        except (TypeError, ValueError, AttributeError, RecursionError, NasError) as error:
            problem = error
        reason = plain(str(problem))[:200]
        raise PluginError(f"the strategy {self.name} must propose candidates of plain data (JSON): {reason}")

    def _check_space(self, candidates: Sequence[Candidate] = ()) -> None:
        """Refuse a space with wrong questions, and candidates of another space."""
        if (space := self._space) is None:
            return
        name = f"the space {type(space).__name__}"
        if self._questions is None:
            self._questions = plugins.guarded(space.check_questions, f"{name} failed in build")
            check_questions(self._questions)
        for candidate in candidates:
            check = partial(space.check_candidate, candidate, self._questions)
            try:
                plugins.guarded(check, f"{name} failed in build")
                Recipe().changed(candidate.recipe)
            except SpaceError as error:
                proposed = f"the strategy {self.name} proposes the candidate {candidate.id}"
                raise PluginError(f"{proposed}, but {error}") from None


def _in_time(action: Callable[[], Result], until: float | None, name: str) -> Result:
    """Run the code of a plugin, and wait for its answer until a moment (``time.monotonic``; None: without end).

    Code that is late cannot be ended: it goes on in a thread of its own, which ends with this process.

    Raises:
        TooLateError: there is no answer at that moment.
    """
    if until is None:
        return action()
    answer: Future[Result] = Future()

    def work() -> None:
        try:
            answer.set_result(action())
        except BaseException as error:  # noqa: BLE001  # raised again where the answer is awaited
            answer.set_exception(error)

    Thread(target=work, name=name, daemon=True).start()
    if not wait([answer], max(0.0, until - time.monotonic())).done:
        sys.setswitchinterval(SWITCH)
        raise TooLateError(f"{name} has not answered in time")
    return answer.result()
