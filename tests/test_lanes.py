"""Who is in which lane, with a population that is none."""

from collections.abc import Iterable

import pytest

from jaxdqn.config import Config, Layout
from jaxdqn.evaluate import Phase
from jaxdqn.host_agent import Agent
from jaxdqn.hyperparams import defaults
from jaxdqn.lanes import Lanes
from tests.stand_in import StandIn

CONFIG = Config(env_steps=60_000, tick=4)
LAYOUT = Layout(rows=2, devices=2, block=1)


def agents(count: int, first: int = 0, keeps_params: bool = False) -> list[Agent]:
    return [Agent(first + i, 0, defaults(), keeps_params=keeps_params) for i in range(count)]


def filled(waiting: Iterable[Agent], trainer: StandIn | None = None) -> tuple[Lanes, StandIn]:
    """Lanes of two rows, each with a segment under way."""
    trainer = trainer or StandIn(CONFIG, LAYOUT)
    lanes = Lanes(trainer)
    lanes.queue += waiting
    for row in range(LAYOUT.rows):
        lanes.dispatch(row)
    return lanes, trainer


def visit(lanes: Lanes, row: int) -> list[Agent]:
    progress = lanes.read(row)
    assert progress is not None
    return lanes.take_in(row, progress)


def in_row(lanes: Lanes, row: int) -> list[int | None]:
    return [agent.trial if agent else None for block in lanes.rows[row] for agent in block]


def test_agents_are_placed_in_the_order_in_which_they_came_and_the_others_wait() -> None:
    lanes, trainer = filled(agents(6))
    assert [trial for trial, _ in trainer.placed] == [0, 1, 2, 3]
    assert [agent.trial for agent in lanes.queue] == [4, 5]
    assert (lanes.num_busy, lanes.num_free(0), lanes.lanes_a_row) == (4, 0, 2)
    assert sorted(agent.lane for row in lanes.rows for (agent,) in row if agent) == [0, 1, 2, 3]


def test_a_dropped_agent_leaves_the_queue_and_counts_no_more() -> None:
    six = agents(6)
    lanes, _ = filled(six)
    lanes.drop([six[0], six[5]])
    assert [agent.trial for agent in lanes.queue] == [4]
    assert (lanes.num_busy, lanes.num_free(0), lanes.num_free(1)) == (3, 1, 0)
    assert [agent.trial for agent in visit(lanes, 0)] == [1]


def test_a_dropped_agent_is_replaced_when_its_own_row_is_dispatched_next() -> None:
    six = agents(6)
    lanes, trainer = filled(six)
    visit(lanes, 0)
    lanes.drop([six[2]])
    lanes.dispatch(0)
    assert trainer.replaced == 0  # that lane is in row 1, whose segment is under way
    assert in_row(lanes, 1) == [2, 3]
    assert [agent.trial for agent in visit(lanes, 1)] == [3]
    assert [agent.trial for agent in lanes.dispatch(1)] == [4]
    assert in_row(lanes, 1) == [4, 3]
    assert (trainer.replaced, trainer.emptied) == (1, 0)
    assert six[4].step == 0


def test_the_lane_of_a_dropped_agent_is_emptied_where_nobody_waits() -> None:
    four = agents(4)
    lanes, trainer = filled(four)
    visit(lanes, 0)
    lanes.drop([four[0]])
    assert lanes.dispatch(0) == []
    assert in_row(lanes, 0) == [None, 1]
    assert (trainer.replaced, trainer.emptied) == (0, 1)
    assert not trainer.alive[0, 0, 0]
    visit(lanes, 0)
    lanes.dispatch(0)
    assert trainer.emptied == 1  # once


def test_what_a_dropped_agent_did_afterwards_is_not_noted() -> None:
    four = agents(4)
    lanes, _ = filled(four)
    lanes.drop(four[:1])
    visit(lanes, 0)
    assert four[0].step == 0
    assert lanes.env_steps == 2 * four[1].step > 0  # its steps were made all the same


def test_an_agent_that_has_ended_cannot_be_dropped() -> None:
    (agent,) = agents(1)
    lanes, _ = filled([agent])
    while not agent.ended:
        visit(lanes, 0)
        lanes.dispatch(0)
    lanes.drop([agent])
    assert not agent.dropped
    assert agent.span[3] == "ended"


def test_clearing_drops_everybody_and_the_next_agents_take_their_lanes() -> None:
    six = agents(6)
    lanes, trainer = filled(six)
    lanes.clear()
    assert lanes.queue == []
    assert lanes.num_busy == 0
    assert all(agent.dropped for agent in six)
    later = agents(3, first=10)
    lanes.queue += later
    for row in range(LAYOUT.rows):
        assert visit(lanes, row) == []
        lanes.dispatch(row)
    assert [trial for trial, _ in trainer.placed[4:]] == [10, 11, 12]
    assert (trainer.replaced, trainer.emptied) == (3, 1)


def test_a_row_without_a_segment_under_way_has_nothing_to_read() -> None:
    lanes = Lanes(StandIn(CONFIG, LAYOUT))
    assert lanes.read(0) is None
    lanes.dispatch(0)
    assert lanes.read(0) is not None
    assert lanes.read(0) is None


def test_an_agent_knows_its_lane_its_time_there_and_how_it_ended() -> None:
    four = agents(4)
    lanes, _ = filled(four, StandIn(CONFIG, LAYOUT, diverging=frozenset({1})))
    while not four[3].ended:
        for row in range(LAYOUT.rows):
            visit(lanes, row)
            if four[2].step:
                lanes.drop([four[2]])
            lanes.dispatch(row)
    assert [agent.span[0] for agent in four] == [0, 1, 2, 3]
    assert [agent.span[3] for agent in four] == ["ended", "diverged", "pruned", "ended"]
    assert all(0 < began <= over for _, began, over, _ in (agent.span for agent in four))
    assert [agent.ended for agent in four] == [True, True, False, True]


@pytest.mark.parametrize("keeping", [frozenset({0, 3}), frozenset()])
def test_parameters_are_fetched_only_for_agents_that_keep_them(keeping: frozenset[int]) -> None:
    four = [Agent(i, 7, defaults(), Phase.CONFIRM, keeps_params=i in keeping) for i in range(4)]
    lanes, trainer = filled(four)
    while lanes.num_busy:
        for row in range(LAYOUT.rows):
            visit(lanes, row)
            lanes.dispatch(row)
    assert [agent.ended for agent in four] == [True] * 4
    assert {agent.trial for agent in four if agent.params is not None} == keeping
    assert trainer.fetched == len(keeping)
    for agent in four:
        if agent.params is not None:
            assert agent.params["linear"]["bias"].tolist() == [agent.trial, Phase.CONFIRM]


def test_the_parameters_of_a_diverged_agent_are_not_kept() -> None:
    four = agents(4, keeps_params=True)
    lanes, trainer = filled(four, StandIn(CONFIG, LAYOUT, diverging=frozenset({0, 1, 2, 3})))
    for row in range(LAYOUT.rows):
        visit(lanes, row)
    assert [agent.diverged for agent in four] == [True] * 4
    assert {agent.params for agent in four} == {None}
    assert trainer.fetched == 0
