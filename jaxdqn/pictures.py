"""The report's main pictures as PNG files, for slides, issues and places that show no HTML."""

from __future__ import annotations

import io

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from jaxdqn.confirm_figures import confirmed_rows, pareto_front, spread
from jaxdqn.figures import (
    BROUGHT_OUT,
    GREEN,
    GREY,
    KIND_COLOURS,
    KIND_NAMES,
    PURPLE,
    RED,
    SKY,
)
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
    span,
    wall_time,
)

NAMES = ("best_so_far", "learning_curves", "timeline", "confirm", "search_and_fresh", "return_against_size")


def pictures(data: ReportData, bars: list[Held], clock: Clock) -> dict[str, bytes]:
    """Return the PNG files by their names, those that there is something to draw of."""
    drawn = {
        "best_so_far": _best_so_far(data, clock),
        "learning_curves": _learning_curves(data),
        "timeline": _timeline(bars, clock),
        "confirm": _confirm(data),
        "search_and_fresh": _search_and_fresh(data),
        "return_against_size": _return_against_size(data),
    }
    return {name: _png(figure) for name, figure in drawn.items() if figure is not None}


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, dpi=150, format="png")
    return file.getvalue()


def _new(height: float = 4.5) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(9, height), layout="constrained")
    panel = figure.subplots()
    _plain(panel)
    return figure, panel


def _plain(panel: Axes) -> None:
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(alpha=0.25)
    panel.set_axisbelow(True)


def _legend(figure: Figure) -> None:
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), 6), frameon=False)


def _best_so_far(data: ReportData, clock: Clock) -> Figure | None:
    scored = sorted(ranked(data.trials), key=lambda trial: trial.number)
    if not scored:
        return None
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    by_number = [(float(trial.number), trial.value or 0.0) for trial in scored]
    by_time = [(x, trial.value or 0.0) for trial in scored if (x := wall_time(trial, clock)) is not None]
    panels = [("trial", by_number), *([("seconds since the first start", by_time)] if by_time else [])]
    for i, (label, points) in enumerate(panels):
        panel = figure.add_subplot(1, len(panels), i + 1)
        _plain(panel)
        times, values = (list(axis) for axis in zip(*even_sample(points, SCORES_DRAWN), strict=True))
        panel.scatter(times, values, s=14, color=SKY, alpha=0.65, linewidths=0, label="a trial")
        panel.step(*best_so_far(points), where="post", color=RED, linewidth=2, label="best so far")
        _solved(panel, data)
        panel.set(xlabel=label, ylabel="mean return")
    for seam in clock.seams if len(panels) > 1 else []:
        figure.axes[1].axvline(seam, color=GREY, linestyle=":", linewidth=1)
    _legend(figure)
    return figure


def _learning_curves(data: ReportData) -> Figure | None:
    drawn = best_and_sample([trial for trial in data.trials if trial.intermediate], BEST_DRAWN, OTHERS_DRAWN)
    if not drawn:
        return None
    figure, panel = _new()
    few = ranked(drawn)[: len(BROUGHT_OUT)]
    for trial in drawn[len(few) :]:
        panel.plot(*_finite(*curve(trial)), color=GREY, alpha=0.3, linewidth=0.8)
    for trial, colour in zip(few, BROUGHT_OUT, strict=False):
        shown = _finite(*curve(trial))
        panel.plot(*shown, color=colour, linewidth=2, marker="o", markersize=3, label=f"trial {trial.number}")
    _solved(panel, data)
    panel.set(xlabel="environment steps", ylabel="mean validation return")
    if few:
        _legend(figure)
    return figure


def _finite(steps: list[int], values: list[float | None]) -> tuple[list[int], list[float]]:
    known = [(step, value) for step, value in zip(steps, values, strict=True) if value is not None]
    return [step for step, _ in known], [value for _, value in known]


def _timeline(bars: list[Held], clock: Clock) -> Figure | None:
    if not bars:
        return None
    lanes = sorted({bar.lane for bar in bars})
    row = {lane: i for i, lane in enumerate(lanes)}
    figure, panel = _new(min(2.0 + 0.2 * len(lanes), 7.0))
    panel.grid(visible=False)
    panel.barh(range(len(lanes)), clock.length, height=0.86, color=GREY, alpha=0.22)
    handles = [Patch(color=GREY, alpha=0.22, label="idle")]
    for kind, colour in KIND_COLOURS.items():
        its = [bar for bar in bars if bar.kind == kind]
        if its:
            began = [clock.at(bar.began) for bar in its]
            lasted = [clock.at(bar.ended) - start for bar, start in zip(its, began, strict=True)]
            rows = [row[bar.lane] for bar in its]
            panel.barh(rows, lasted, left=began, height=0.86, color=colour, edgecolor="#00000059", linewidth=0.3)
            handles.append(Patch(color=colour, label=KIND_NAMES[kind]))
    for seam in clock.seams:
        panel.axvline(seam, color="black", linestyle=":", linewidth=1)
    ticks = even_sample(range(len(lanes)), 12)
    panel.set_yticks(ticks, [str(lanes[i]) for i in ticks])
    panel.set(xlabel="seconds since the first start", ylabel="lane", ylim=(len(lanes) - 0.5, -0.5))
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), frameon=False)
    return figure


