"""The figures of what came of the search: candidates on fresh seeds, the verdict, return against size."""

from __future__ import annotations

from typing import Any

from jaxdqn.figures import FAINT, GREEN, GREY, PURPLE, RED, figure_of, short, vertical
from jaxdqn.optuna_figures import FigureSpec, log_ticks
from jaxdqn.report_data import CONFIRMED_DRAWN, SCORES_DRAWN, ReportData, even_sample, is_number, span


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
                "x": [short(e["search_return"]) for e in known],
                "y": [short(e["mean_return"]) for e in known],
                "error_y": _error_bars(known),
                "customdata": [e.get("number") for e in known],
                "hovertemplate": "trial %{customdata}: searched %{x}, fresh %{y}<extra></extra>",
                "marker": {"color": colour, "symbol": symbol, "size": 10, "opacity": 0.85},
            }
        )
    if not traces:
        return None
    low, high = span(values)
    identity = {
        "type": "scatter",
        "mode": "lines",
        "name": "as good as searched",
        "x": [short(low), short(high)],
        "y": [short(low), short(high)],
        "line": {"color": GREY, "dash": "dash", "width": 1.5},
        "hoverinfo": "skip",
    }
    return figure_of([identity, *traces], "mean return in the search", "mean return on fresh seeds", 400)


def returns_of_seeds(data: ReportData) -> FigureSpec | None:
    """Draw each seed's return of the verdict and the candidates, with the mean and its interval."""
    entries = confirmed_rows(data)
    known = [value for _, entry, _ in entries for value in entry.get("returns") or [] if is_number(value)]
    if not entries or not any(entry.get("returns") for _, entry, _ in entries):
        return None
    low, high = span(known or [0.0])
    gone = low - 0.06 * (high - low or 1.0)  # where diverged seeds are put
    groups: dict[str, dict[str, Any]] = {}
    for row, (_, entry, colour) in enumerate(entries):
        for i, value in enumerate(entry.get("returns") or []):
            name = "a seed" if is_number(value) else "a diverged seed"
            group = groups.setdefault(name, {"x": [], "y": [], "color": [], "customdata": []})
            group["x"].append(short(value) if is_number(value) else short(gone))
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
        for name, group in sorted(groups.items(), key=lambda item: item[0] != "a seed")
    ]
    means = [(row, entry) for row, (_, entry, _) in enumerate(entries) if is_number(entry.get("mean_return"))]
    if means:
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": "mean and interval",
                "x": [short(entry["mean_return"]) for _, entry in means],
                "y": [row for row, _ in means],
                "error_x": _error_bars([entry for _, entry in means]),
                "hovertemplate": "mean %{x}<extra></extra>",
                "marker": {"color": GREY, "symbol": "line-ns-open", "size": 16, "line": {"width": 3}},
            }
        )
    figure = figure_of(traces, "return", "", 110 + 46 * len(entries))
    room = 0.1 * (high - low)
    figure["layout"]["xaxis"]["range"] = [short(low - room), short(high + room)]
    figure["layout"]["yaxis"] |= {
        "tickvals": list(range(len(entries))),
        "ticktext": [label for label, _, _ in entries],
        "range": [len(entries) - 0.5, -0.5],
        "zeroline": False,
    }
    if data.solved_return is not None and known and low <= data.solved_return <= high:
        figure["layout"]["shapes"] = [vertical(data.solved_return)]
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
            "x": [short(size) for _, _, size in its],
            "y": [short(value) for _, value, _ in its],
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
    figure = figure_of(traces, "parameters of the network", "mean return", 400)
    figure["layout"]["xaxis"] |= {"type": "log", **log_ticks([size for _, _, size in finite])}
    return figure


def confirmed_rows(data: ReportData) -> list[tuple[str, dict[str, Any], str]]:
    """Return label, entry and colour of the verdict and of the candidates, the winner first."""
    rows = [("trial {number}, verdict", data.verdict, PURPLE)] if data.verdict else []
    rows += [("trial {number}", entry, GREEN) for entry in data.confirm[:CONFIRMED_DRAWN]]
    return [(label.format(number=entry.get("number")), entry, colour) for label, entry, colour in rows]


def spread(index: int) -> float:
    """Return where in its row the seed with this index is put, so that equal returns do not hide each other."""
    return ((0.618 * index + 0.5) % 1.0 - 0.5) * 0.5


def _error_bars(entries: list[dict[str, Any]]) -> dict[str, Any]:
    up, down = [], []
    for entry in entries:
        low, high = entry.get("mean_interval") or (None, None)
        mean = entry["mean_return"]
        up.append(short(max(high - mean, 0.0)) if is_number(high) else 0.0)
        down.append(short(max(mean - low, 0.0)) if is_number(low) else 0.0)
    return {"type": "data", "symmetric": False, "array": up, "arrayminus": down, "thickness": 1.5, "width": 5}
