"""The sections of the report: their words, tables and places for figures. All text that a user wrote is escaped."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxdqn import figures
from jaxdqn.follower import Trial
from jaxdqn.optuna_figures import FITTED, FigureSpec, domain_texts, optuna_figures
from jaxdqn.report_data import (
    BARS_DRAWN,
    BEST_DRAWN,
    CONFIRMED_DRAWN,
    OTHERS_DRAWN,
    POINTS_DRAWN,
    SCORES_DRAWN,
    Clock,
    ReportData,
    busy_share,
    held_lanes,
    is_number,
    make_clock,
    num_diverged,
    num_seeds,
    num_solved,
    period,
    ranked,
    thin_lanes,
    winner,
)

BEST_LISTED = 20
FAILURES_LISTED = 100


class Section(NamedTuple):
    """A part of the page."""

    id: str
    title: str
    body: str  # HTML
    figures: dict[str, FigureSpec]  # by the ids of their places


def sections(data: ReportData) -> list[Section]:
    """Return the sections in their order; one without data says why it shows nothing."""
    clock = make_clock(data)
    made = [
        _result(data, clock),
        _progress(data, clock),
        _curves(data),
        _best_trials(data),
        _hyperparameters(data),
        _fresh(data),
        _confirm(data),
        *([_pareto(data)] if data.pareto is not None else []),
        _lanes(data, clock),
        _failures(data),
        _reproduce(data),
    ]
    return made


def _result(data: ReportData, clock: Clock) -> Section:
    body = [_headline(data), _cards(data, clock)]
    won = winner(data)
    left = []
    if won is not None:
        number, params = won
        searched = domain_texts(data.space)
        names = [*[n for n in searched if n in params], *[n for n in params if n not in searched]]
        rows = [[name, show(params[name]), searched.get(name, "fixed")] for name in names]
        left.append(f"<h3>Hyperparameters of trial {number}</h3>")
        left.append(_table(["hyperparameter", "value", "searched in"], rows, "words"))
    body.append(f'<div class="columns"><div>{"".join(left)}</div><div>{_animation(data.animation)}</div></div>')
    body.append("<h3>The command</h3>" + _command(data, "command-above"))
    return Section("result", "Result", "\n".join(body), {})


def _headline(data: ReportData) -> str:
    """The verdict in one sentence; what came before it is called what it is: not confirmed."""
    entry = data.verdict or (data.confirm[0] if data.confirm else None)
    scored = ranked(data.trials)
    if entry is None and not scored:
        return _boxed("No result yet", "No trial has a score.")
    if entry is None:
        best = scored[0]
        text = (
            f"Trial {best.number} has the best mean return of {len(scored):,} complete trials, on the episodes and "
            "seeds that it was chosen by: expect less of it on fresh seeds."
        )
        return _boxed(f"Not confirmed: {show(best.value)} in the search", text)
    total, solved = num_seeds(entry), num_solved(entry)
    head = f"mean return {show(entry.get('mean_return'))} over {total} fresh seeds"
    facts = [f"mean return {with_interval(entry.get('mean_return'), entry.get('mean_interval'))}"]
    if solved is not None and data.solved_return is not None:
        head = f"{solved} of {total} fresh seeds solve"
        low, high = entry.get("solved_interval") or (None, None)
        wilson = f" (Wilson interval {100 * low:.0f}–{100 * high:.0f} %)" if is_number(low) and is_number(high) else ""
        facts.insert(0, f"{solved} of {total} reach a mean return of {show(data.solved_return)}{wilson}")
    facts.append(f"worst seed {_worst(entry)}")
    facts.append(f"{show(entry.get('search_return'))} in the search")
    if data.verdict is None:
        tail = "The winner was chosen by these seeds and no verdict on others was made: this is optimistic, too."
        return _boxed(f"Not confirmed by a verdict: {head}", f"Trial {entry.get('number')}: {'; '.join(facts)}. {tail}")
    tail = "None of these seeds and episodes was seen before the winner was chosen."
    text = f"Trial {entry.get('number')}: {'; '.join(facts)}. {tail}"
    return _boxed(head[0].upper() + head[1:], text, "confirmed")


def _boxed(head: str, text: str, kind: str = "") -> str:
    return f'<div class="headline {kind}"><strong>{html.escape(head)}</strong><p>{html.escape(text)}</p></div>'


def _worst(entry: dict[str, Any]) -> str:
    diverged = num_diverged(entry)
    return f"diverged ({diverged} did)" if diverged else show(entry.get("worst_seed_return"))


def _cards(data: ReportData, clock: Clock) -> str:
    counts = {state: sum(trial.state == state for trial in data.trials) for state in ("complete", "pruned", "failed")}
    others = len(data.trials) - sum(counts.values())
    states = ", ".join(f"{count:,} {state}" for state, count in {**counts, "running": others}.items() if count)
    scored, span = ranked(data.trials), period(data.trials)
    steps, updates = (
        sum(sum(filter(is_number, _list(trial, name))) for trial in data.trials) for name in ("env_steps", "updates")
    )
    cards = [("trials", f"{len(data.trials):,}", states)]
    if scored:
        cards.append(("best in the search", show(scored[0].value), f"trial {scored[0].number}"))
    if clock.length:
        runs = f" in {len(clock.seams) + 1} runs" if clock.seams else ""
        began = f"from {span[0]:%Y-%m-%d %H:%M}" if span else ""
        cards.append(("time", duration(clock.length), f"{began}{runs}".strip()))
    if steps:
        cards.append(("environment steps", _large(steps), f"{steps / clock.length:,.0f}/s" if clock.length else ""))
    if updates:
        cards.append(("updates", _large(updates), f"{updates / clock.length:,.0f}/s" if clock.length else ""))
    items = (f"<div><dt>{k}</dt><dd>{v} <small>{html.escape(small)}</small></dd></div>" for k, v, small in cards)
    return f'<dl class="cards">{"".join(items)}</dl>'


def _animation(path: Path | None) -> str:
    if path is None or not path.is_file():
        return ""
    picture = base64.b64encode(path.read_bytes()).decode()
    source = f"data:image/gif;base64,{picture}"
    return f'<h3>The winner acts</h3><img class="animation" alt="Episodes of the winner" src="{source}">'


def _progress(data: ReportData, clock: Clock) -> Section:
    by_trial, by_time = figures.progress(data, None), figures.progress(data, clock)
    drawn = {name: spec for name, spec in (("by-time", by_time), ("by-trial", by_trial)) if spec is not None}
    if not drawn:
        return Section("progress", "Progress", _absent("No trial has a score."), {})
    total = len(ranked(data.trials))
    notes = ["Each dot is a complete trial's mean return; the line is the best so far."]
    notes += [f"An even sample of {SCORES_DRAWN:,} of {total:,} dots is drawn."] * (total > SCORES_DRAWN)
    notes += ["The pauses between runs are cut out at the dotted vertical lines."] * bool(clock.seams)
    places = "".join(_place(name, spec) for name, spec in drawn.items())
    return Section("progress", "Progress", _note(notes) + f'<div class="columns">{places}</div>', drawn)


def _curves(data: ReportData) -> Section:
    title, figure = "Learning curves", figures.learning_curves(data)
    if figure is None:
        return Section("curves", title, _absent("No trial was validated while it was trained."), {})
    validated = [trial for trial in data.trials if trial.intermediate]
    notes = ["Mean validation return at each rung, over a trial's seeds; the best trials in colour, the others grey."]
    if len(validated) > BEST_DRAWN + OTHERS_DRAWN:
        notes.append(
            f"Of {len(validated):,} curves the best {BEST_DRAWN} and an even sample of {OTHERS_DRAWN} others are drawn."
        )
    if any(len(trial.intermediate) > POINTS_DRAWN for trial in validated):
        notes.append(f"A curve is drawn with at most {POINTS_DRAWN} of its points.")
    return Section("curves", title, _note(notes) + _place("learning-curves", figure), {"learning-curves": figure})


def _best_trials(data: ReportData) -> Section:
    scored = ranked(data.trials)
    if not scored:
        return Section("best", "Best trials", _absent("No trial has a score."), {})
    names = list(data.space.searched)
    has_spread = any(is_number(trial.attributes.get("std_return")) for trial in scored)
    rows = []
    for trial in scored[:BEST_LISTED]:
        seeds = [show(value) if is_number(value) else "diverged" for value in _list(trial, "returns")]
        row = [str(trial.number), show(trial.value)]
        row += [show(trial.attributes.get("std_return"))] * has_spread
        row += [", ".join(seeds[:4]) + (" …" if len(seeds) > 4 else "") or "–"]
        row += [show(sum(filter(is_number, _list(trial, name))) or None) for name in ("env_steps", "updates")]
        rows.append([*row, *(show(trial.params.get(name)) for name in names)])
    head = ["trial", "mean return", *["std"] * has_spread, "each seed", "steps", "updates", *names]
    note = _note([f"The best {len(rows)} of {len(scored):,} complete trials, by their score in the search."])
    return Section("best", "Best trials", note + _table(head, rows), {})


def _hyperparameters(data: ReportData) -> Section:
    drawn = optuna_figures(data.space, data.trials)
    body, specs = [], {}
    if drawn.passed_over:
        body.append(_note([f"{drawn.passed_over:,} complete trials do not fit the space and are left out here."]))
    if drawn.absent:
        body.append(_absent(drawn.absent))
    if drawn.importances is not None:
        specs["importances"] = drawn.importances
        note = "How much of what tells good trials from the others each hyperparameter explains, by Optuna's PED-ANOVA."
        body.append("<h3>Importances</h3>" + _note([note]) + _place("importances", drawn.importances))
    if drawn.slices:
        fitted = len(ranked(data.trials)) - drawn.passed_over
        notes = [
            "Scores against each hyperparameter, the most important first; blue trials are early, yellow ones late."
        ]
        if fitted > 2 * FITTED:
            notes.append(
                f"Importances and slices: the best {FITTED} of {fitted:,} trials and an even sample of {FITTED}."
            )
        places = []
        for i, spec in enumerate(drawn.slices):
            specs[f"slice-{i}"] = spec
            places.append(_place(f"slice-{i}", spec))
        body.append(f'<h3>Slices</h3>{_note(notes)}<div class="slices">{"".join(places)}</div>')
    if drawn.parallel is not None:
        specs["parallel"] = drawn.parallel
        notes = ["A line is a trial; the better, the stronger."]
        if len(ranked(data.trials)) > BEST_DRAWN + OTHERS_DRAWN:
            notes.append(f"Drawn: the best {BEST_DRAWN} and an even sample of {OTHERS_DRAWN} others.")
        place = _place("parallel", drawn.parallel)
        body.append(f'<h3>Parallel coordinates</h3>{_note(notes)}<div class="scrolls" tabindex="0">{place}</div>')
    return Section("hyperparameters", "Hyperparameters", "\n".join(body), specs)


def _fresh(data: ReportData) -> Section:
    title, figure = "Search against fresh seeds", figures.search_against_fresh(data)
    if figure is None:
        return Section("fresh", title, _absent("No candidate was trained again on fresh seeds."), {})
    lost = [
        entry["search_return"] - entry["mean_return"]
        for entry in data.confirm
        if is_number(entry.get("search_return")) and is_number(entry.get("mean_return"))
    ]
    notes = ["What is below the dashed line was overestimated by the search: the best of many is partly luck."]
    if lost:
        mean = sum(lost) / len(lost)
        word = "below" if mean >= 0 else "above"
        notes.append(f"Over {len(lost)} candidates, the fresh mean is {show(abs(mean))} {word} the searched one.")
    return Section("fresh", title, _note(notes) + _place("search-and-fresh", figure), {"search-and-fresh": figure})


def _confirm(data: ReportData) -> Section:
    title = "Confirmation and verdict"
    if not data.confirm and data.verdict is None:
        return Section("confirm", title, _absent("No confirmation was made: all scores are those of the search."), {})
    entries = [("verdict", data.verdict)] if data.verdict else []
    entries += [(str(i + 1), entry) for i, entry in enumerate(data.confirm)]
    rows = []
    for rank, entry in entries:
        solved, total = num_solved(entry), num_seeds(entry)
        share = "–" if solved is None else f"{solved} of {total}"
        interval = entry.get("solved_interval")
        if solved is not None and interval and all(map(is_number, interval)):
            share += f" [{100 * interval[0]:.0f}–{100 * interval[1]:.0f} %]"
        rows.append(
            [
                rank,
                show(entry.get("number")),
                str(total),
                share,
                with_interval(entry.get("mean_return"), entry.get("mean_interval")),
                with_interval(entry.get("iqm_return"), entry.get("iqm_interval")),
                _worst(entry),
                show(entry.get("search_return")),
            ]
        )
    head = ["", "trial", "seeds", "solve", "mean return", "interquartile mean", "worst seed", "in the search"]
    notes = [
        "The confirmation chooses the winner among the candidates; the verdict trains it once more on other seeds."
    ]
    notes += ["In brackets: intervals."]
    if data.verdict is None:
        notes.append("No verdict was made.")
    body, figure = _note(notes) + _table(head, rows, leading=data.verdict is not None), figures.returns_of_seeds(data)
    if figure is None:
        return Section("confirm", title, body, {})
    if len(data.confirm) > CONFIRMED_DRAWN:
        body += _note([f"The first {CONFIRMED_DRAWN} of {len(data.confirm)} candidates are drawn."])
    return Section("confirm", title, body + _place("returns-of-seeds", figure), {"returns-of-seeds": figure})


def _pareto(data: ReportData) -> Section:
    title, figure = "Return against size", figures.pareto(data.pareto or [])
    if figure is None:
        return Section("pareto", title, _absent("No trial has a return and a size."), {})
    notes = ["Of the trials on the front none is both better and smaller."]
    return Section("pareto", title, _note(notes) + _place("pareto", figure), {"pareto": figure})


def _lanes(data: ReportData, clock: Clock) -> Section:
    title, bars = "Lanes", held_lanes(data)
    if not bars:
        return Section("lanes", title, _absent("It was not recorded which trial held which lane when."), {})
    shown, lanes, kept = thin_lanes(bars)
    notes = [f"Which agent held which of {lanes:,} lanes when: {len(bars):,} agents."]
    share = busy_share(bars, clock)
    notes += [f"The lanes were busy for {100 * share:.1f} % of the time."] if share is not None else []
    if kept < lanes:
        notes.append(f"{kept:,} lanes are drawn, evenly chosen, to keep within {BARS_DRAWN:,} bars.")
    elif len(shown) < len(bars):
        notes.append(f"The last {len(shown):,} agents are drawn.")
    notes += ["The pauses between runs are cut out at the dotted lines."] * bool(clock.seams)
    figure = figures.timeline(shown, clock)
    assert figure is not None
    return Section("lanes", title, _note(notes) + _place("timeline", figure), {"timeline": figure})


def _failures(data: ReportData) -> Section:
    title = "Failures"
    gone = [t for t in data.trials if t.state == "failed" or num_diverged(t.attributes)]
    if not gone:
        return Section("failures", title, _absent("No agent diverged and no trial failed."), {})
    rows = []
    for trial in sorted(gone, key=lambda trial: trial.number)[:FAILURES_LISTED]:
        returns = _list(trial, "returns")
        seeds = [str(i) for i, value in enumerate(returns) if not is_number(value)]
        what = f"{len(seeds)} of {len(returns)} seeds diverged: {', '.join(seeds)}" if seeds else "no score"
        params = ", ".join(f"{name} {show(value)}" for name, value in trial.params.items())
        rows.append([str(trial.number), trial.state, what, params])
    notes = [f"{len(gone):,} of {len(data.trials):,} trials failed or have seeds that diverged."]
    notes += [f"The first {FAILURES_LISTED} are listed."] * (len(gone) > FAILURES_LISTED)
    return Section("failures", title, _note(notes) + _table(["trial", "state", "what", "with"], rows, "words"), {})


def _reproduce(data: ReportData) -> Section:
    note = (
        f"The study's seed is {data.seed}. On the same machine and versions the same command makes the same study; "
        "a CPU and a GPU, or two versions of JAX, do not give the same bits."
    )
    return Section("reproduce", "Make it again", _note([note]) + _command(data, "command-below"), {})


def _command(data: ReportData, name: str) -> str:
    button = f'<button type="button" data-copies="{name}">Copy</button>'
    return f'<div class="command"><pre id="{name}">{html.escape(data.command)}</pre>{button}</div>'


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


def _large(value: float) -> str:
    for unit, size in (("billion", 1e9), ("million", 1e6)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:,.0f}"


def _list(trial: Trial, name: str) -> list[Any]:
    value = trial.attributes.get(name)
    return value if isinstance(value, list) else []


def _place(name: str, spec: FigureSpec) -> str:
    return f'<div class="figure" data-figure="figure-{name}" style="height:{spec["layout"]["height"]}px"></div>'


def _note(sentences: Sequence[str]) -> str:
    return f'<p class="note">{html.escape(" ".join(sentences))}</p>'


def _absent(sentence: str) -> str:
    return f'<p class="absent">{html.escape(sentence)}</p>'


def _table(head: list[str], rows: list[list[str]], kind: str = "", leading: bool = False) -> str:
    """Return a table that scrolls sideways where it is too wide; the first row stands out where it is `leading`."""
    top = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in head)
    lines = [
        f"<tr{' class=leading' if leading and not i else ''}>{''.join(f'<td>{html.escape(c)}</td>' for c in row)}</tr>"
        for i, row in enumerate(rows)
    ]
    table = f'<table class="{kind}"><thead><tr>{top}</tr></thead><tbody>{"".join(lines)}</tbody></table>'
    return f'<div class="scrolls" tabindex="0">{table}</div>'
