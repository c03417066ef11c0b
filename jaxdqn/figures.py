"""The report's own figures, as plotly.js takes them: data and layout, plain JSON values.

No text of a user's goes into a figure, because plotly reads some HTML in its texts: trials are named by number.
"""

from __future__ import annotations

import math
from typing import Any

from plotly.offline import get_plotlyjs

from jaxdqn.optuna_figures import FigureSpec
from jaxdqn.report_data import (
    BEST_DRAWN,
    OTHERS_DRAWN,
    SCORES_DRAWN,
    Clock,
    Held,
    ReportData,
    best_and_sample,
    best_so_far,
    curve,
    even_sample,
    ranked,
    wall_time,
)

# Okabe and Ito's colours, which colour-blind people tell apart
BLUE, SKY, ORANGE, GREEN, RED, PURPLE = "#0072B2", "#56B4E9", "#E69F00", "#009E73", "#D55E00", "#CC79A7"
GREY = "#8c8c8c"
FAINT = "rgba(140,140,140,0.4)"
BROUGHT_OUT = (BLUE, ORANGE, GREEN, RED, PURPLE)  # the best few learning curves
KIND_COLOURS = {"ended": SKY, "pruned": ORANGE, "diverged": RED, "confirm": GREEN, "verdict": PURPLE}
KIND_NAMES = {
    "ended": "trained to its end",
    "pruned": "pruned",
    "diverged": "diverged",
    "confirm": "confirmation",
    "verdict": "verdict",
}
IDLE = "rgba(140,140,140,0.22)"


def plotly_js() -> str:
    """Return plotly.js, whole."""
    return get_plotlyjs()


def templates() -> dict[str, Any]:
    """Return the looks of all figures on a light and on a dark page."""
    return {"light": _template("#1f2328", "#d9dde3", "#ffffff"), "dark": _template("#e6e9ee", "#39414d", "#171b21")}


def _template(text: str, grid: str, ground: str) -> dict[str, Any]:
    axis = {"gridcolor": grid, "linecolor": grid, "zeroline": False, "automargin": True, "title": {"standoff": 8}}
    return {
        "layout": {
            "font": {"family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 13, "color": text},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "xaxis": axis,
            "yaxis": axis,
            "margin": {"l": 56, "r": 16, "t": 16, "b": 48},
            "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
            "hoverlabel": {"bgcolor": ground, "font": {"color": text}, "bordercolor": grid},
        }
    }


def progress(data: ReportData, clock: Clock | None) -> FigureSpec | None:
    """Draw the trials' scores and the best so far, against wall time, or against trials where there is no clock."""
    scored = sorted(ranked(data.trials), key=lambda trial: trial.number)
    at = {trial.number: float(trial.number) if clock is None else wall_time(trial, clock) for trial in scored}
    points = [(trial, x) for trial in scored if (x := at[trial.number]) is not None]
    if not points:
        return None
    times, values = best_so_far([(x, trial.value or 0.0) for trial, x in points])
    shown = even_sample(points, SCORES_DRAWN)
    scores = {
        "type": "scatter",
        "mode": "markers",
        "name": "a trial",
        "x": [short(x) for _, x in shown],
        "y": [short(trial.value) for trial, _ in shown],
        "customdata": [trial.number for trial, _ in shown],
        "hovertemplate": "trial %{customdata}: %{y}<extra></extra>",
        "marker": {"color": SKY, "size": 6 if len(shown) < 500 else 4, "opacity": 0.65 if len(shown) < 500 else 0.4},
    }
    best = {
        "type": "scatter",
        "mode": "lines",
        "name": "best so far",
        "x": [short(x) for x in times],
        "y": [short(y) for y in values],
        "line": {"color": RED, "width": 2.5, "shape": "hv"},
        "hovertemplate": "best so far %{y}<extra></extra>",
    }
    label = "trial" if clock is None else "seconds since the first start"
    shapes = [vertical(x) for x in (clock.seams if clock is not None else [])]
    return figure_of([scores, best], label, "mean return", 340, shapes=[*shapes, *solved(data)])


def learning_curves(data: ReportData) -> FigureSpec | None:
    """Draw the validations of all trials in grey, and of the best few in colours."""
    validated = [trial for trial in data.trials if trial.intermediate]
    drawn = best_and_sample(validated, BEST_DRAWN, OTHERS_DRAWN)
    if not drawn:
        return None
    few = ranked(drawn)[: len(BROUGHT_OUT)]
    others: dict[str, list[Any]] = {"x": [], "y": [], "customdata": []}
    for trial in drawn[len(few) :]:
        steps, values = curve(trial)
        others["x"] += [*steps, None]
        others["y"] += [*map(short, values), None]
        others["customdata"] += [trial.number] * len(steps) + [None]
    traces = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": "other trials",
            **others,
            "line": {"color": FAINT, "width": 1},
            "marker": {"size": 3, "color": FAINT},
            "hovertemplate": "trial %{customdata}: %{y}<extra></extra>",
        }
    ] * bool(others["x"])
    for trial, colour in reversed(list(zip(few, BROUGHT_OUT, strict=False))):
        steps, values = curve(trial)
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": f"trial {trial.number}",
                "x": steps,
                "y": [short(value) for value in values],
                "line": {"color": colour, "width": 2.5},
                "marker": {"size": 5},
                "hovertemplate": f"trial {trial.number}: %{{y}}<extra></extra>",
            }
        )
    layout = {"shapes": solved(data), "legend": {"traceorder": "reversed"}}
    return figure_of(traces, "environment steps", "mean validation return", 420, **layout)


