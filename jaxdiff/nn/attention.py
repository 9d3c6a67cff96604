"""Self-attention over the pixels of an image."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from jaxdiff.nn.abstract import Linear
from jaxdiff.nn.norm import GroupNorm
from jaxdiff.util.platform import choices


def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """softmax(q kᵀ/√d) v of [n, pixels, heads, d]; the softmax in float32 at least."""
    implementation = choices().attention
    # cuDNN has it for these only; XLA's softmax is in float32 even for float64.
    fits = q.dtype in (jnp.bfloat16, jnp.float16) and q.shape[-1] <= 128
    if (fits or implementation == "xla") and implementation and q.dtype != jnp.float64:
        return jax.nn.dot_product_attention(q, k, v, implementation=implementation)
    logits = jnp.einsum("nqhd,nkhd->nhqk", q, k) * q.shape[-1] ** -0.5
    logits = logits.astype(jnp.promote_types(q.dtype, jnp.float32))
    weights = jnp.exp(logits - lax.stop_gradient(logits.max(-1, keepdims=True)))
    # Times a reciprocal: as a division its rounding would depend on the number of devices.
    weights = weights * jnp.reciprocal(weights.sum(-1, keepdims=True))
    return jnp.einsum("nhqk,nkhd->nqhd", weights.astype(q.dtype), v)


class Attention(nnx.Module):
    """Self-attention over the pixels, with residual: (x + attention(norm(x))) / rescale."""

    def __init__(
        self, channels: int, head_dim: int, groups: int | None, eps: float, rescale=1.0, *, rngs
    ):
        self.heads = channels // head_dim
        self.rescale = rescale
        inner = self.heads * head_dim
        self.group_norm = nnx.data(None) if groups is None else GroupNorm(channels, groups, eps)
        self.to_q = Linear(channels, inner, rngs=rngs)
        self.to_k = Linear(channels, inner, rngs=rngs)
        self.to_v = Linear(channels, inner, rngs=rngs)
        self.to_out = nnx.List([Linear(inner, channels, rngs=rngs)])

    def __call__(self, x, temb=None, rngs=None):
        n, height, width, c = x.shape
        h = x if self.group_norm is None else self.group_norm(x)
        h = h.reshape(n, height * width, c)
        q, k, v = (
            to(h).reshape(n, height * width, self.heads, -1)
            for to in (self.to_q, self.to_k, self.to_v)
        )
        h = attend(q, k, v).reshape(n, height * width, -1)
        return (x + self.to_out[0](h).reshape(x.shape)) / self.rescale
