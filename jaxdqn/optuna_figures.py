"""Optuna's own plots of a search: importances, slices, parallel coordinates; as plotly.js takes them.

They are made from a study in memory, so that no storage is opened, and are restyled for light and dark pages.
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import optuna
import optuna.visualization
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, create_trial

from jaxdqn.follower import Trial
from jaxdqn.report_data import BEST_DRAWN, OTHERS_DRAWN, best_and_sample, is_number
from jaxdqn.space import Space

FITTED = 500  # of the best trials, and as many of the others: what importances and slices are made from
BLUE = "#0072B2"

FigureSpec = dict[str, Any]  # data and layout, as plotly.js takes them


class OptunaFigures(NamedTuple):
    """The plots, and where there are none the reason."""

    importances: FigureSpec | None
    slices: list[FigureSpec]  # one a hyperparameter, the most important first
    parallel: FigureSpec | None
    absent: str  # why the importances are left out, or all; "": nothing is
    passed_over: int  # complete trials that do not fit the space


def optuna_figures(space: Space, trials: list[Trial]) -> OptunaFigures:
    """Draw the plots, from the best trials and an even sample of the others. User's text in them is escaped."""
    complete = [trial for trial in trials if trial.state == "complete" and is_number(trial.value)]
    fitting = [trial for trial in complete if _frozen(space, trial) is not None]
    passed_over = len(complete) - len(fitting)
    if not space.searched:
        return OptunaFigures(None, [], None, "The space searches no hyperparameter.", passed_over)
    if len(fitting) < 2:
        absent = f"It takes two complete trials to compare hyperparameters; there are {len(fitting)}."
        return OptunaFigures(None, [], None, absent, passed_over)
    chosen = sorted(best_and_sample(fitting, FITTED, FITTED), key=lambda trial: trial.number)
    drawn = sorted(best_and_sample(fitting, BEST_DRAWN, OTHERS_DRAWN), key=lambda trial: trial.number)
    study = _study(space, chosen)
    names = [html.escape(name) for name in space.searched]
    absent, importances = "", None
    if len({trial.value for trial in chosen}) == 1:
        absent = "All complete trials have the same score: no hyperparameter can be called important."
    else:
        importances, names = _importances(study)
    slices = [_slice(study, name, [trial.number for trial in chosen]) for name in names]
    return OptunaFigures(importances, slices, _parallel(_study(space, drawn)), absent, passed_over)


def domain_texts(space: Space) -> dict[str, str]:
    """Return in words what each hyperparameter was searched in."""
    return {name: _domain_text(domain) for name, domain in space.searched.items()}


def _domain_text(domain: BaseDistribution) -> str:
    if isinstance(domain, CategoricalDistribution):
        return ", ".join(str(choice).lower() if isinstance(choice, bool) else str(choice) for choice in domain.choices)
    assert isinstance(domain, FloatDistribution | IntDistribution)
    step = f", in steps of {_plain(domain.step)}" if domain.step not in (None, 1) else ""
    return f"{_plain(domain.low)} to {_plain(domain.high)}{', logarithmic' if domain.log else step}"


def _plain(value: Any) -> str:
    """Return a number without an exponent where that is short; other text as it is."""
    try:
        number = float(value)
    except ValueError:
        return str(value)
    return f"{number:,.10g}" if 1 <= abs(number) < 1e7 else f"{number:g}"


def _frozen(space: Space, trial: Trial) -> FrozenTrial | None:
    """Return a trial as Optuna's, with user's text escaped; None if it does not fit the space."""
    domains = {
        html.escape(name): CategoricalDistribution([_escaped(choice) for choice in domain.choices])
        if isinstance(domain, CategoricalDistribution)
        else domain
        for name, domain in space.searched.items()
    }
    params = {html.escape(name): _escaped(value) for name, value in trial.params.items()}
    try:
        return create_trial(value=trial.value, params=params, distributions=domains)
    except (TypeError, ValueError):
        return None


def _escaped(value: Any) -> Any:
    return html.escape(value) if isinstance(value, str) else value


def _study(space: Space, trials: list[Trial]) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(storage=optuna.storages.InMemoryStorage(), direction="maximize")
    study.add_trials([frozen for trial in trials if (frozen := _frozen(space, trial)) is not None])
    return study


