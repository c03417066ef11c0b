"""The Q-network: a multilayer perceptron whose width and depth may differ from agent to agent.

Width: an unused unit has zero weights in and out and a zero bias. A ReLU is flat at 0, so its gradients are zero and
it stays exactly zero: no mask is needed after the initialisation. Depth: an unused hidden layer passes its input on
(which is ≥ 0 after a ReLU); 0 layers select a linear head of their own.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxdqn import prng
from jaxdqn.config import Config
from jaxdqn.environment import make
from jaxdqn.hyperparams import Hyperparams

Params: TypeAlias = Any  # a tree of float arrays, as flax names them

_FEW = 8  # with so few inputs or outputs a GPU sums a product up inside the kernel that uses it …
_SHORT = 32  # … below so many rows only if the sum is written out
_NARROW = 16  # columns that do not fill a CPU's vector register
_WIDE = 256  # columns of a kernel so large that a CPU takes long to turn it around


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
        hidden, made_by = obs, None
        for layer in range(self.hidden_layers):
            product = partial(_dot_general, made_by=made_by if layer == 1 else None)
            dense = nn.Dense(self.hidden_width, name=f"hidden_{layer}", dot_general=product)
            activation = nn.relu(dense(hidden))
            if layer == 0:
                weights = dense.variables["params"]
                made_by = _First(obs, weights["kernel"], weights["bias"])
            hidden = activation if layer == 0 else jnp.where(layer < hidden_layers, activation, hidden)
        if self.hidden_layers == 0:
            return nn.Dense(self.num_actions, name="linear", dot_general=_dot_general)(obs)
        q_values = nn.Dense(self.num_actions, name="head", dot_general=_dot_general)(hidden)
        if not self.linear:
            return q_values
        return jnp.where(
            hidden_layers == 0, nn.Dense(self.num_actions, name="linear", dot_general=_dot_general)(obs), q_values
        )


class _First(NamedTuple):
    """What the first hidden layer makes its activations of."""

    obs: Float[Array, "*batch obs"]
    kernel: Float[Array, "obs units"]
    bias: Float[Array, " units"]


@jax.custom_vjp
def _product(
    inputs: Float[Array, "*batch n"], kernel: Float[Array, "n m"], made_by: _First | None
) -> Float[Array, "*batch m"]:
    """Return inputs · kernel; it and its gradients are written as what the platform makes fastest.

    `made_by` is what the inputs are made by, if that is the first hidden layer.
    """
    del made_by  # the gradients' alone
    if inputs.ndim == 1 or kernel.shape[0] <= _FEW:
        return jax.lax.platform_dependent(inputs, kernel, cpu=jnp.matmul, default=_summed)
    return inputs @ kernel


def _product_forward(inputs: Array, kernel: Array, made_by: _First | None) -> tuple[Array, tuple[Any, ...]]:
    return _product(inputs, kernel, made_by), (inputs, kernel, made_by)


def _product_backward(saved: tuple[Any, ...], cotangents: Array) -> tuple[Array, Array, None]:
    inputs, kernel, made_by = saved
    rows, cotangent_rows = inputs.reshape(-1, kernel.shape[0]), cotangents.reshape(-1, kernel.shape[1])
    if made_by is not None:
        made_by = made_by._replace(obs=made_by.obs.reshape(-1, made_by.obs.shape[-1]))
    of_rows, of_kernel = jax.lax.platform_dependent(
        rows, kernel, cotangent_rows, made_by, cpu=_gradients_on_cpu, default=_gradients
    )
    return of_rows.reshape(inputs.shape), of_kernel, None


_product.defvjp(_product_forward, _product_backward)


def _summed(inputs: Float[Array, "*batch n"], kernel: Float[Array, "n m"]) -> Float[Array, "*batch m"]:
    """Return inputs · kernel as a sum, which a GPU makes inside the kernel that uses it."""
    return jnp.sum(inputs[..., :, None] * kernel.reshape((1,) * (inputs.ndim - 1) + kernel.shape), axis=-2)


def _gradients(
    rows: Float[Array, "rows n"], kernel: Float[Array, "n m"], cotangents: Float[Array, "rows m"], _: _First | None
) -> tuple[Float[Array, "rows n"], Float[Array, "n m"]]:
    """Return the gradients of rows · kernel: cotangents · kernelᵀ, and rowsᵀ · cotangents in the kernel's own layout.

    JAX's own rule makes the transpose of the latter, which XLA then copies where a block has a single lane.
    """
    of_kernel = jax.lax.dot_general(rows, cotangents, (((0,), (0,)), ((), ())))
    if kernel.shape[1] > _FEW:
        return cotangents @ kernel.T, of_kernel
    if rows.shape[0] >= _SHORT:
        return jnp.sum(cotangents[:, None, :] * kernel[None], axis=-1), of_kernel
    terms = [cotangents[:, i, None] * kernel[None, :, i] for i in range(kernel.shape[1])]
    return sum(terms[1:], terms[0]), of_kernel


def _gradients_on_cpu(
    rows: Float[Array, "rows n"],
    kernel: Float[Array, "n m"],
    cotangents: Float[Array, "rows m"],
    made_by: _First | None,
) -> tuple[Float[Array, "rows n"], Float[Array, "n m"]]:
    """Return the same by products of untransposed matrices alone; what has to be transposed is, beforehand.

    XLA's fast products for CPUs take no transposed left side; of the others [64, 64]ᵀ · [64, 64] takes twice, and the
    two-column gradient of a head seven times as long. The first layer's activations are made anew, turned around, from
    the few numbers of the observations: XLA would copy them element by element (an update takes 0.97 of the time).
    For the gradient of few rows and a large kernel, two turns of the rows are less than one of the kernel (0.93 at 32
    rows, [256, 256]); else they are more (0.92 at [64, 64] × 32, 0.97 at [256, 256] × 128).
    """
    if kernel.shape[1] < _NARROW:
        of_kernel = jax.lax.optimization_barrier(_transposed(cotangents) @ rows).T
    elif made_by is not None:
        turned = nn.relu(_transposed(made_by.kernel) @ _transposed(made_by.obs) + made_by.bias[:, None])
        of_kernel = turned @ cotangents
    else:
        of_kernel = _transposed(rows) @ cotangents
    if kernel.shape[1] >= _WIDE and 4 * rows.shape[0] <= kernel.shape[1]:
        return _transposed(kernel @ _transposed(cotangents)), of_kernel
    return cotangents @ kernel.T, of_kernel


def _transposed(matrix: Float[Array, "n m"]) -> Float[Array, "m n"]:
    """Return the transpose, made by a kernel of its own: without the barrier XLA folds it into the product."""
    return jax.lax.optimization_barrier(matrix.T)


def _dot_general(inputs: Array, kernel: Array, *_: Any, made_by: _First | None = None, **__: Any) -> Array:
    """Flax's way to say which product a layer uses: always that of its last axis with the kernel's first."""
    return _product(inputs, kernel, made_by)


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