def _confirm(data: ReportData) -> Figure | None:
    rows = confirmed_rows(data)
    known = [value for _, entry, _ in rows for value in entry.get("returns") or [] if is_number(value)]
    if not any(entry.get("returns") for _, entry, _ in rows):
        return None
    low, high = span(known or [0.0])
    figure, panel = _new(1.5 + 0.42 * len(rows))
    for y, (_, entry, colour) in enumerate(rows):
        for i, value in enumerate(entry.get("returns") or []):
            if is_number(value):
                panel.plot(value, y + spread(i), "o", color=colour, alpha=0.6, markersize=5, markeredgewidth=0)
            else:
                panel.plot(low - 0.06 * (high - low or 1.0), y + spread(i), "x", color=RED, markersize=6)
        if is_number(entry.get("mean_return")):
            panel.errorbar(entry["mean_return"], y, xerr=_errors(entry), fmt="|", color="#555555", markersize=14)
    if data.solved_return is not None and low <= data.solved_return <= high:
        panel.axvline(data.solved_return, color=GREY, linestyle=":", linewidth=1)
    panel.set_xlim(low - 0.1 * (high - low), high + 0.1 * (high - low))
    panel.set_yticks(range(len(rows)), [label for label, _, _ in rows])
    panel.set(xlabel="return of a seed (×: diverged; bar: mean and its interval)", ylim=(len(rows) - 0.5, -0.5))
    return figure


def _search_and_fresh(data: ReportData) -> Figure | None:
    groups = (
        ("confirmation", data.confirm[:CONFIRMED_DRAWN], GREEN, "o"),
        ("verdict", [data.verdict] if data.verdict else [], PURPLE, "D"),
    )
    pairs = [
        (name, entry, colour, symbol)
        for name, entries, colour, symbol in groups
        for entry in entries
        if is_number(entry.get("search_return")) and is_number(entry.get("mean_return"))
    ]
    if not pairs:
        return None
    figure, panel = _new()
    values = [entry[key] for _, entry, _, _ in pairs for key in ("search_return", "mean_return")]
    panel.plot(*[span(values)] * 2, "--", color=GREY, linewidth=1.2, label="as good as searched")
    seen: set[str] = set()
    for name, entry, colour, symbol in pairs:
        label = None if name in seen else name
        seen.add(name)
        x, y = entry["search_return"], entry["mean_return"]
        panel.errorbar(x, y, yerr=_errors(entry), fmt=symbol, color=colour, capsize=3, label=label)
    panel.set(xlabel="mean return in the search", ylabel="mean return on fresh seeds")
    _legend(figure)
    return figure


def _return_against_size(data: ReportData) -> Figure | None:
    finite = [point for point in data.pareto or [] if is_number(point[1]) and is_number(point[2]) and point[2] > 0]
    if not finite:
        return None
    figure, panel = _new()
    front = pareto_front(finite)
    panel.plot(
        [size for *_, size in finite], [value for _, value, _ in finite], "o", color=SKY, alpha=0.65, label="a trial"
    )
    panel.step(
        [size for *_, size in front],
        [value for _, value, _ in front],
        "o-",
        where="post",
        color=RED,
        label="no trial is better and smaller",
    )
    panel.set(xlabel="parameters of the network", ylabel="mean return in the search", xscale="log")
    _solved(panel, data)
    _legend(figure)
    return figure


def _errors(entry: dict[str, object]) -> list[list[float]] | None:
    """Return how far the interval of a mean reaches below and above it."""
    interval, mean = entry.get("mean_interval"), entry["mean_return"]
    if not isinstance(interval, list | tuple) or not isinstance(mean, int | float) or not all(map(is_number, interval)):
        return None
    low, high = interval
    return [[max(mean - low, 0.0)], [max(high - mean, 0.0)]]


def _solved(panel: Axes, data: ReportData) -> None:
    if data.solved_return is not None:
        panel.axhline(data.solved_return, color=GREY, linestyle=":", linewidth=1)
