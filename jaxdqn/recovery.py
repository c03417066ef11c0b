"""From the log back to lanes that were full when a process ended.

The log says who was put where and how long each segment was. What an agent becomes is a function of its name, its
hyperparameters and the steps it has made, so those in flight are trained again, from their keys or from a snapshot, for
as many ticks as before. That costs one agent's life at most, and the search goes on as if nothing had happened.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from jaxdqn.host_agent import Agent
from jaxdqn.lanes import Lanes

# Attributes of the log's trials …
STARTED = "jaxdqn_start_seed_"  # [row, lane]
ENDED = "jaxdqn_end_seed_"  # the result of an agent whose trial goes on
# … and of its study.
EMPTY = "jaxdqn_lanes"  # all lanes are empty: where this is
SENT = "jaxdqn_sent"  # the row and ticks of a segment, after whom was placed for it

_SHORT = 40  # letters of a value that is shown

Name = tuple[int, int]  # trial and seed index of an agent


class Segment(NamedTuple):
    """What a row was given at a visit."""

    row: int
    num_ticks: list[int] | None  # a device; None: it was read, and not sent off again
    placed: dict[int, Name]  # by lane of the row


class Past(NamedTuple):
    """What the log says of a search since its lanes were empty."""

    where: dict[str, Any]  # what the bits of a result depend on: machine, program, layout; empty: nothing is known
    segments: list[Segment]
    ended: dict[Name, dict[str, Any]]  # agents that have ended, of trials that may not have
    passed_over: list[int]  # how often each of the waiting agents was
    clock: int  # the last visit; the stages after a search may count theirs anew
    since: int  # the visit at which all lanes were empty


class Noted(NamedTuple):
    """What the host had noted of an agent in flight, as JSON values."""

    history: list[list[float]]
    validation: list[float | None]


class Saved(NamedTuple):
    """The state of a row after so many of its segments, and what was noted of its agents."""

    num_segments: int
    state: list[Any]
    noted: dict[Name, Noted]


def read(records: Iterable[Mapping[str, Any]]) -> Past:
    """Return what a log's records say. It holds one study, so that a trial's id is its number."""
    past = Past({}, [], {}, [], 0, 0)
    placed: dict[int, Name] = {}
    for record in records:
        past = past._replace(clock=max(past.clock, record["clock"]))
        for key, value in record.get("system_attr", {}).items():
            if key == EMPTY:
                past, placed = Past(value, [], past.ended, [], past.clock, past.clock), {}
            elif key == SENT:
                past.segments.append(Segment(value["row"], value["ticks"], placed))
                past, placed = past._replace(passed_over=value.get("passed_over", [])), {}
            elif key.startswith(STARTED):
                placed[value[1]] = record["trial_id"], int(key.removeprefix(STARTED))
            elif key.startswith(ENDED):
                past.ended[record["trial_id"], int(key.removeprefix(ENDED))] = value
    return past


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, ...]:
    """Name what results depend on and is not as it was: `name` or, where that is short, `name: before → now`."""
    pairs = {key: (before.get(key), now.get(key)) for key in (*before, *now)}
    return tuple(
        key if max(len(str(value)) for value in pair) > _SHORT else f"{key}: {pair[0]} → {pair[1]}"
        for key, pair in pairs.items()
        if pair[0] != pair[1]
    )


def replay(
    lanes: Lanes, past: Past, agents: Mapping[Name, Agent], saved: Mapping[int, Saved]
) -> Iterator[tuple[int, int]]:
    """Put lanes to where the log's last visit left them; yield how many of how many segments are done.

    Args:
        lanes: all empty.
        past: of the log.
        agents: of the trials that are not finished; none of those in flight has ended.
        saved: states of rows, from a snapshot.
    """
    births, counts = _births(past.segments, agents, len(lanes.rows))
    starts = []
    for row, born in enumerate(births):
        start = min((index for _, index in born.values()), default=counts[row] - 1)
        there = saved.get(row)
        if there is not None and _spares(there, born, start, counts[row]):
            start = there.num_segments
            known = {lane: agent for lane, (agent, index) in born.items() if index < start}
            for agent in known.values():
                agent.recall(*there.noted[agent.trial, agent.seed_index])
            lanes.put_back(row, known, there.state)
        starts.append(max(start, 0))
        lanes.sent[row] = starts[row]
    total = sum(count - start for count, start in zip(counts, starts, strict=True))
    sent, done = [0] * len(births), 0
    for segment in past.segments:
        row, due = segment.row, sent[segment.row] >= starts[segment.row]
        if due and (progress := lanes.read(row)):
            lanes.take_in(row, progress, again=True)
        if segment.num_ticks is None:
            continue
        if due:
            placed = {lane: agent for lane, (agent, index) in births[row].items() if index == sent[row]}
            lanes.send_again(row, placed, segment.num_ticks)
            done += 1
            yield done, total
        sent[row] += 1


def _spares(there: Saved, born: Mapping[int, tuple[Agent, int]], start: int, count: int) -> bool:
    """Return whether a saved state spares segments of a row and knows all that were there and are in flight."""
    names = [(agent.trial, agent.seed_index) for agent, index in born.values() if index < there.num_segments]
    return start < there.num_segments <= count and all(name in there.noted for name in names)


def _births(
    segments: Iterable[Segment], agents: Mapping[Name, Agent], num_rows: int
) -> tuple[list[dict[int, tuple[Agent, int]]], list[int]]:
    """Return, for each row, its lanes' agents with the segment for which each was placed; and how many there were."""
    lanes: list[dict[int, tuple[Name, int]]] = [{} for _ in range(num_rows)]
    counts = [0] * num_rows
    for row, num_ticks, placed in segments:
        lanes[row] |= {lane: (name, counts[row]) for lane, name in placed.items()}
        counts[row] += num_ticks is not None
    in_flight = [
        {
            lane: (agents[name], index)
            for lane, (name, index) in row.items()
            if name in agents and not agents[name].ended
        }
        for row in lanes
    ]
    return in_flight, counts
