"""The report's first section: the verdict in one sentence, the winner's hyperparameters, what the search took."""

from __future__ import annotations

import base64
import html
from pathlib import Path

from jaxdqn.optuna_figures import domain_texts
from jaxdqn.report_data import Clock, ReportData, is_number, num_seeds, num_solved, period, ranked, winner
from jaxdqn.report_markup import Section, command, duration, listed, show, table, with_interval, worst_seed


def result(data: ReportData, clock: Clock) -> Section:
    """Return the section."""
    body = [_headline(data), _cards(data, clock)]
    won = winner(data)
    left, right = [], [_animation(data.animation), "<h3>The command</h3>", command(data, "command-above")]
    if won is not None:
        number, params = won
        searched = domain_texts(data.space)
        names = [*[n for n in searched if n in params], *[n for n in params if n not in searched]]
        rows = [[name, show(params[name]), searched.get(name, "fixed")] for name in names]
        left.append(f"<h3>Hyperparameters of trial {number}</h3>")
        left.append(table(["hyperparameter", "value", "searched in"], rows, "words"))
    body.append(f'<div class="columns"><div>{"".join(left)}</div><div>{"".join(right)}</div></div>')
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
        wilson = (
            f" (95 % Wilson interval {100 * low:.0f}–{100 * high:.0f} %)" if is_number(low) and is_number(high) else ""
        )
        facts.insert(0, f"{solved} of {total} reach a mean return of {data.solved_return:g}{wilson}")
    facts.append(f"worst seed {worst_seed(entry)}")
    facts.append(f"{show(entry.get('search_return'))} in the search")
    if data.verdict is None:
        tail = "The winner was chosen by these seeds and no verdict on others was made: this is optimistic, too."
        return _boxed(f"Not confirmed by a verdict: {head}", f"Trial {entry.get('number')}: {'; '.join(facts)}. {tail}")
    tail = "None of these seeds and episodes was seen before the winner was chosen."
    text = f"Trial {entry.get('number')}: {'; '.join(facts)}. {tail}"
    return _boxed(head[0].upper() + head[1:], text, "confirmed")


def _boxed(head: str, text: str, kind: str = "") -> str:
    return f'<div class="headline {kind}"><strong>{html.escape(head)}</strong><p>{html.escape(text)}</p></div>'


def _cards(data: ReportData, clock: Clock) -> str:
    counts = {state: sum(trial.state == state for trial in data.trials) for state in ("complete", "pruned", "failed")}
    others = len(data.trials) - sum(counts.values())
    states = ", ".join(f"{count:,} {state}" for state, count in {**counts, "running": others}.items() if count)
    scored, span = ranked(data.trials), period(data.trials)
    steps, updates = (_total(data, name) for name in ("env_steps", "updates"))
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


def _total(data: ReportData, name: str) -> float:
    """Return what all agents did together, those on fresh seeds included, as the time includes them."""
    fresh = [entry.get(name) or [] for entry in [*data.confirm, *([data.verdict] if data.verdict else [])]]
    return sum(sum(filter(is_number, values)) for values in [*(listed(t, name) for t in data.trials), *fresh])


def _animation(path: Path | None) -> str:
    if path is None or not path.is_file():
        return ""
    picture = base64.b64encode(path.read_bytes()).decode()
    source = f"data:image/gif;base64,{picture}"
    return f'<h3>The winner acts</h3><img class="animation" alt="Episodes of the winner" src="{source}">'


def _large(value: float) -> str:
    for unit, size in (("billion", 1e9), ("million", 1e6)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:,.0f}"
