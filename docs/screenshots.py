"""Makes the pictures of docs/review.md from real searches, in a real browser.

    nas search --strategy evolve --dataset mnist-5k --max-parameters 34826     # in an empty folder
    python docs/screenshots.py FOLDER                                          # that folder

It needs Chromium and the development packages.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from browser import browser, dashboard, unfold  # noqa: E402

if TYPE_CHECKING:
    from playwright.sync_api import Page

IMAGES = HERE / "images"
SEARCH = re.compile(r"^\d+\.\d\d % · [\d.]+k · evolve · ")
TRIAL = re.compile(r"^\d+ · \d+\.\d\d % · ")


def keep(page: Page, name: str) -> None:
    """Keep what the page shows, when nothing moves any more."""
    page.wait_for_timeout(2_500)
    page.screenshot(path=IMAGES / f"{name}.png")
    sys.stdout.write(f"{name}.png\n")


def artifact(page: Page, name: str) -> None:
    """Open an artifact of a run."""
    page.get_by_text(name, exact=True).first.click()


def main(folder: Path) -> None:
    """Walk through the dashboard as docs/review.md does."""
    IMAGES.mkdir(exist_ok=True)
    with dashboard(folder) as address, browser(1280, 800) as page:
        page.goto(address)
        page.get_by_role("link", name=SEARCH).first.wait_for()
        unfold(page)
        page.get_by_text(TRIAL).first.wait_for()
        keep(page, "searches")
        page.get_by_role("link", name=SEARCH).first.click()
        page.get_by_text("Show more", exact=True).first.click()
        keep(page, "search")
        trial = page.get_by_role("link", name=TRIAL).first.get_attribute("href")
        page.get_by_role("tab", name="Model metrics").click()
        page.locator(".js-plotly-plot .scatterlayer path").first.wait_for(state="attached")
        keep(page, "charts")
        page.get_by_role("tab", name="Artifacts").click()
        artifact(page, "figures")
        artifact(page, "accuracy_and_parameters.png")
        keep(page, "figure")
        artifact(page, "leaderboard.json")
        keep(page, "leaderboard")
        page.goto(f"{address.removesuffix('/nas')}/{trial}")
        page.get_by_text("of the validation images after").first.wait_for()
        keep(page, "trial")
        page.get_by_role("tab", name="Artifacts").click()
        artifact(page, "network.svg")
        keep(page, "network")
        page.goto(f"{address.removesuffix('/nas')}/#/models/nas-mnist-5k")
        page.get_by_text("champion").first.wait_for()
        keep(page, "champion")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
