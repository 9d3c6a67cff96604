"""A measurement as it looks from where the image probably is: of a linear operator and Gaussian noise."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxdiff.noise import Gaussian
from jaxdiff.observation import Observation, is_linear
from jaxdiff.operators import Linear, Operator
from jaxdiff.util.arrays import Array
from jaxdiff.util.pytree import pytree


@pytree
class MeanDerivative(Linear):
    """v → (1/K)·Σ J(z_k)v of one image v, J(z) an operator's derivative at z.

    Args:
        operator: any differentiable one.
        points: z_1 to z_K, [K, H, W, C].
        derivative: v_1 to v_K → J(z_k)v_k, of `jax.linearize`.
    """

    operator: Operator
    points: Array
    derivative: Callable

    def input_shape(self, shape):
        return self.points.shape[1:]

    def project(self, y):
        return self.operator.project(y)

    def __call__(self, v) -> jax.Array:
        return self.derivative(jnp.broadcast_to(v, self.points.shape)).mean(0)


def linearised(seen: Observation, x, errors: Callable[[], jax.Array]) -> Observation:
    """The observation of e that is near that of z = x + e: y − mean = Je + noise.

    Of a linear operator and Gaussian noise it is the same. Of another operator, e_1 to e_K drawn from
    what e probably is, mean = (1/K)·Σ A(x + e_k), J = (1/K)·Σ J(x + e_k), and the variance of the noise
    is its own at that mean plus (1/K)·Σ (A(x + e_k) − mean − Je_k)²: how far A is from linear there.

    Args:
        seen: the observation, its noise with a `variance`.
        x: [H, W, C].
        errors: gives e_1 to e_K [K, H, W, C], with each its negative.

    Source: statistical linearisation (Gelb 1974, *Applied Optimal Estimation*, 6.2); J is the slope of
    least expected error for a Gaussian e, by Stein's lemma.
    """
    operator, noise = seen.operator, seen.noise
    assert noise is not None
    straight = is_linear(operator)
    if straight and isinstance(noise, Gaussian):
        return Observation(operator.linear, seen.residual(x), noise)
    if straight:
        linear, mean, left = operator.linear, operator(x), 0
    else:
        e = errors()
        means, derivative = jax.linearize(jax.vmap(operator), x + e)
        linear = MeanDerivative(operator, x + e, derivative)
        mean = means.mean(0)
        left = ((means - mean - jax.vmap(linear)(e)) ** 2).mean(0)
    variance = jnp.maximum(noise.variance(mean) + left, jnp.finfo(mean.dtype).eps / 256)
    residual = operator.project(jnp.asarray(seen.y, mean.dtype)) - mean
    return Observation(linear, residual, Gaussian(jnp.sqrt(variance))).whitened()
