"""The Q-network: a multilayer perceptron whose width and depth may differ from agent to agent.

Width: an unused unit has zero weights in and out and a zero bias. A ReLU is flat at 0, so its gradients are zero and
it stays exactly zero: no mask is needed after the initialisation. Depth: an unused hidden layer passes its input on
(which is ≥ 0 after a ReLU); 0 layers select a linear head of their own.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxdqn import prng
from jaxdqn.config import Config
from jaxdqn.environment import make
from jaxdqn.hyperparams import Hyperparams

Params: TypeAlias = Any  # a tree of float arrays, as flax names them


class QNetwork(nn.Module):
    """Q(s, ·) for observations of shape (…, obs); the shapes are the largest of the space."""

    num_actions: int
    hidden_width: int
    hidden_layers: int
    linear: bool

    @nn.compact
    def __call__(
        self, obs: Float[Array, "*batch obs"], hidden_layers: Int[Array, ""] | int
    ) -> Float[Array, "*batch a"]:
        """Return the value of every action, using the first `hidden_layers` hidden layers."""
        hidden = obs
        for layer in range(self.hidden_layers):
            activation = nn.relu(nn.Dense(self.hidden_width, name=f"hidden_{layer}", dot_general=_dot_general)(hidden))
            hidden = activation if layer == 0 else jnp.where(layer < hidden_layers, activation, hidden)
        if self.hidden_layers == 0:
            return nn.Dense(self.num_actions, name="linear", dot_general=_dot_general)(obs)
        q_values = nn.Dense(self.num_actions, name="head", dot_general=_dot_general)(hidden)
        if not self.linear:
            return q_values
        return jnp.where(
            hidden_layers == 0, nn.Dense(self.num_actions, name="linear", dot_general=_dot_general)(obs), q_values
        )


_FEW = 8  # with so few inputs or outputs a product is summed up inside the kernel that uses it
_SHORT = 32  # rows below which XLA fuses such a sum into that kernel only if it is written out


@jax.custom_vjp
def _product(inputs: Float[Array, "*batch n"], kernel: Float[Array, "n m"]) -> Float[Array, "*batch m"]:
    """Return inputs · kernel. Its gradient for the kernel is inputsᵀ · cotangents, in the kernel's own layout.

    JAX's own rule makes the transpose of that, which XLA then copies where a block has a single lane.
    """
    if inputs.ndim == 1 or kernel.shape[0] <= _FEW:
        return jnp.sum(inputs[..., :, None] * _over_rows(kernel, inputs), axis=-2)
    return inputs @ kernel


def _over_rows(kernel: Float[Array, "*n"], rows: Float[Array, "*batch _"]) -> Float[Array, "*_"]:
    """Give a kernel, or a part of one, axes of length 1 for those of a batch."""
    return kernel.reshape((1,) * (rows.ndim - 1) + kernel.shape)


def _product_forward(inputs: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _product(inputs, kernel), (inputs, kernel)


def _product_backward(saved: tuple[Array, Array], cotangents: Array) -> tuple[Array, Array]:
    inputs, kernel = saved
    rows, cotangent_rows = inputs.reshape(-1, kernel.shape[0]), cotangents.reshape(-1, kernel.shape[1])
    if kernel.shape[1] <= _FEW and rows.shape[0] < _SHORT:
        columns = [_over_rows(kernel[:, i], cotangents) for i in range(kernel.shape[1])]
        terms = [cotangents[..., i, None] * column for i, column in enumerate(columns)]
        of_inputs = sum(terms[1:], terms[0])
    elif kernel.shape[1] <= _FEW:
        of_inputs = jnp.sum(cotangents[..., None, :] * _over_rows(kernel, cotangents), axis=-1)
    else:
        of_inputs = cotangents @ kernel.T
    return of_inputs, jax.lax.dot_general(rows, cotangent_rows, (((0,), (0,)), ((), ())))


_product.defvjp(_product_forward, _product_backward)


def _dot_general(inputs: Array, kernel: Array, *_: Any, **__: Any) -> Array:
    """Flax's way to say which product a layer uses: always that of its last axis with the kernel's first."""
    return _product(inputs, kernel)


def network(config: Config) -> QNetwork:
    """Return the network of a space."""
    return QNetwork(make(config.env).num_actions, config.hidden_width, config.hidden_layers, config.linear)


def init(key: prng.Key, hyperparams: Hyperparams, config: Config) -> Params:
    """Draw weights and biases from U(−1/√n, 1/√n), n the *active* inputs of a layer, as the article's library does."""
    obs_size = make(config.env).obs_size
    shapes = jax.eval_shape(lambda: network(config).init(jax.random.key(0), jnp.zeros(obs_size), 0))["params"]
    width = hyperparams.hidden_width
    params = {}
    for layer, name in enumerate(sorted(shapes)):
        num_in, num_out = shapes[name]["kernel"].shape
        from_obs, to_actions = name in ("hidden_0", "linear"), name in ("head", "linear")
        used_in = jnp.full(num_in, True) if from_obs else jnp.arange(num_in) < width
        used_out = jnp.full(num_out, True) if to_actions else jnp.arange(num_out) < width
        bound = 1.0 / jnp.sqrt(jnp.asarray(obs_size if from_obs else width, jnp.float32))
        key_layer = prng.fold(key, layer)
        params[name] = {
            "kernel": _uniform(prng.fold(key_layer, 0), bound, used_in[:, None] & used_out[None, :]),
            "bias": _uniform(prng.fold(key_layer, 1), bound, used_out),
        }
    return params


def q_values(
    params: Params, obs: Float[Array, "*batch obs"], hyperparams: Hyperparams, config: Config
) -> Float[Array, "*batch actions"]:
    """Return Q(s, ·) of every observation."""
    values: Array = network(config).apply({"params": params}, obs, hyperparams.hidden_layers)  # type: ignore[assignment]
    return values


def _uniform(key: prng.Key, bound: Float[Array, ""], used: Bool[Array, ...]) -> Float[Array, ...]:
    word, _ = prng.words(key, jnp.arange(used.size).reshape(used.shape), 0)
    return jnp.where(used, bound * (2.0 * prng.uniform(word) - 1.0), 0.0)
