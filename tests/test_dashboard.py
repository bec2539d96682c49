"""The dashboard of a real search in a real browser: what a person sees of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from browser import CHROMIUM, browser, dashboard, unfold

from nas.records.journal import FILE
from nas.records.record import read

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [
    pytest.mark.faults,  # slow: a browser and a server for a minute
    pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium here: install Debian's chromium"),
]


@pytest.fixture(scope="module")
def address(place: Path) -> Iterator[str]:
    with dashboard(place) as address:
        yield address


@pytest.fixture
def page(address: str) -> Iterator[Page]:
    """The page that ``nas ui`` opens."""
    with browser() as page:
        page.goto(address)
        # It sends the browser on from page to page until the list is there, and goes nowhere else meanwhile.
        page.get_by_role("link", name=SEARCH).first.wait_for()
        yield page


@pytest.fixture(scope="module")
def search(place: Path) -> Any:
    return read(Path(json.loads((place / "printed.json").read_text())["search"], FILE))[0]


SEARCH = re.compile(r"^\d+\.\d\d % · [\d.]+k · evolve · \d\d:\d\d$")
TRIAL = re.compile(r"^\d+ · \d+\.\d\d % · [\d.]+k? · [\d.]+ epochs?$")


def open_search(page: Page, search: Any) -> None:
    page.get_by_role("link", name=SEARCH).first.click()
    page.get_by_role("heading", name=SEARCH).wait_for()
    page.get_by_text(search.header.name).first.wait_for()


def picture(page: Page, name: str) -> int:
    """The shorter side of the picture that an artifact is shown as."""
    shown = page.locator(f"img[alt$='{name}']")
    shown.wait_for()
    page.wait_for_function("image => image.complete && image.naturalWidth > 0", arg=shown.element_handle())
    return int(shown.evaluate("image => Math.min(image.naturalWidth, image.naturalHeight)"))


def test_the_searches_are_a_list_and_a_search_opens_into_its_trials(page: Page, search: Any) -> None:
    assert page.get_by_role("link", name=TRIAL).count() == 0  # folded
    for column in ("winner/test_accuracy", "dataset", "epochs", "parameters"):
        page.get_by_role("columnheader", name=column).first.wait_for()
    unfold(page)
    page.get_by_text(TRIAL).first.wait_for()


def test_the_page_of_a_search_tells_its_story(page: Page, search: Any) -> None:
    open_search(page, search)
    page.get_by_text("test images").first.wait_for()
    page.get_by_text(f"{100 * search.outcome['test_accuracy']:.2f} %").first.wait_for()
    trials = page.get_by_role("link", name=TRIAL)
    trials.nth(len(search.told) - 1).wait_for()
    assert trials.count() == len(search.told)
    page.get_by_text("mnist-5k (").first.wait_for()


def test_the_charts_of_a_search(page: Page, search: Any) -> None:
    open_search(page, search)
    page.get_by_role("tab", name="Model metrics").click()
    for name in ("best_validation_loss", "failed_trials", "hypervolume"):
        page.get_by_role("heading", name=name).or_(page.get_by_text(name, exact=True)).first.wait_for()
    page.locator(".js-plotly-plot .scatterlayer path").first.wait_for(state="attached")


def test_the_figures_and_the_report_of_a_search(page: Page, search: Any) -> None:
    open_search(page, search)
    page.get_by_role("tab", name="Artifacts").click()
    page.get_by_text("figures", exact=True).click()
    for name in ("best_over_trials", "accuracy_and_parameters", "choices", "learning_curves"):
        page.get_by_text(f"{name}.png", exact=True).first.click()
        assert picture(page, f"{name}.png") > 300
    page.get_by_text("report.html", exact=True).first.click()
    page.frame_locator("iframe").get_by_text("The scores, and how certain they are").wait_for()
    page.get_by_text("leaderboard.json", exact=True).first.click()
    page.get_by_text("validation_accuracy").first.wait_for()


def test_the_page_of_a_trial(page: Page, search: Any) -> None:
    open_search(page, search)
    page.get_by_role("link", name=TRIAL).first.click()
    page.get_by_text("of the validation images after").first.wait_for()
    for tag in ("origin", "rung", "status", "architecture_id"):
        page.get_by_text(tag).first.wait_for()
    page.get_by_role("tab", name="Artifacts").click()
    page.get_by_text("network.svg", exact=True).first.click()
    assert picture(page, "network.svg") > 100


def test_the_winner_is_the_champion_of_its_data(page: Page, address: str, search: Any) -> None:
    page.goto(f"{address.removesuffix('/nas')}/#/models/nas-mnist-5k")
    page.get_by_text("champion").first.wait_for()
    page.get_by_text("Version 1").first.wait_for()