def timeline(bars: list[Held], clock: Clock) -> FigureSpec | None:
    """Draw which agent held which lane when; what is left grey was idle."""
    if not bars:
        return None
    lanes = sorted({bar.lane for bar in bars})
    row = {lane: i for i, lane in enumerate(lanes)}
    idle = {
        "type": "bar",
        "orientation": "h",
        "name": "idle",
        "y": list(range(len(lanes))),
        "x": [short(clock.length, 7)] * len(lanes),
        "width": 0.86,
        "marker": {"color": IDLE, "line": {"width": 0}},
        "hoverinfo": "skip",
    }
    traces: list[dict[str, Any]] = [idle]
    for kind, colour in KIND_COLOURS.items():
        its = [bar for bar in bars if bar.kind == kind]
        if its:
            began = [clock.at(bar.began) for bar in its]
            lasted = [clock.at(bar.ended) - start for bar, start in zip(its, began, strict=True)]
            traces.append(
                {
                    "type": "bar",
                    "orientation": "h",
                    "name": KIND_NAMES[kind],
                    "base": [round(x, 2) for x in began],
                    "x": [round(x, 2) for x in lasted],
                    "y": [row[bar.lane] for bar in its],
                    "width": 0.86,
                    "marker": {"color": colour, "line": {"width": 0.5, "color": "rgba(0,0,0,0.35)"}},
                    "customdata": [[bar.trial, bar.seed_index] for bar in its],
                    "hovertemplate": "trial %{customdata[0]}, seed %{customdata[1]}: "
                    f"{KIND_NAMES[kind]}, %{{x}} s<extra></extra>",
                }
            )
    every = math.ceil(len(lanes) / 24)
    ticks = list(range(0, len(lanes), every))
    axis = {"tickvals": ticks, "ticktext": [str(lanes[i]) for i in ticks], "autorange": "reversed", "showgrid": False}
    figure = figure_of(
        traces, "seconds since the first start", "lane", min(150 + 24 * len(lanes), 760), barmode="overlay"
    )
    figure["layout"]["yaxis"] |= axis
    figure["layout"]["xaxis"]["showgrid"] = False
    figure["layout"]["shapes"] = [vertical(x) for x in clock.seams]
    return figure


def figure_of(traces: list[dict[str, Any]], x: str, y: str, height: int, **layout: Any) -> FigureSpec:
    """Return a figure with titles of its axes; `layout` adds to it or replaces."""
    axes = {"xaxis": {"title": {"text": x}}, "yaxis": {"title": {"text": y}}}
    return {"data": traces, "layout": {**axes, "height": height, "hovermode": "closest", "showlegend": True, **layout}}


def vertical(x: float) -> dict[str, Any]:
    """Return a dotted vertical line through the whole figure."""
    line = {"color": GREY, "width": 1.2, "dash": "dot"}
    return {"type": "line", "x0": x, "x1": x, "y0": 0, "y1": 1, "yref": "paper", "line": line}


def solved(data: ReportData) -> list[dict[str, Any]]:
    """Draw the return that counts as solved."""
    if data.solved_return is None:
        return []
    y, line = data.solved_return, {"color": GREY, "width": 1.2, "dash": "dot"}
    return [{"type": "line", "x0": 0, "x1": 1, "xref": "paper", "y0": y, "y1": y, "line": line}]


def short(value: float | None, digits: int = 5) -> float | None:
    """Round to what a picture can show."""
    return float(f"{value:.{digits}g}") if value is not None else None
