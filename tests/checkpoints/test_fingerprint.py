"""A fingerprint follows the content, and nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxdiff as jd
from jaxdiff.checkpoints.fingerprint import fingerprint, of_weights
from jaxdiff.checkpoints.formats import convert
from jaxdiff.nn.unet import abstract_unet


def changed(unet, change):
    graph, state = nnx.split(unet)
    leaves, tree = jax.tree.flatten(state)
    leaves[3] = change(leaves[3])
    return nnx.merge(graph, jax.tree.unflatten(tree, leaves))


def test_same_content_elsewhere(tiny, tmp_path):
    unet, schedule = jd.load(tiny)
    jd.save(tmp_path / "copy", unet, schedule)
    assert fingerprint(*jd.load(tmp_path / "copy")) == fingerprint(unet, schedule)


def test_other_content(tiny):
    unet, schedule = jd.load(tiny)
    table = jd.SpectralCovariance.load(tiny)
    config = jd.UNet2DConfig.from_dict(unet.config.to_dict() | {"act_fn": "relu"})
    other = nnx.merge(nnx.split(abstract_unet(config))[0], nnx.state(unet))
    all_of = [
        (unet, schedule),
        (changed(unet, lambda a: a.at[(0,) * a.ndim].add(1e-6)), schedule),
        (jd.load(tiny, dtype=jnp.bfloat16)[0], schedule),
        (other, schedule),
        (unet, jd.Schedule.from_config({"beta_end": 0.021})),
        (unet, jd.Schedule.from_config({"prediction_type": "sample"})),
        (unet, schedule.alphas_cumprod),
        (unet, schedule, table),
        (schedule, unet),
        (unet,),
        (np.zeros(2), np.zeros(3)),
        (np.zeros(3), np.zeros(2)),
        ((np.zeros(2), np.zeros(3)),),
    ]
    assert len({fingerprint(*parts) for parts in all_of}) == len(all_of)


def is_same(a, b):
    return bool((of_weights(a) == of_weights(b)).all(-1).any())


def test_the_same_weights_in_every_type(tiny, tmp_path):
    """Rewritten in another type, or loaded in another: they are the checkpoint's still."""
    unet, _ = jd.load(tiny)
    for dtype in (jnp.float16, jnp.bfloat16, jnp.float32):
        convert(tiny, tmp_path / jnp.dtype(dtype).name, dtype=dtype)
        assert is_same(unet, jd.load(tmp_path / jnp.dtype(dtype).name)[0])
        assert is_same(unet, jd.load(tiny, dtype=dtype)[0])
    with jax.enable_x64(True):
        assert is_same(unet, jd.load(tiny, dtype=jnp.float64)[0])


@pytest.mark.parametrize(
    "change",
    [lambda a: a.at[(-1,) * a.ndim].add(0.01), lambda a: -a, lambda a: a * 1.01, jnp.zeros_like],
)
def test_other_weights(change, tiny):
    unet, _ = jd.load(tiny)
    assert not is_same(unet, changed(unet, change))
