"""What is measured of the host, at tiny sizes: the figures are made of what really happened."""

import numpy as np
import pytest

from jaxdqn.block import Placement
from jaxdqn.config import Config, Layout
from jaxdqn.host_load import SimulatedDevice, simulated_gpu
from jaxdqn.hyperparams import Hyperparams, defaults, stack
from jaxdqn.judging import Names

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's own, at import


@pytest.mark.slow
def test_a_sweep_on_a_simulated_device_tells_and_records_every_trial() -> None:
    result = simulated_gpu(trials=60, lanes=16, trials_per_s=20.0)
    assert result["trials"] == 60
    assert result["failures"] == []
    assert 0 < result["lanes_busy"] <= 1
    assert result["trials_per_s"] > 0


def test_a_simulated_lane_is_busy_for_as_long_as_its_agent_lives() -> None:
    device = SimulatedDevice(Config(env_steps=1_000, rungs=(500,)), Layout(1, 1, 1), seed=0, trials_per_s=1.0)
    hyperparams = Hyperparams(*(x.reshape(1, 1) for x in stack([defaults()])))
    fresh = Placement(np.array([[True]]), Names(*(np.full((1, 1), x) for x in (0, 3, 0))), hyperparams)
    device.compile()
    segments, progress = 0, None
    while progress is None or progress.alive[0, 0]:
        device.dispatch(0, fresh if segments == 0 else fresh._replace(fresh=np.zeros((1, 1), bool)), np.array([1]))
        progress, segments = device.read(0), segments + 1
    assert progress.step[0, 0] == 1_000
    assert progress.returns[0, 0, 0] == progress.validation[0, 0, 0]
    assert 0.3 * (segments - 1) < device.busy_lane_s <= 0.3 * segments
    assert device.busy <= 1
    device.dispatch(0, fresh._replace(fresh=np.zeros((1, 1), bool)), np.array([1]))
    assert device.tail
