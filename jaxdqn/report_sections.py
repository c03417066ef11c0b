"""The sections of the report: their words, tables and places for figures. All text that a user wrote is escaped."""

from __future__ import annotations

from jaxdqn import confirm_figures, figures
from jaxdqn.optuna_figures import FITTED, FigureSpec, optuna_figures
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
    diverged_seeds,
    held_lanes,
    is_number,
    make_clock,
    num_seeds,
    num_solved,
    ranked,
    thin_lanes,
)
from jaxdqn.report_markup import (
    Section,
    absent,
    command,
    listed,
    note,
    place,
    scrolling,
    show,
    table,
    with_interval,
    worst_seed,
)
from jaxdqn.report_result import result

BEST_LISTED = 20
FAILURES_LISTED = 100


def sections(data: ReportData) -> list[Section]:
    """Return the sections in their order; one without data says why it shows nothing."""
    clock = make_clock(data)
    return [
        result(data, clock),
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


def _progress(data: ReportData, clock: Clock) -> Section:
    by_trial, by_time = figures.progress(data, None), figures.progress(data, clock)
    drawn = {name: spec for name, spec in (("by-time", by_time), ("by-trial", by_trial)) if spec is not None}
    if not drawn:
        return Section("progress", "Progress", absent("No trial has a score."), {})
    total = len(ranked(data.trials))
    notes = ["Each dot is a complete trial's mean return; the line is the best so far."]
    notes += [f"An even sample of {SCORES_DRAWN:,} of {total:,} dots is drawn."] * (total > SCORES_DRAWN)
    notes += ["The pauses between runs are cut out at the dotted vertical lines."] * bool(clock.seams)
    places = "".join(place(name, spec) for name, spec in drawn.items())
    return Section("progress", "Progress", note(notes) + f'<div class="columns">{places}</div>', drawn)


def _curves(data: ReportData) -> Section:
    title, figure = "Learning curves", figures.learning_curves(data)
    if figure is None:
        return Section("curves", title, absent("No trial was validated while it was trained."), {})
    validated = [trial for trial in data.trials if trial.intermediate]
    notes = ["Mean validation return at each rung, over a trial's seeds; the best trials in colour, the others grey."]
    if len(validated) > BEST_DRAWN + OTHERS_DRAWN:
        notes.append(
            f"Of {len(validated):,} curves the best {BEST_DRAWN} and an even sample of {OTHERS_DRAWN} others are drawn."
        )
    if any(len(trial.intermediate) > POINTS_DRAWN for trial in validated):
        notes.append(f"A curve is drawn with at most {POINTS_DRAWN} of its points.")
    return Section("curves", title, note(notes) + place("learning-curves", figure), {"learning-curves": figure})


def _best_trials(data: ReportData) -> Section:
    scored = ranked(data.trials)
    if not scored:
        return Section("best", "Best trials", absent("No trial has a score."), {})
    names = list(data.space.searched)
    has_spread = any(is_number(trial.attributes.get("std_return")) for trial in scored)
    rows = []
    for trial in scored[:BEST_LISTED]:
        seeds = [show(value) if is_number(value) else "diverged" for value in listed(trial, "returns")]
        row = [str(trial.number), show(trial.value)]
        row += [show(trial.attributes.get("std_return"))] * has_spread
        row += [", ".join(seeds[:4]) + (" …" if len(seeds) > 4 else "") or "–"]
        row += [show(sum(filter(is_number, listed(trial, name))) or None) for name in ("env_steps", "updates")]
        rows.append([*row, *(show(trial.params.get(name)) for name in names)])
    head = ["trial", "mean return", *["std of episodes"] * has_spread, "each seed", "steps", "updates", *names]
    said = note([f"The best {len(rows)} of {len(scored):,} complete trials, by their score in the search."])
    return Section("best", "Best trials", said + table(head, rows), {})


def _hyperparameters(data: ReportData) -> Section:
    drawn = optuna_figures(data.space, data.trials)
    body: list[str] = []
    specs: dict[str, FigureSpec] = {}
    if drawn.passed_over:
        body.append(note([f"{drawn.passed_over:,} complete trials do not fit the space and are left out here."]))
    if drawn.absent:
        body.append(absent(drawn.absent))
    if drawn.importances is not None:
        specs["importances"] = drawn.importances
        said = "How much of what tells good trials from the others each hyperparameter explains, by Optuna's PED-ANOVA."
        body.append("<h3>Importances</h3>" + note([said]) + place("importances", drawn.importances))
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
            places.append(place(f"slice-{i}", spec))
        body.append(f'<h3>Slices</h3>{note(notes)}<div class="slices">{"".join(places)}</div>')
    if drawn.parallel is not None:
        specs["parallel"] = drawn.parallel
        notes = ["A line is a trial; the better, the stronger."]
        if len(ranked(data.trials)) > BEST_DRAWN + OTHERS_DRAWN:
            notes.append(f"Drawn: the best {BEST_DRAWN} and an even sample of {OTHERS_DRAWN} others.")
        body.append(f"<h3>Parallel coordinates</h3>{note(notes)}{scrolling(place('parallel', drawn.parallel))}")
    return Section("hyperparameters", "Hyperparameters", "\n".join(body), specs)


def _fresh(data: ReportData) -> Section:
    title, figure = "Search against fresh seeds", confirm_figures.search_against_fresh(data)
    if figure is None:
        return Section("fresh", title, absent("No candidate was trained again on fresh seeds."), {})
    lost = [
        entry["search_return"] - entry["mean_return"]
        for entry in data.confirm
        if is_number(entry.get("search_return")) and is_number(entry.get("mean_return"))
    ]
    notes = ["What is below the dashed line was overestimated by the search: the best of many is partly luck."]
    if lost:
        mean = sum(lost) / len(lost)
        word = "below" if mean >= 0 else "above"
        notes.append(f"Over {len(lost)} candidates, the fresh mean is {abs(mean):.3g} {word} the searched one.")
    return Section("fresh", title, note(notes) + place("search-and-fresh", figure), {"search-and-fresh": figure})


def _confirm(data: ReportData) -> Section:
    title = "Confirmation and verdict"
    if not data.confirm and data.verdict is None:
        return Section("confirm", title, absent("No confirmation was made: all scores are those of the search."), {})
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
                str(entry.get("number", "–")),
                str(total),
                share,
                with_interval(entry.get("mean_return"), entry.get("mean_interval")),
                with_interval(entry.get("iqm_return"), entry.get("iqm_interval")),
                worst_seed(entry),
                show(entry.get("search_return")),
            ]
        )
    head = ["", "trial", "seeds", "solved", "mean return", "interquartile mean", "worst seed", "in the search"]
    notes = [
        "The confirmation chooses the winner among the candidates; the verdict trains it once more on other seeds."
    ]
    notes += ["In brackets: 95 % intervals."]
    if data.verdict is None:
        notes.append("No verdict was made.")
    body, figure = (
        note(notes) + table(head, rows, leading=data.verdict is not None),
        confirm_figures.returns_of_seeds(data),
    )
    if figure is None:
        return Section("confirm", title, body, {})
    if len(data.confirm) > CONFIRMED_DRAWN:
        body += note([f"The first {CONFIRMED_DRAWN} of {len(data.confirm)} candidates are drawn."])
    return Section("confirm", title, body + place("returns-of-seeds", figure), {"returns-of-seeds": figure})


