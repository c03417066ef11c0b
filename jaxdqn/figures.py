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
    CONFIRMED_DRAWN,
    OTHERS_DRAWN,
    SCORES_DRAWN,
    Clock,
    Held,
    ReportData,
    best_and_sample,
    best_so_far,
    curve,
    even_sample,
    is_number,
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
        "x": [_short(x) for _, x in shown],
        "y": [_short(trial.value) for trial, _ in shown],
        "customdata": [trial.number for trial, _ in shown],
        "hovertemplate": "trial %{customdata}: %{y}<extra></extra>",
        "marker": {"color": SKY, "size": 6, "opacity": 0.65},
    }
    best = {
        "type": "scatter",
        "mode": "lines",
        "name": "best so far",
        "x": [_short(x) for x in times],
        "y": [_short(y) for y in values],
        "line": {"color": RED, "width": 2.5, "shape": "hv"},
        "hovertemplate": "best so far %{y}<extra></extra>",
    }
    label = "trial" if clock is None else "seconds since the first start"
    shapes = [_vertical(x) for x in (clock.seams if clock is not None else [])]
    return _figure([scores, best], label, "mean return", 340, shapes=[*shapes, *_solved(data)])


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
        others["y"] += [*map(_short, values), None]
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
                "y": [_short(value) for value in values],
                "line": {"color": colour, "width": 2.5},
                "marker": {"size": 5},
                "hovertemplate": f"trial {trial.number}: %{{y}}<extra></extra>",
            }
        )
    layout = {"shapes": _solved(data), "legend": {"traceorder": "reversed"}}
    return _figure(traces, "environment steps", "mean validation return", 420, **layout)


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
        "x": [_short(clock.length, 7)] * len(lanes),
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
    figure = _figure(
        traces, "seconds since the first start", "lane", min(150 + 24 * len(lanes), 760), barmode="overlay"
    )
    figure["layout"]["yaxis"] |= axis
    figure["layout"]["shapes"] = [_vertical(x) for x in clock.seams]
    return figure


def search_against_fresh(data: ReportData) -> FigureSpec | None:
    """Draw what candidates scored on fresh seeds against their score in the search."""
    groups = (
        ("confirmation", data.confirm[:CONFIRMED_DRAWN], GREEN, "circle"),
        ("verdict", [data.verdict] if data.verdict else [], PURPLE, "diamond"),
    )
    traces, values = [], []
    for name, entries, colour, symbol in groups:
        known = [e for e in entries if is_number(e.get("search_return")) and is_number(e.get("mean_return"))]
        if not known:
            continue
        values += [e[key] for e in known for key in ("search_return", "mean_return")]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": name,
                "x": [_short(e["search_return"]) for e in known],
                "y": [_short(e["mean_return"]) for e in known],
                "error_y": _error_bars(known),
                "customdata": [e.get("number") for e in known],
                "hovertemplate": "trial %{customdata}: searched %{x}, fresh %{y}<extra></extra>",
                "marker": {"color": colour, "symbol": symbol, "size": 10, "opacity": 0.85},
            }
        )
    if not traces:
        return None
    low, high = min(values), max(values)
    identity = {
        "type": "scatter",
        "mode": "lines",
        "name": "as good as searched",
        "x": [_short(low), _short(high)],
        "y": [_short(low), _short(high)],
        "line": {"color": GREY, "dash": "dash", "width": 1.5},
        "hoverinfo": "skip",
    }
    return _figure([identity, *traces], "mean return in the search", "mean return on fresh seeds", 400)


def returns_of_seeds(data: ReportData) -> FigureSpec | None:
    """Draw each seed's return of the verdict and the candidates, with the mean and its interval."""
    entries = confirmed_rows(data)
    known = [value for _, entry, _ in entries for value in entry.get("returns") or [] if is_number(value)]
    if not entries or not any(entry.get("returns") for _, entry, _ in entries):
        return None
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    gone = low - 0.06 * (high - low or 1.0)  # where diverged seeds are put
    groups: dict[str, dict[str, Any]] = {}
    for row, (_, entry, colour) in enumerate(entries):
        for i, value in enumerate(entry.get("returns") or []):
            name = "a seed" if is_number(value) else "a diverged seed"
            group = groups.setdefault(name, {"x": [], "y": [], "color": [], "customdata": []})
            group["x"].append(_short(value) if is_number(value) else _short(gone))
            group["y"].append(round(row + spread(i), 3))
            group["color"].append(colour if is_number(value) else RED)
            group["customdata"].append("diverged" if not is_number(value) else f"{value:.5g}")
    traces: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": name,
            "x": group["x"],
            "y": group["y"],
            "customdata": group["customdata"],
            "hovertemplate": "%{customdata}<extra></extra>",
            "marker": {
                "color": group["color"],
                "size": 7 if name == "a seed" else 9,
                "symbol": "circle" if name == "a seed" else "x",
                "opacity": 0.6 if name == "a seed" else 1.0,
            },
        }
        for name, group in sorted(groups.items())
    ]
    means = [(row, entry) for row, (_, entry, _) in enumerate(entries) if is_number(entry.get("mean_return"))]
    if means:
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": "mean and interval",
                "x": [_short(entry["mean_return"]) for _, entry in means],
                "y": [row for row, _ in means],
                "error_x": _error_bars([entry for _, entry in means]),
                "hovertemplate": "mean %{x}<extra></extra>",
                "marker": {"color": GREY, "symbol": "line-ns-open", "size": 16, "line": {"width": 3}},
            }
        )
    figure = _figure(traces, "return", "", 110 + 46 * len(entries))
    figure["layout"]["yaxis"] |= {
        "tickvals": list(range(len(entries))),
        "ticktext": [label for label, _, _ in entries],
        "range": [len(entries) - 0.5, -0.5],
        "zeroline": False,
    }
    if data.solved_return is not None and known and low <= data.solved_return <= high:
        figure["layout"]["shapes"] = [_vertical(data.solved_return)]
    return figure


