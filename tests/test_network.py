"""Masks of width and depth, against networks of the exact shape."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdqn import network, prng
from jaxdqn.config import Config
from jaxdqn.hyperparams import defaults
from jaxdqn.network import Params

LARGE = Config(hidden_width=32, hidden_layers=3, linear=True)


def cut(params: Params, width: int, depth: int) -> Params:
    """The parameters of the exact shape that a masked network stands for."""
    if depth == 0:
        return {"linear": params["linear"]}
    layers = {f"hidden_{i}": params[f"hidden_{i}"] for i in range(depth)}
    cut_layers = {
        name: {"kernel": p["kernel"][: 4 if name == "hidden_0" else width, :width], "bias": p["bias"][:width]}
        for name, p in layers.items()
    }
    return cut_layers | {"head": {"kernel": params["head"]["kernel"][:width], "bias": params["head"]["bias"]}}


@pytest.mark.parametrize("width", [1, 8, 32])
@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_a_masked_network_has_the_values_of_its_exact_shape(width: int, depth: int) -> None:
    hyperparams = defaults()._replace(hidden_width=width, hidden_layers=depth)
    traced = jax.tree.map(jnp.asarray, hyperparams)
    params = network.init(prng.root(depth), traced, LARGE)
    exact = Config(hidden_width=width, hidden_layers=depth, linear=depth == 0)
    obs = jax.random.normal(jax.random.key(9), (5, 4))
    ours = network.q_values(params, obs, traced, LARGE)
    assert np.allclose(ours, network.q_values(cut(params, width, depth), obs, hyperparams, exact), atol=1e-6)


def textbook(params: Params, obs: jax.Array, depth: int) -> jax.Array:
    """The network as it is written in a textbook, whose gradients are JAX's own."""
    hidden = obs
    for layer in range(depth):
        hidden = jax.nn.relu(hidden @ params[f"hidden_{layer}"]["kernel"] + params[f"hidden_{layer}"]["bias"][None])
    head = params["head" if depth else "linear"]
    return hidden @ head["kernel"] + head["bias"][None]


@pytest.mark.parametrize(("width", "rows"), [(32, 5), (256, 5), (256, 72)])  # gradients are multiplied in two ways
@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_gradients_are_those_of_the_textbook(depth: int, width: int, rows: int) -> None:
    exact = Config(hidden_width=width, hidden_layers=depth, linear=depth == 0)
    hyperparams = defaults()._replace(hidden_width=width, hidden_layers=depth)
    params = network.init(prng.root(depth), hyperparams, exact)
    obs = jax.random.normal(jax.random.key(9), (rows, 4))
    ours = jax.grad(lambda p, x: jnp.sum(jnp.sin(network.q_values(p, x, hyperparams, exact))), (0, 1))(params, obs)
    theirs = jax.grad(lambda p, x: jnp.sum(jnp.sin(textbook(p, x, depth))), (0, 1))(params, obs)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), ours, theirs)


def test_unused_units_are_zero_and_get_no_gradient() -> None:
    traced = jax.tree.map(jnp.asarray, defaults()._replace(hidden_width=8, hidden_layers=3))
    params = network.init(prng.root(0), traced, LARGE)
    obs = jax.random.normal(jax.random.key(9), (5, 4))
    grads = jax.grad(lambda p: jnp.sum(network.q_values(p, obs, traced, LARGE) ** 2))(params)
    for tree in (params, grads):
        assert not tree["hidden_1"]["kernel"][8:].any()
        assert not tree["hidden_1"]["kernel"][:, 8:].any()
        assert not tree["hidden_2"]["bias"][8:].any()
        assert not tree["head"]["kernel"][8:].any()
        assert tree["hidden_1"]["kernel"][:8, :8].any()


def test_initial_weights_are_scaled_by_the_active_inputs() -> None:
    narrow = network.init(prng.root(0), defaults()._replace(hidden_width=4, hidden_layers=2), LARGE)
    wide = network.init(prng.root(0), defaults()._replace(hidden_width=32, hidden_layers=2), LARGE)
    for params, bound in ((narrow, 0.5), (wide, 32**-0.5)):
        size = float(jnp.abs(params["hidden_1"]["kernel"]).max())
        assert 0.8 * bound < size <= bound