def _pareto(data: ReportData) -> Section:
    title, figure = "Return against size", confirm_figures.pareto(data.pareto or [])
    if figure is None:
        return Section("pareto", title, absent("No trial has a return and a size."), {})
    notes = ["Of the trials on the front none is both better and smaller."]
    return Section("pareto", title, note(notes) + place("pareto", figure), {"pareto": figure})


def _lanes(data: ReportData, clock: Clock) -> Section:
    title, bars = "Lanes", held_lanes(data)
    if not bars:
        return Section("lanes", title, absent("It was not recorded which trial held which lane when."), {})
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
    return Section("lanes", title, note(notes) + place("timeline", figure), {"timeline": figure})


def _failures(data: ReportData) -> Section:
    title = "Failures"
    gone = [trial for trial in data.trials if trial.state == "failed" or diverged_seeds(trial)]
    if not gone:
        return Section("failures", title, absent("No agent diverged and no trial failed."), {})
    rows = []
    for trial in sorted(gone, key=lambda trial: trial.number)[:FAILURES_LISTED]:
        seeds, total = diverged_seeds(trial), len(listed(trial, "returns") or listed(trial, "lanes"))
        what = f"{len(seeds)} of {total} seeds diverged: {', '.join(map(str, seeds))}" if seeds else "no score"
        params = ", ".join(f"{name} = {show(value)}" for name, value in trial.params.items())
        rows.append([str(trial.number), trial.state, what, params])
    notes = [f"{len(gone):,} of {len(data.trials):,} trials failed or have seeds that diverged."]
    notes += [f"The first {FAILURES_LISTED} are listed."] * (len(gone) > FAILURES_LISTED)
    return Section("failures", title, note(notes) + table(["trial", "state", "what", "with"], rows, "words long"), {})


def _reproduce(data: ReportData) -> Section:
    said = (
        f"The study's seed is {data.seed}. In an empty directory, on the same machine and versions, the same commands "
        "in their order make the same study, if none was interrupted or ran for a time budget; a CPU and a GPU, or two "
        "versions of JAX, do not give the same bits."
    )
    return Section("reproduce", "Make it again", note([said]) + command(data, "command-below"), {})
