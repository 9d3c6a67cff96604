"""One network for both sides, and the same noise: what parity with other libraries needs.

They are no dependencies: `pip install -e .[peers]`, then `python -m pytest tests/peers`.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiff as jd
from jaxdiff.operators import Affine
from jaxdiff.util.pytree import pytree

SHAPE = (8, 8, 1)


@pytree
class Network(jd.Prior):
    """x̂₀ = tanh(1.1·z + 0.5·(z one pixel up) + 0.2·(z one pixel left)) of z = x_t/α_t, in states' units."""

    decode: Any = Affine(0.5, 0.5)
    shape = SHAPE

    def __call__(self, x, at):
        z = x / at.alpha
        return jnp.tanh(1.1 * z + 0.5 * jnp.roll(z, 1, -3) + 0.2 * jnp.roll(z, 1, -2))


def torch_network(z):
    """The same of [..., 1, 8, 8]."""
    import torch

    return torch.tanh(1.1 * z + 0.5 * torch.roll(z, 1, -2) + 0.2 * torch.roll(z, 1, -1))


def to_torch(x):
    """[..., H, W, C] → [..., C, H, W]."""
    import torch

    return torch.tensor(np.moveaxis(np.asarray(x, np.float64), -1, -3).copy())


def from_torch(x):
    """[..., C, H, W] → [..., H, W, C]."""
    return np.moveaxis(x.detach().numpy(), -3, -1)


@pytest.fixture
def given(monkeypatch):
    """`given(draws)`: torch's next normal numbers are these [H, W, C], one after the other."""
    import torch

    def give(draws):
        left = [to_torch(z) for z in draws]
        monkeypatch.setattr(
            torch, "randn_like", lambda x, **_: left.pop(0).reshape(x.shape).to(x.dtype)
        )
        return left

    return give
