"""One HTML page about a sweep that opens from the disk without a network, and its main pictures as PNG files.

All that a user wrote is escaped, and the page's policy lets a browser load nothing and run no script but the page's.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from importlib import resources
from pathlib import Path

from jaxdqn import figures
from jaxdqn.files import write_whole
from jaxdqn.optuna_figures import FigureSpec
from jaxdqn.pictures import NAMES, pictures
from jaxdqn.report_data import ReportData, held_lanes, make_clock, thin_lanes
from jaxdqn.report_markup import Section
from jaxdqn.report_sections import sections


def write_report(output: Path, data: ReportData) -> list[Path]:
    """Write `report.html` and `report/*.png` below a directory, each whole or not at all; return their paths.

    A picture that there is nothing to draw of any more is removed.
    """
    clock, bars = make_clock(data), thin_lanes(held_lanes(data))[0]
    page, folder = output / "report.html", output / "report"
    folder.mkdir(parents=True, exist_ok=True)
    drawn = pictures(data, bars, clock)
    for name in NAMES:
        if name in drawn:
            write_whole(folder / f"{name}.png", drawn[name])
        else:
            (folder / f"{name}.png").unlink(missing_ok=True)
    write_whole(page, render(data).encode("utf-8", "backslashreplace"))
    return [page, *(folder / f"{name}.png" for name in drawn)]


def render(data: ReportData) -> str:
    """Return the page. It is a function of the data alone."""
    shown = sections(data)
    scripts = [figures.plotly_js(), resources.files("jaxdqn").joinpath("report.js").read_text("utf-8")]
    style = resources.files("jaxdqn").joinpath("report.css").read_text("utf-8")
    policy = "; ".join(
        [
            "default-src 'none'",
            "img-src data: blob:",
            "style-src 'unsafe-inline'",  # plotly.js writes its own
            "script-src " + " ".join(_digest(script) for script in scripts),
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    specs: dict[str, FigureSpec] = {name: spec for section in shown for name, spec in section.figures.items()}
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{html.escape(data.study_name)}</title>",
            f"<style>{style}</style>",
            "</head>",
            "<body>",
            '<div class="page">',
            f"<header><h1>{html.escape(data.study_name)}</h1>{_subtitle(data)}</header>",
            _contents(shown),
            "<main>",
            *(f'<section id="{s.id}"><h2>{s.title}</h2>\n{s.body}\n</section>' for s in shown),
            "</main>",
            "<footer>Made by jaxdqn. Drag in a picture to zoom, double-click to go back.</footer>",
            "</div>",
            "<noscript><p>The pictures need JavaScript; they are PNG files in report/, too.</p></noscript>",
            _json("templates", figures.templates()),
            *(_json(f"figure-{name}", spec) for name, spec in specs.items()),
            *(f"<script>{script}</script>" for script in scripts),
            "</body>",
            "</html>",
            "",
        ]
    )


def _subtitle(data: ReportData) -> str:
    space = data.space
    limits = ((space.env_steps, "steps"), (space.episodes, "episodes"))
    budgets = [f"{limit:,} {unit}" for limit, unit in limits if limit]
    text = f"{space.env}; space {space.name}: {len(space.searched)} hyperparameters searched; "
    return f"<p>{html.escape(text + ' or '.join(budgets))} an agent; seed {data.seed}</p>"


def _contents(shown: list[Section]) -> str:
    items = "".join(f'<li><a href="#{section.id}">{section.title}</a></li>' for section in shown)
    return f'<nav aria-label="Contents"><ol>{items}</ol></nav>'


def _json(name: str, value: object) -> str:
    """Return a block of JSON that no browser reads as markup."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json" id="{name}">{text}</script>'


def _digest(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode('utf-8')).digest()).decode()}'"