def pareto_front(points: list[tuple[int, float, float]]) -> list[tuple[int, float, float]]:
    """Return those that no other beats in return and in parameters, the smallest first."""
    front: list[tuple[int, float, float]] = []
    for point in sorted(points, key=lambda point: (point[2], -point[1], point[0])):
        if not front or point[1] > front[-1][1]:
            front.append(point)
    return front


def pareto(points: list[tuple[int, float, float]]) -> FigureSpec | None:
    """Draw mean return against the size of the network, the front brought out."""
    finite = [point for point in points if is_number(point[1]) and is_number(point[2]) and point[2] > 0]
    if not finite:
        return None
    front = pareto_front(finite)
    shown = even_sample([point for point in finite if point not in set(front)], SCORES_DRAWN)
    traces = [
        {
            "type": "scatter",
            "mode": mode,
            "name": name,
            "x": [_short(size) for _, _, size in its],
            "y": [_short(value) for _, value, _ in its],
            "customdata": [number for number, _, _ in its],
            "hovertemplate": "trial %{customdata}: %{y}, %{x:,} parameters<extra></extra>",
            "line": {"color": colour, "width": 2, "shape": "hv"},
            "marker": {"color": colour, "size": size},
        }
        for name, its, mode, colour, size in (
            ("a trial", shown, "markers", FAINT, 6),
            ("front: no trial is better and smaller", front, "lines+markers", RED, 10),
        )
        if its
    ]
    figure = _figure(traces, "parameters of the network", "mean return", 400)
    figure["layout"]["xaxis"]["type"] = "log"
    return figure


def confirmed_rows(data: ReportData) -> list[tuple[str, dict[str, Any], str]]:
    """Return label, entry and colour of the verdict and of the candidates, the winner first."""
    rows = [("trial {number}, verdict", data.verdict, PURPLE)] if data.verdict else []
    rows += [("trial {number}", entry, GREEN) for entry in data.confirm[:CONFIRMED_DRAWN]]
    return [(label.format(number=entry.get("number")), entry, colour) for label, entry, colour in rows]


def spread(index: int) -> float:
    """Return where in its row the seed with this index is put, so that equal returns do not hide each other."""
    return ((0.618 * index + 0.5) % 1.0 - 0.5) * 0.5


def _figure(traces: list[dict[str, Any]], x: str, y: str, height: int, **layout: Any) -> FigureSpec:
    axes = {"xaxis": {"title": {"text": x}}, "yaxis": {"title": {"text": y}}}
    return {"data": traces, "layout": {**axes, "height": height, "hovermode": "closest", "showlegend": True, **layout}}


def _error_bars(entries: list[dict[str, Any]]) -> dict[str, Any]:
    up, down = [], []
    for entry in entries:
        low, high = entry.get("mean_interval") or (None, None)
        mean = entry["mean_return"]
        up.append(_short(max(high - mean, 0.0)) if is_number(high) else 0.0)
        down.append(_short(max(mean - low, 0.0)) if is_number(low) else 0.0)
    return {"type": "data", "symmetric": False, "array": up, "arrayminus": down, "thickness": 1.5, "width": 5}


def _vertical(x: float) -> dict[str, Any]:
    line = {"color": GREY, "width": 1.2, "dash": "dot"}
    return {"type": "line", "x0": x, "x1": x, "y0": 0, "y1": 1, "yref": "paper", "line": line}


def _solved(data: ReportData) -> list[dict[str, Any]]:
    """Draw the return that counts as solved."""
    if data.solved_return is None:
        return []
    y, line = data.solved_return, {"color": GREY, "width": 1.2, "dash": "dot"}
    return [{"type": "line", "x0": 0, "x1": 1, "xref": "paper", "y0": y, "y1": y, "line": line}]


def _short(value: float | None, digits: int = 5) -> float | None:
    return float(f"{value:.{digits}g}") if value is not None else None
