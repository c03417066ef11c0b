"""A page in a browser without a window: what it logs, and what it draws."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest


def opened(page: Path, profile: Path) -> str:
    """Open a report with all its figures drawn at once, check that nothing is complained of; return the document."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on the PATH: install one to run this test")
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0")
    size = ("--virtual-time-budget=60000", "--window-size=1280,900", f"--user-data-dir={profile}", "--dump-dom")
    command = [browser, *options, *size, f"{page.absolute().as_uri()}?all"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    places = re.findall(r'<div class="figure[^"]*"[^>]*data-figure="([^"]+)"', page.read_text("utf-8"))
    drawn = re.findall(r'<div class="figure js-plotly-plot"[^>]*data-figure="([^"]+)"', done.stdout)
    assert drawn == places
    assert places
    assert done.stdout.count('class="main-svg"') >= len(places)
    assert len(re.findall(r"<path [^>]*class=\"(?:js-line|point)\"|class=\"point\"", done.stdout)) > len(places)
    return done.stdout
