"""Agents go where like agents run."""

from jaxdqn.config import Config
from jaxdqn.host_agent import Agent
from jaxdqn.hyperparams import defaults
from jaxdqn.placement import PATIENCE, Rhythm, assign, pass_cost

CONFIG = Config(batch_sizes=(16, 64))


def agent(trial: int, train_period: int = 8, gradient_steps: int = 1, batch_size: int = 16) -> Agent:
    values = defaults()._replace(train_period=train_period, gradient_steps=gradient_steps, batch_size=batch_size)
    return Agent(trial, 0, values)


def cost(*rhythms: tuple[int, int, int]) -> float:
    return pass_cost(frozenset(Rhythm(*rhythm) for rhythm in rhythms), CONFIG.batch_sizes)


def test_agents_that_are_due_together_share_their_passes() -> None:
    assert cost((0, 8, 4)) == 16 * 4 / 8
    assert cost((0, 8, 4), (0, 8, 1)) == cost((0, 8, 4))
    assert cost((0, 8, 4), (0, 16, 4)) == cost((0, 8, 4))
    assert cost((0, 8, 1), (0, 16, 4)) == 16 * (1 + 4) / 16


def test_agents_of_two_batch_shapes_share_nothing() -> None:
    assert cost((0, 8, 4), (1, 8, 4)) == cost((0, 8, 4)) + cost((1, 8, 4))


def test_periods_that_rarely_meet_are_counted_apart() -> None:
    assert cost((0, 997, 1), (0, 991, 1)) == 16 * (1 / 997 + 1 / 991)


def test_like_agents_share_a_block() -> None:
    often, rarely = ({"gradient_steps": 16}, {"train_period": 256})
    waiting = [agent(0, **often), agent(1, **rarely), agent(2, **rarely), agent(3, **often)]
    placed = assign([[None, None], [None, None]], waiting, CONFIG)
    blocks = {device: {a.trial for d, _, a in placed if d == device} for device in (0, 1)}
    assert sorted(map(sorted, blocks.values())) == [[0, 3], [1, 2]]
    assert len({(device, lane) for device, lane, _ in placed}) == 4


def test_a_free_lane_gets_the_agent_that_suits_its_neighbour_best() -> None:
    lanes = [[agent(0, batch_size=64), None], [agent(1), agent(2)]]
    placed = assign(lanes, [agent(3), agent(4, batch_size=64), agent(5)], CONFIG)
    assert [(device, lane, a.trial) for device, lane, a in placed] == [(0, 1, 4)]


def test_equal_agents_are_placed_in_their_order_and_spread_over_the_devices() -> None:
    placed = assign([[None, None, None], [None, None, None]], [agent(i) for i in range(4)], CONFIG)
    assert [a.trial for _, _, a in placed] == [0, 1, 2, 3]
    assert sorted(device for device, _, _ in placed) == [0, 0, 1, 1]


def test_an_agent_that_was_passed_over_often_goes_next() -> None:
    odd, lanes = agent(0, batch_size=64), [[agent(1), None]]
    for _ in range(PATIENCE):
        assert assign(lanes, [odd, agent(2)], CONFIG)[0][2].trial == 2
    assert assign(lanes, [odd, agent(2)], CONFIG)[0][2] is odd


def test_a_living_agent_keeps_its_lane() -> None:
    lanes = [[agent(0), None], [None, agent(1)]]
    placed = assign(lanes, [agent(i) for i in range(2, 9)], CONFIG)
    assert {(device, lane) for device, lane, _ in placed} == {(0, 1), (1, 0)}
