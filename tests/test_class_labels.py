"""Class labels: a class, a mask of classes, or none, checked before anything runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxdiff as jd
from jaxdiff.nn.song import SongConfig, SongUNet
from tests.checkpoints.published import TINY


@pytest.fixture(scope="module")
def unet():
    return jd.UNet2D(jd.UNet2DConfig(**TINY, num_class_embeds=4), rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def song():
    config = SongConfig(img_resolution=8, model_channels=8, channel_mult=(1,), num_blocks=1, attn_resolutions=(), label_dim=4)  # fmt: skip
    return SongUNet(config, rngs=nnx.Rngs(0))


SCHEDULE = jd.Schedule.from_config()
X = np.random.default_rng(0).standard_normal((2, 8, 8, 3)).astype("f")


@pytest.mark.parametrize("network", ["unet", pytest.param("song", marks=pytest.mark.slow)])
def test_a_mask_of_one_class_is_the_class(network, request):
    network = request.getfixturevalue(network)
    run = jax.jit(jd.Denoiser.__call__)

    def x0(labels):
        return np.asarray(run(jd.Denoiser(network, SCHEDULE, labels), X, jnp.int32(300)))

    each = [x0(label) for label in range(4)]
    for label, mask in enumerate(np.eye(4, dtype=bool)):
        np.testing.assert_allclose(x0(mask), each[label], atol=1e-6)
    assert np.abs(each[1] - each[0]).max() > 1e-4
    none, both = x0(np.zeros(4, bool)), x0(np.array([True, True, False, False]))
    assert all(np.abs(none - one).max() > 1e-4 for one in (*each, both))


def test_no_class_is_the_network_without_its_embedding(unet):
    """Zeros for weights add nothing to the time's embedding."""
    config = jd.UNet2DConfig(**TINY)
    plain = jd.UNet2D(config, rngs=nnx.Rngs(0))
    weights = [w for w in nnx.to_flat_state(nnx.state(unet)) if "class_embedding" not in w[0]]
    nnx.update(plain, nnx.from_flat_state(weights))
    ours = jd.Denoiser(unet, SCHEDULE, np.zeros(4, "f"))(X, 300)
    np.testing.assert_allclose(ours, jd.Denoiser(plain, SCHEDULE)(X, 300), atol=1e-6)


def test_another_class_does_not_recompile_the_trajectory(unet):
    traced = []

    class Counted:
        config, dtype = unet.config, unet.dtype

        def __call__(self, x, t, labels):
            traced.append(1)
            return unet(x, t, labels)

    jax.tree_util.register_static(Counted)
    network, steps = Counted(), SCHEDULE.steps(3)

    def drawn(labels):
        sampler = jd.DDPM(jd.Denoiser(network, SCHEDULE, labels))
        return np.asarray(jd.sample(sampler, steps, key=jax.random.key(0)))

    drawn(1)
    count = len(traced)
    second, third = drawn(2), drawn(3)
    assert len(traced) == count and not np.array_equal(second, third)
    mask = drawn(np.eye(4, dtype="f")[2])
    np.testing.assert_allclose(mask, second, atol=1e-5)
    count = len(traced)
    drawn(np.eye(4, dtype="f")[3])
    assert len(traced) == count


@pytest.mark.parametrize(
    "labels", [-1, 4, 1.0, True, "1", [1, 2], np.ones(3), np.full(4, np.nan), np.ones((1, 4))], ids=str
)  # fmt: skip
def test_labels_that_are_none(labels, unet):
    with pytest.raises(ValueError, match=r"class_labels: expected an integer from 0 to 3") as e:
        jd.Denoiser(unet, SCHEDULE, labels)
    assert "\n" not in str(e.value)


def test_labels_where_there_are_no_classes_and_none_where_there_are(unet):
    with pytest.raises(ValueError, match="pass the class"):
        jd.Denoiser(unet, SCHEDULE)
    plain = jd.UNet2D(jd.UNet2DConfig(**TINY), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="leave them out"):
        jd.Denoiser(plain, SCHEDULE, 0)
    embedded = jd.UNet2D(jd.UNet2DConfig(**TINY, class_embed_type="identity"), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"an embedding \[32\]"):
        jd.Denoiser(embedded, SCHEDULE, np.ones(31))
    jd.Denoiser(embedded, SCHEDULE, np.ones(32))
    timed = jd.UNet2D(jd.UNet2DConfig(**TINY, class_embed_type="timestep"), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="a number"):
        jd.Denoiser(timed, SCHEDULE, np.ones(2))


def test_the_first_releases_name(unet):
    with pytest.warns(DeprecationWarning, match="class_labels now"):
        denoiser = jd.Denoiser(unet, SCHEDULE, class_label=2)
    assert denoiser.class_labels == 2
