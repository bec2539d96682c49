"""What may be concluded from a comparison: true differences are found, and made-up ones are not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np
import pytest

from nas.comparison.curves import best_so_far, quartiles, reached
from nas.comparison.verdicts import Sample, Verdict, _concluded, _Pair, beside, holm, sentence, verdicts
from nas.records.predictions import Array
from nas.statistics import difference_by_chance

REPETITIONS = 1000
NOISE = 0.014  # two standard errors of a proportion of 5 % in 1,000 repetitions

Draw = Callable[[np.random.Generator, tuple[int, ...]], Array]
NORMAL: Draw = lambda random, shape: random.normal(size=shape)  # noqa: E731
SKEWED: Draw = lambda random, shape: random.exponential(size=shape)  # noqa: E731
LOPSIDED: Draw = lambda random, shape: np.stack([SKEWED(random, shape[1:]), np.ones(shape[1:])])  # noqa: E731


def concluded(accuracies: Array) -> list[Verdict]:
    """The verdicts on accuracies in points, (strategies, seeds), with infinitely many images."""
    return _concluded(
        _Pair(str(i), str(j), accuracies.shape[1], float(apart.mean()), float(apart.std(ddof=1)))
        for (i, first), (j, second) in combinations(enumerate(accuracies / 100), 2)
        for apart in [first - second]
    )


def images(
    random: np.random.Generator, strategies: int, seeds: int, count: int, own: float = 0.5, noise: float = 0.5
) -> list[Sample]:
    """Strategies that are equally good at about 97 % of all images.

    A network has an image right if this is not too difficult. The difficulty of an image is the same for all
    networks, but for a part that depends on the strategy and one that depends on the network, with the standard
    deviations ``own`` and ``noise``.
    """
    difficulty = random.normal(size=count) + own * random.normal(size=(strategies, 1, count))
    difficulty = difficulty + noise * random.normal(size=(strategies, seeds, count))
    ability = 1.88 * (1 + own**2 + noise**2) ** 0.5 + 0.1 * random.normal(size=(strategies, seeds, 1))
    return [Sample(str(i), dict(enumerate(right))) for i, right in enumerate(difficulty < ability)]


@pytest.mark.parametrize("draw", [NORMAL, SKEWED], ids=["normal", "skewed"])
@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_without_a_difference_hardly_any_comparison_finds_one(seeds: int, draw: Draw) -> None:
    random = np.random.default_rng(seeds)
    alarms = sum(
        any(verdict.is_clear for verdict in concluded(draw(random, (4, seeds)))) for _ in range(REPETITIONS)
    )
    assert alarms <= (0.05 + NOISE) * REPETITIONS


def test_a_difference_of_two_standard_deviations_is_found_with_ten_seeds() -> None:
    random = np.random.default_rng(0)
    found = np.zeros(3)
    for _ in range(REPETITIONS):
        accuracies = random.normal(size=(4, 10))
        accuracies[0] += 2
        found += [verdict.better == "0" for verdict in concluded(accuracies)[:3]]
    assert (found >= 0.8 * REPETITIONS).all()


@pytest.mark.parametrize(
    ("draw", "least"), [(NORMAL, 0.93), (SKEWED, 0.93), (LOPSIDED, 0.86)], ids=["normal", "skewed", "lopsided"]
)
@pytest.mark.parametrize("seeds", [3, 5, 10, 20])
def test_the_interval_of_one_pair_holds_the_truth_as_often_as_it_says(
    seeds: int, draw: Draw, least: float
) -> None:
    """Less often if one strategy is always the same and the other skewed; no interval for few seeds mends that."""
    random = np.random.default_rng(seeds)
    found = [concluded(draw(random, (2, seeds)))[0] for _ in range(2 * REPETITIONS)]
    assert least <= np.mean([verdict.low <= 0 <= verdict.high for verdict in found]) <= 0.98


@pytest.mark.parametrize(("seeds", "count"), [(2, 100), (3, 1000), (10, 1000)])
def test_another_choice_of_test_images_is_in_the_interval(seeds: int, count: int) -> None:
    """Strategies are equal on average over all images, but each finds other images easy."""
    random = np.random.default_rng(0)
    found = [verdicts(images(random, 2, seeds, count, own=1.0))[0] for _ in range(REPETITIONS)]
    misses = sum(verdict.is_clear for verdict in found)
    assert misses <= (0.05 + NOISE) * REPETITIONS
    assert seeds < 10 or misses >= 0.02 * REPETITIONS


def test_the_same_images_for_both_make_a_difference_clearer() -> None:
    random = np.random.default_rng(0)
    samples = images(random, 2, 20, 2000, own=0.0, noise=0.1)
    order = random.permutation(2000)
    mixed = Sample("mixed", {seed: right[order] for seed, right in samples[1].right.items()})
    paired, unpaired = verdicts(samples)[0], verdicts([samples[0], mixed])[0]
    assert unpaired.difference == pytest.approx(paired.difference)
    assert paired.high - paired.low < 0.7 * (unpaired.high - unpaired.low)


def test_the_standard_error_is_that_of_a_bootstrap_over_seeds_and_images() -> None:
    random = np.random.default_rng(0)
    first, second = images(random, 2, 20, 2000, own=1.0)
    apart = np.stack([first.right[seed].astype(float) - second.right[seed] for seed in range(20)])
    seeds = random.multinomial(20, [1 / 20] * 20, size=2000) / 20
    chosen = random.multinomial(2000, [1 / 2000] * 2000, size=2000) / 2000
    drawn = np.einsum("bs,bs->b", seeds, chosen @ apart.T)
    verdict = verdicts([first, second])[0]
    margin = (verdict.high - verdict.low) / 2
    assert margin == pytest.approx(2.03 * drawn.std(), rel=0.08)  # between z, 1.96, and t, 2.09


def test_interval_and_p_value_never_contradict_each_other() -> None:
    random = np.random.default_rng(0)
    clear = 0
    for size in range(300):
        found = concluded(random.normal(size=(4, 5)) + size % 6 * np.arange(4)[:, None])
        for verdict in found:
            assert verdict.is_clear == (verdict.chance <= 0.05) == (verdict.better is not None)
            assert verdict.low <= verdict.difference <= verdict.high
            clear += verdict.is_clear
    assert 300 < clear < 1500


def test_as_many_seeds_as_are_suggested_find_the_difference_four_times_of_five() -> None:
    for spread, of_images in [(1.0, 0.0), (1.0, 0.15), (3.0, 0.0)]:
        (verdict,) = _concluded([_Pair("a", "b", 5, 0.9, spread, of_images)])
        assert verdict.enough is not None
        assert not verdict.is_clear
        random, found = np.random.default_rng(0), 0
        for _ in range(REPETITIONS):
            apart = 0.9 + spread * random.normal(size=verdict.enough) + of_images * random.normal()
            pair = _Pair("a", "b", len(apart), float(apart.mean()), float(apart.std(ddof=1)), of_images)
            found += _concluded([pair])[0].is_clear
        assert 0.72 <= found / REPETITIONS <= 0.88


def test_no_number_of_seeds_makes_up_for_too_few_test_images() -> None:
    (verdict,) = _concluded([_Pair("a", "b", 5, 0.01, 0.001, 0.01)])
    assert verdict.enough is None
    assert sentence(verdict) == (
        "a and b cannot be told apart with 5 seeds, nor with more of them on so few test images"
    )


def test_holm_corrects_the_smallest_most_and_stops_at_the_first_that_is_too_large() -> None:
    corrected, levels = holm([0.04, 0.001, 0.02, 0.03])
    assert corrected == pytest.approx([0.06, 0.004, 0.06, 0.06])
    assert levels == pytest.approx([0.05 / 3, 0.05 / 4, 0.05 / 3, 0.05 / 3])
    assert holm([]) == ([], [])


def test_more_strategies_make_wider_intervals() -> None:
    random = np.random.default_rng(0)
    samples = images(random, 12, 5, 500)
    alone, among = verdicts(samples[:2])[0], verdicts(samples)[0]
    assert len(verdicts(samples)) == 66
    assert among.difference == alone.difference
    assert among.high - among.low > 1.5 * (alone.high - alone.low)
    assert verdicts(samples[:1]) == verdicts([]) == []
    assert verdicts(samples) == verdicts(samples)


def made(name: str, rights: Sequence[int], count: int = 1000) -> Sample:
    """A strategy whose winners have that many images right, one number a seed; a negative one means no winner."""
    return Sample(name, {seed: np.arange(count) < right for seed, right in enumerate(rights) if right >= 0})


def words(first: Sample, second: Sample) -> str:
    return sentence(verdicts([first, second])[0])


def test_a_difference_is_told_with_its_uncertainty() -> None:
    good, bad = made("good", [951, 949, 950, 952, 948]), made("bad", [850, 849, 852, 848, 851])
    verdict = verdicts([good, bad])[0]
    size, margin = 100 * verdict.difference, 100 * (verdict.high - verdict.difference)
    assert 9.9 < size < 10.1
    assert 1.8 < margin < 2.5  # of the images alone: 1.96 · √(0.1 · 0.9 / 1000) is 1.86
    assert words(good, bad) == words(bad, good) == f"good is better than bad by {size:.2f} ± {margin:.2f} points"


def test_a_difference_that_is_hardly_clear_does_not_look_like_none() -> None:
    assert sentence(Verdict("a", "b", 0.00123, 0.00001, 0.00245, 0.049, 5, 6)) == (
        "a is better than b by 0.123 ± 0.122 points"
    )


def test_an_interval_does_not_go_beyond_what_is_possible() -> None:
    all_right, all_wrong = made("all", [100, 100], 100), made("none", [20, 2], 100)
    verdict = verdicts([all_right, all_wrong])[0]
    assert (verdict.low < 0, verdict.high) == (True, 1.0)
    assert sentence(Verdict("a", "b", -0.7, -1.0, -0.35, 0.01, 2, 2)) == (
        "b is better than a by between 35.00 and 100.00 points"
    )


def test_what_cannot_be_told_apart_says_how_many_seeds_it_would_take() -> None:
    verdict = verdicts([made("a", [960, 940, 930]), made("b", [930, 950, 925])])[0]
    assert verdict.enough is not None
    assert verdict.enough > 3
    assert verdict.better is None
    assert sentence(Verdict("a", "b", 0.01, -0.1, 0.12, 1.0, 5, 137)) == (
        "a and b cannot be told apart with 5 seeds (it would take about 140)"
    )


def test_one_seed_says_nothing_about_strategies_and_something_about_two_networks() -> None:
    verdict = verdicts([made("a", [960]), made("b", [930])])[0]
    assert (verdict.low, verdict.high, verdict.chance, verdict.better) == (-1.0, 1.0, 1.0, None)
    assert verdict.models == difference_by_chance(30, 0)
    assert sentence(verdict) == (
        "nothing can be said about a and b from one seed; of the two models alone, that of a is better on these "
        "test images by 3.00 points (p < 0.001 in McNemar's test)"
    )
    assert words(made("a", [960]), made("b", [961])) == (
        "nothing can be said about a and b from one seed; the two models alone cannot be told apart on these test "
        "images (p = 1 in McNemar's test)"
    )


def test_seeds_without_a_winner_do_not_count() -> None:
    full, gap = made("full", [960, 950, 940, 955]), made("gap", [930, -1, 920, 925])
    other = made("other", [-1, 900])
    several, one, none = verdicts([full, gap, other])
    assert (several.seeds, one.seeds, none.seeds) == (3, 1, 0)
    assert several.difference == pytest.approx((0.030 + 0.020 + 0.030) / 3)
    assert sentence(none) == "nothing can be said about gap and other: no seed has results of both"
    # Pairs of which nothing can be known do not make the others less certain.
    assert several == verdicts([full, gap])[0]


def test_the_same_winners_are_no_difference() -> None:
    for rights in ([960], [960, 950, 970], [1000, 1000]):
        verdict = verdicts([made("a", rights), made("b", rights)])[0]
        assert verdict.better is None
        assert verdict.difference == 0
        assert verdict.chance == 1
        assert sentence(verdict) == "a and b classify the same test images right: there is no difference"


def test_two_seeds_that_agree_by_chance_are_no_certainty() -> None:
    """Of 100 images, 3 other ones are right with each seed: the variance over the seeds is 0."""
    better = {0: np.arange(100) < 53, 1: np.arange(100) >= 47}
    same = {0: np.arange(100) < 50, 1: np.arange(100) >= 50}
    assert verdicts([Sample("a", better), Sample("b", same)])[0].better is None


def test_a_model_beside_is_compared_with_every_winner() -> None:
    winners, forest = made("evolve", [960, 962, 958, 961, 959]), np.arange(1000) < 900
    (verdict,) = beside([winners], {"random forest": forest})
    assert (verdict.first, verdict.second, verdict.seeds) == ("evolve", "random forest", 5)
    assert verdict.better == "evolve"
    assert beside([winners], {}) == []


def test_the_best_score_so_far_never_falls() -> None:
    curve = best_so_far([0.5, -np.inf, 0.4, 0.7], [2.0, 1.0, 3.0, 4.0])
    assert curve.ends.tolist() == [2.0, 3.0, 6.0, 10.0]
    assert curve.scores.tolist() == [0.5, 0.5, 0.5, 0.7]
    with pytest.raises(ValueError, match="2 scores and 1 costs"):
        best_so_far([0.5, 0.6], [1.0])


def test_quartiles_begin_with_the_first_scores_and_keep_the_last() -> None:
    curves = [best_so_far([score, score + 0.5], [score, 1.0]) for score in (1.0, 2.0, 3.0)]
    low, middle, high = quartiles(curves, [0.5, 1.0, 2.0, 2.5, 3.0, 4.0, 100.0])
    assert middle.tolist() == pytest.approx([np.nan, np.nan, 1.5, 1.5, 2.5, 2.5, 2.5], nan_ok=True)
    assert low.tolist() == pytest.approx([np.nan, np.nan, np.nan, np.nan, 2.0, 2.0, 2.0], nan_ok=True)
    assert high[-1] == 3.0
    alone = quartiles(curves[:1], [0.0, 1.0, 9.0])
    assert np.isnan(alone[:, 0]).all()
    assert alone[:, 1:].tolist() == [[1.0, 1.5]] * 3


def test_quartiles_are_silent_about_searches_that_have_only_failed() -> None:
    failed, found = best_so_far([-np.inf, -np.inf], [1, 1]), best_so_far([0.5, 0.6], [1, 1])
    assert np.isnan(quartiles([failed], [1, 2, 3])).all()
    assert quartiles([found, found, failed], [2])[1:].tolist() == [[0.6], [0.6]]


def test_a_target_is_reached_at_the_end_of_a_trial() -> None:
    scores, costs = [0.5, -np.inf, 0.7, 0.9], [2.0, 1.0, 3.0, 4.0]
    assert reached(scores, costs, 0.7) == (3, 6.0)
    assert reached(scores, costs, 0.5) == (1, 2.0)
    assert reached(scores, costs, 0.95) is None
    assert reached([], [], 0.5) is None
