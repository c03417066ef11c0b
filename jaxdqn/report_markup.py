"""Pieces of the report's HTML: numbers, sentences, tables, places for figures. They escape whatever they are given."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any, NamedTuple

from jaxdqn.follower import Trial
from jaxdqn.optuna_figures import FigureSpec
from jaxdqn.report_data import ReportData, is_number, num_diverged


class Section(NamedTuple):
    """A part of the page."""

    id: str
    title: str
    body: str  # HTML
    figures: dict[str, FigureSpec]  # by the ids of their places


def show(value: Any) -> str:
    """Return a value as the tables show it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        if not is_number(value):
            return "–"
        return f"{value:.1f}" if 100 <= abs(value) < 1e6 else f"{value:.4g}"
    return "–" if value is None else str(value)


def with_interval(value: Any, interval: Any) -> str:
    """Return a value and, where it is known, its interval."""
    known = isinstance(interval, list | tuple) and len(interval) == 2 and all(map(is_number, interval))
    return f"{show(value)} [{show(interval[0])}, {show(interval[1])}]" if known else show(value)


def duration(seconds: float) -> str:
    """Return seconds as h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def listed(trial: Trial, name: str) -> list[Any]:
    """Return an attribute of a trial that is a list, an empty one where it is not known."""
    value = trial.attributes.get(name)
    return value if isinstance(value, list) else []


def place(name: str, spec: FigureSpec) -> str:
    """Return the place that a figure is drawn into."""
    return f'<div class="figure" data-figure="figure-{name}" style="height:{spec["layout"]["height"]}px"></div>'


def note(sentences: Sequence[str]) -> str:
    """Return sentences that explain what is shown."""
    return f'<p class="note">{html.escape(" ".join(sentences))}</p>'


def absent(sentence: str) -> str:
    """Return why nothing is shown."""
    return f'<p class="absent">{html.escape(sentence)}</p>'


def table(head: list[str], rows: list[list[str]], kind: str = "", leading: bool = False) -> str:
    """Return a table; the first row stands out where it is `leading`, and heads break after underscores."""
    top = "".join(f'<th scope="col">{html.escape(cell).replace("_", "_<wbr>")}</th>' for cell in head)
    lines = [
        f"<tr{' class=leading' if leading and not i else ''}>{''.join(f'<td>{html.escape(c)}</td>' for c in row)}</tr>"
        for i, row in enumerate(rows)
    ]
    return scrolling(f'<table class="{kind}"><thead><tr>{top}</tr></thead><tbody>{"".join(lines)}</tbody></table>')


def scrolling(markup: str) -> str:
    """Return markup that scrolls sideways by itself where it is wider than the page."""
    return f'<div class="scrolls" tabindex="0">{markup}</div>'


def worst_seed(entry: dict[str, Any]) -> str:
    """Return the lowest return of a seed, or that seeds diverged, which is worse."""
    diverged = num_diverged(entry)
    return f"diverged ({diverged} did)" if diverged else show(entry.get("worst_seed_return"))


def command(data: ReportData, name: str) -> str:
    """Return the command with a button that copies it."""
    button = f'<button type="button" data-copies="{name}">Copy</button>'
    return f'<div class="command"><pre id="{name}">{html.escape(data.command)}</pre>{button}</div>'