def _importances(study: optuna.Study) -> tuple[FigureSpec, list[str]]:
    """Return the bars, and the names of the hyperparameters, the most important first."""
    figure = _spec(optuna.visualization.plot_param_importances(study))
    bars = figure["data"][0]
    bars["marker"] = {"color": BLUE}
    bars["hovertemplate"] = "%{y}: %{x:.3f}<extra></extra>"
    figure["layout"] = {
        "xaxis": {"title": {"text": "importance"}, "range": [0, 1.15 * max(bars["x"])]},
        "height": 90 + 30 * len(bars["y"]),
        "showlegend": False,
    }
    return figure, list(reversed(bars["y"]))


def _slice(study: optuna.Study, name: str, numbers: list[int]) -> FigureSpec:
    figure = _spec(optuna.visualization.plot_slice(study, params=[name]))
    for trace in figure["data"]:
        trial = [numbers[i] for i in trace["marker"]["color"]]
        trace["marker"] = {
            "color": trial,
            "colorscale": "Cividis",
            "cmin": numbers[0],
            "cmax": numbers[-1],
            "showscale": False,
            "size": 6,
            "opacity": 0.9 if len(trial) < 200 else 0.6,
            "line": {"width": 0.5, "color": "rgba(128,128,128,0.8)"},
        }
        trace["customdata"] = trial
        trace["hovertemplate"] = "trial %{customdata}<br>%{x}: %{y:.4~g}<extra></extra>"
    layout = figure["layout"]
    axis = {key: value for key, value in layout["xaxis"].items() if key in ("type", "categoryorder", "categoryarray")}
    values = [x for trace in figure["data"] for x in trace["x"]]
    if axis.get("type") == "log":
        axis |= log_ticks(values)
    elif all(isinstance(x, int) for x in values) and max(values) - min(values) <= 8:
        axis["dtick"] = 1
    figure["layout"] = {
        "xaxis": {**axis, "title": {"text": name}},
        "yaxis": {"title": {"text": "mean return"}},
        "height": 250,
        "showlegend": False,
    }
    return figure


def log_ticks(values: Sequence[float]) -> dict[str, Any]:
    """Return the ticks of a logarithmic axis: powers of ten, and between them 2 and 5 where those are few."""
    low, high = math.log10(min(values)), math.log10(max(values))
    within = (1.0,) if high - low > 2 else (1.0, 2.0, 5.0)
    ticks = [m * 10.0**k for k in range(math.floor(low), math.ceil(high) + 1) for m in within]
    ticks = [float(f"{tick:.1g}") for tick in ticks if low - 0.1 <= math.log10(tick) <= high + 0.1]
    return {"tickvals": ticks, "ticktext": [_plain(tick) for tick in ticks]} if ticks else {}


def _parallel(study: optuna.Study) -> FigureSpec:
    """Return the lines, the better the stronger and the further in front."""
    figure = _spec(optuna.visualization.plot_parallel_coordinate(study))
    lines = sorted((trace for trace in figure["data"] if trace.get("mode") == "lines"), key=lambda trace: trace["y"][0])
    strength = 0.8 * min(1.0, max(0.3, 60 / len(lines)))
    for trace in lines:
        trace["line"] = {"color": BLUE, "width": 1.3}
        trace["opacity"] = round(strength * (0.1 + 0.9 * trace["y"][0] ** 3), 3)
        trace["y"] = [round(y, 4) for y in trace["y"]]
    layout = figure["layout"]
    for note in layout.get("annotations", []):
        note["font"], note["text"] = {"size": 11}, _plain(note["text"])
    axis = {key: layout["xaxis"][key] for key in ("range", "tickvals", "ticktext", "showgrid", "zeroline")}
    axis["ticktext"] = ["return", *axis["ticktext"][1:]]
    for trace in lines:
        trace["customdata"] = [[name, _plain(value)] for name, value in trace["customdata"]]
        trace["customdata"][0][0] = "mean return"
    figure["data"] = lines
    figure["layout"] = {
        "xaxis": {**axis, "tickmode": "array", "tickangle": -25, "fixedrange": True},
        "yaxis": {"visible": False, "fixedrange": True, "range": [-0.05, 1.05]},
        "annotations": layout.get("annotations", []),
        "shapes": layout.get("shapes", []),
        "hovermode": "closest",
        "showlegend": False,
        "height": 460,
    }
    return figure


def _spec(figure: Any) -> FigureSpec:
    """Return a plotly figure as JSON values, without the template that it carries."""
    spec: FigureSpec = json.loads(figure.to_json())
    spec["layout"].pop("template", None)
    return spec
