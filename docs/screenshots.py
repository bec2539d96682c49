"""Makes the pictures of README.md and docs/review.md from a real search, in a real browser.

    nas search --strategy evolve --dataset mnist-5k --max-parameters 34826     # in an empty folder
    python docs/screenshots.py FOLDER                                          # that folder
    python docs/screenshots.py FOLDER OTHER 1600 1200                          # to look at another size

It needs Chromium and the development packages.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from browser import browser, dashboard, unfold  # noqa: E402

if TYPE_CHECKING:
    from playwright.sync_api import Page

IMAGES = HERE / "images"
SEARCH = re.compile(r"^\d+\.\d\d % · [\d.]+k · evolve · ")
TRIAL = re.compile(r"^\d+ · \d+\.\d\d % · ")


COLUMNS = 80
# MLflow shows where an artifact lies on this machine, which is nobody's business.
WITHOUT_FOLDER = r"""() => {
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let text = texts.nextNode(); text; text = texts.nextNode())
        text.data = text.data.replace(/file:\S*mlartifacts/, "mlartifacts");
}"""


class Pictures:
    """Keeps what a page shows.

    Args:
        page: of the browser.
        folder: the pictures are written to it.
    """

    def __init__(self, page: Page, folder: Path) -> None:
        self.page = page
        self.folder = folder

    def keep(self, name: str) -> None:
        """Keep what the page shows, when nothing moves any more."""
        self.page.wait_for_timeout(2_500)
        self.page.evaluate(WITHOUT_FOLDER)
        self.page.screenshot(path=self.folder / f"{name}.png")
        sys.stdout.write(f"{name}.png\n")

    def terminal(self, folder: Path) -> None:
        """Keep what ``nas show`` prints in a terminal."""
        settings = {"FORCE_COLOR": "1", "TERM": "xterm-256color", "COLUMNS": str(COLUMNS)}
        command = [Path(sys.executable).with_name("nas"), "show"]
        environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
        shown = subprocess.run(
            command, cwd=folder, env={**environment, **settings}, stdout=subprocess.PIPE, check=True
        ).stdout
        console = Console(record=True, width=COLUMNS, file=io.StringIO())
        console.print(Text.from_ansi(shown.decode().partition("\n\nOn the same test images")[0]))  # the beginning
        self.page.set_content(f"<body style='margin:0'>{console.export_svg(title='nas show')}</body>")
        self.page.locator("svg").first.screenshot(path=self.folder / "terminal.png")
        sys.stdout.write("terminal.png\n")

    def report(self, folder: Path) -> None:
        """Keep the beginning of the report."""
        written = self.folder.absolute() / "report.html"
        command = [Path(sys.executable).with_name("nas"), "show", "--report", written]
        subprocess.run(command, cwd=folder, check=True)
        self.page.goto(written.as_uri())
        self.keep("report")
        written.unlink()


def artifact(page: Page, name: str) -> None:
    """Open an artifact of a run."""
    page.get_by_text(name, exact=True).first.click()


def main(folder: Path, out: Path = IMAGES, width: int = 1280, height: int = 800) -> None:
    """Walk through the dashboard as docs/review.md does."""
    out.mkdir(parents=True, exist_ok=True)
    with dashboard(folder) as address, browser(width, height) as page:
        pictures = Pictures(page, out)
        pictures.terminal(folder)
        pictures.report(folder)
        page.goto(address)
        page.get_by_role("link", name=SEARCH).first.wait_for()
        unfold(page)
        page.get_by_text(TRIAL).first.wait_for()
        pictures.keep("searches")
        page.get_by_role("link", name=SEARCH).first.click()
        page.get_by_text("Show more", exact=True).first.click()
        pictures.keep("search")
        trial = page.get_by_role("link", name=TRIAL).first.get_attribute("href")
        page.get_by_role("tab", name="Model metrics").click()
        page.locator(".js-plotly-plot .scatterlayer path").first.wait_for(state="attached")
        pictures.keep("charts")
        page.get_by_role("tab", name="Artifacts").click()
        artifact(page, "figures")
        artifact(page, "accuracy_and_parameters.png")
        pictures.keep("figure")
        artifact(page, "leaderboard.json")
        pictures.keep("leaderboard")
        page.goto(f"{address.removesuffix('/nas')}/{trial}")
        page.get_by_text("of the validation images after").first.wait_for()
        pictures.keep("trial")
        page.get_by_role("tab", name="Artifacts").click()
        artifact(page, "network.svg")
        pictures.keep("network")
        page.goto(f"{address.removesuffix('/nas')}/#/models/nas-mnist-5k")
        page.get_by_text("champion").first.wait_for()
        pictures.keep("champion")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]), *map(int, sys.argv[3:5]))
