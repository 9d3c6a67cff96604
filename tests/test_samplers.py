"""A contract for every sampler: one row a new one."""

import dataclasses
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxdiff as jd
from jaxdiff.denoiser import as_prior
from jaxdiff.samplers import Draws
from jaxdiff.util import platform
from jaxdiff.util.pytree import pytree, replace_leaf

CONFIG = jd.UNet2DConfig(
    sample_size=8,
    block_out_channels=(8,),
    down_block_types=("DownBlock2D",),
    up_block_types=("UpBlock2D",),
    mid_block_type=None,
    layers_per_block=1,
    norm_num_groups=4,
)
SCHEDULE = jd.Schedule.from_config()
LEVELS = np.array([0, 500, 999])
COVARIANCE = jd.SpectralCovariance(
    np.broadcast_to(0.05 * np.eye(3) + 0.02, (3, 7, 3, 3)).astype("f"),
    LEVELS,
    SCHEDULE.alphas_cumprod[LEVELS],
    1 / 8,
)
MODULATION = np.array([[0.3, -2.0]] * 3, "f")
MODULATED = dataclasses.replace(COVARIANCE, modulation=MODULATION)
KNOWN = jd.operators.Mask(np.arange(64).reshape(8, 8) % 3 > 0)


class Row(NamedTuple):
    """How a sampler is made of (denoiser, operator, y), and what it is."""

    make: Any
    restores: bool = True
    linear: bool = True  # is here given a linear operator and a sigma, which may be another number
    scaled: bool = False  # has a guidance scale
    draws_more: bool = False  # than z
    loop: bool = True  # of its kind of state, shows what is the loop's own: devices, bars, noise


SAMPLERS = {
    "ddpm": Row(lambda d, a, y: jd.DDPM(d), restores=False),
    "ddim": Row(lambda d, a, y: jd.DDIM(d, eta=0.5), restores=False, loop=False),
    "dps": Row(lambda d, a, y: jd.DPS(d, a, y), linear=False, scaled=True),
    "dps-adaptive": Row(
        lambda d, a, y: jd.DPS(d, a, y, 50.0, "adaptive"), linear=False, scaled=True, loop=False
    ),
    "pigdm": Row(lambda d, a, y: jd.PiGDM(d, a, y, 0.1), scaled=True),
    "pigdm-paper": Row(
        lambda d, a, y: jd.PiGDM(d, a, y, 0.1, variance="paper"), scaled=True, loop=False
    ),
    "pigdm-masked": Row(lambda d, a, y: jd.PiGDM(d, KNOWN @ a, y, 0.1), scaled=True, loop=False),
    "ddpm-covariance": Row(lambda d, a, y: jd.DDPM(d, COVARIANCE), restores=False, loop=False),
    "ddpm-modulated": Row(lambda d, a, y: jd.DDPM(d, MODULATED), restores=False, draws_more=True),
    "spectral": Row(lambda d, a, y: jd.SpectralPosterior(d, a, y, 0.1, COVARIANCE)),
    "spectral-mean": Row(
        lambda d, a, y: jd.SpectralPosterior(d, a, y, 0.1, COVARIANCE, False), loop=False
    ),
    "spectral-jacobian": Row(
        lambda d, a, y: jd.SpectralPosterior(d, a, y, 0.1, COVARIANCE, jacobian=True), loop=False
    ),
    "spectral-modulated": Row(
        lambda d, a, y: jd.SpectralPosterior(d, a, y, 0.1, MODULATED), draws_more=True
    ),
    "spectral-masked": Row(
        lambda d, a, y: jd.SpectralPosterior(d, KNOWN @ a, y, 0.1, COVARIANCE),
        draws_more=True,
        loop=False,
    ),
    "spectral-linearised": Row(
        lambda d, a, y: jd.SpectralPosterior(
            d, jd.operators.HDR(1.5) @ a, y, jd.noise.PoissonGaussian(100, 0.1), MODULATED
        ),
        linear=False,
        draws_more=True,
        loop=False,
    ),
    "diffpir": Row(lambda d, a, y: jd.DiffPIR(d, a, y, 0.1), loop=False),
    "ddrm": Row(lambda d, a, y: jd.DDRM(d, a, y, 0.1), loop=False),
    "ddnm": Row(lambda d, a, y: jd.DDNM(d, a, y, 0.1), loop=False),
    "mmps": Row(lambda d, a, y: jd.MMPS(d, a, y, 0.1, 2), loop=False),
    "daps": Row(lambda d, a, y: jd.DAPS(d, a, y, 0.1, count=3, inner=2), linear=False, loop=False),
    "pnpdm": Row(lambda d, a, y: jd.PnPDM(d, a, y, 0.1, inner=2), linear=False, loop=False),
    "tmpd": Row(lambda d, a, y: jd.TMPD(d, a, y, 0.1), loop=False),
    "reddiff": Row(lambda d, a, y: jd.REDDiff(d, a, y, 0.1), linear=False),
    "sitcom": Row(lambda d, a, y: jd.SITCOM(d, a, y, 0.1, 3), linear=False, loop=False),
    "fastdips": Row(lambda d, a, y: jd.FastDIPS(d, a, y, 0.1), linear=False, loop=False),
    "repaint": Row(lambda d, a, y: jd.RePaint(d, KNOWN, y, 0.1, 2), linear=False, loop=False),
    "blind": Row(
        lambda d, a, y: jd.Blind(d, jd.operators.UnknownBlur(3), y, 0.1, COVARIANCE),
        linear=False,
        draws_more=True,
        loop=False,
    ),
    "tds": Row(lambda d, a, y: jd.TDS(d, a, y, 0.1, 3), linear=False, draws_more=True),
}
RESTORING = [name for name, row in SAMPLERS.items() if row.restores]
SCALED = [name for name, row in SAMPLERS.items() if row.scaled]
LINEAR = [name for name in RESTORING if SAMPLERS[name].linear]
LINEAR_ONLY = [name for name in LINEAR if "spectral" not in name]
LOOP = [name for name, row in SAMPLERS.items() if row.loop]
KEY = jax.random.key(0)


@pytree
class Toy:
    """A denoiser that compiles in no time, for what is said of samplers and of the loop."""

    weight: Any
    shape = (8, 8, 3)
    independent = True

    def __call__(self, x_t, t):
        return jnp.tanh(self.weight * x_t + 0.5 * jnp.roll(x_t, 1, -3))


def make(name, seed=0, blur=3, batch=None, network=False):
    denoiser = Toy(np.float32(1 + 0.1 * seed))
    if network:
        unet = jd.UNet2D(CONFIG, rngs=nnx.Rngs(seed))
        denoiser = jd.Denoiser(unet, jd.Schedule.from_config())
    operator = jd.operators.Blur(np.ones((blur, blur)) / blur**2, (8, 8))
    shape = (8, 8, 3) if batch is None else (batch, 8, 8, 3)
    y = np.random.default_rng(seed).random(shape).astype("f")
    return SAMPLERS[name].make(denoiser, operator, y)


@pytest.fixture(scope="module")
def steps():
    return jd.Schedule.from_config().steps(6, inner=2)


@pytest.fixture(params=SAMPLERS)
def name(request):
    return request.param


def test_same_sample_whatever_n_and_batch_size(name, steps):
    sampler = make(name)
    alone = jd.sample(sampler, steps, key=KEY, n=1)
    many = jd.sample(sampler, steps, key=KEY, n=4)
    chex.assert_shape(many, (4, 8, 8, 3))
    assert many.dtype == jnp.float32
    assert 0 <= many.min() and many.max() <= 1
    assert np.ptp(np.asarray(many), axis=0).max() > 1e-3, "the samples differ"
    np.testing.assert_allclose(alone, many[:1], atol=1e-5)
    chunked = jd.sample(sampler, steps, key=KEY, n=6, batch_size=4)
    np.testing.assert_allclose(chunked[:4], many, atol=1e-5)
    one_by_one = jd.sample(sampler, steps, key=KEY, n=6, batch_size=1)
    np.testing.assert_allclose(one_by_one, chunked, atol=1e-5)


@pytest.mark.parametrize("name", LOOP)
def test_same_sample_on_eight_devices(name, steps):
    devices = jax.devices()
    if len(devices) < 8:
        pytest.skip(f"needs 8 devices, JAX sees {len(devices)}")
    mesh = jax.sharding.Mesh(np.array(devices[:8]), ("samples",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("samples"))
    sampler = make(name)
    one = jd.sample(sampler, steps, key=KEY, n=11)
    eight, kept = jd.sample(
        sampler, steps, key=KEY, n=11, sharding=sharding, keep=lambda x, info: info["x0_hat"]
    )
    np.testing.assert_allclose(one, eight, atol=1e-5)
    chex.assert_shape(kept, (6, 11, 8, 8, 3))


@pytest.mark.parametrize("name", LOOP)
def test_progress_changes_nothing(name, steps, capsys):
    sampler = make(name)
    plain, kept = jd.sample(sampler, steps, key=KEY, n=2, keep=lambda x, info: info["x0_hat"])
    bar, kept_bar = jd.sample(
        sampler, steps, key=KEY, n=2, keep=lambda x, info: info["x0_hat"], progress=True
    )
    np.testing.assert_allclose(plain, bar, atol=1e-5)
    np.testing.assert_allclose(kept, kept_bar, atol=1e-5)
    assert "6/6" in capsys.readouterr().err


@pytest.mark.parametrize("name", [name for name in LOOP if not SAMPLERS[name].draws_more])
def test_noise_replaces_the_draws(name, steps, x64):
    """In float64: six steps amplify float32's rounding to 1e-5, and both sides round on their own."""
    noise = np.random.default_rng(0).standard_normal((7, 2, *make(name).shape))
    sampler = jax.tree.map(lambda a: a.astype(np.float64), make(name))
    images = jd.sample(sampler, steps, noise=noise, batch_size=1)
    np.testing.assert_allclose(
        images[1:], jd.sample(sampler, steps, noise=noise[:, 1:]), atol=1e-10
    )
    step, x = jax.jit(type(sampler).step), sampler.begin(steps.start * noise[0, 0])
    for i in range(6):
        x, _ = step(sampler, x, jax.tree.map(lambda a, i=i: a[i], steps), Draws(noise[i + 1, 0]))
    np.testing.assert_allclose(images[0], sampler.denoiser.image(sampler.result(x)), atol=1e-10)


def test_evaluations_of_a_step(name, steps):
    """Counted as one step runs, its loops with it: as many as the sampler declares."""
    calls = []

    @pytree
    class Counted(Toy):
        def __call__(self, x_t, t):
            jax.debug.callback(lambda: calls.append(1))
            return super().__call__(x_t, t)

    sampler = replace_leaf(make(name), denoiser=as_prior(Counted(np.float32(1))))
    c = jax.tree.map(lambda a: a[0], steps.astype(np.float32))
    noise = jnp.ones(sampler.shape)
    step = jax.jit(type(sampler).step, compiler_options=platform.compiler_options())
    jax.block_until_ready(step(sampler, sampler.begin(noise), c, Draws(noise, KEY)))
    jax.effects_barrier()
    assert len(calls) == sampler.evaluations


def test_no_retrace(name, steps):
    """Another y, kernel (also of another size), sigma, scale or set of weights: one trace."""
    traces = []

    def keep(x, info):  # runs once a trace
        traces.append(1)
        return info["x0_hat"].mean()

    sampler = make(name, network=True)
    jd.sample(sampler, steps, key=KEY, keep=keep)
    assert len(traces) == 1
    others = [make(name, seed=1, network=True), make(name, blur=4, network=True)]
    if name in SCALED:
        others.append(dataclasses.replace(sampler, scale=3))
    if name in LINEAR:
        others += [dataclasses.replace(sampler, sigma=s) for s in (0, 0.3, np.float32(1))]
    for other in others:
        jd.sample(other, steps, key=jax.random.key(1), keep=keep)
    assert len(traces) == 1


def test_pytree(name):
    sampler = make(name)
    leaves, structure = jax.tree.flatten(sampler)
    assert all(hasattr(leaf, "shape") for leaf in leaves)
    again = jax.tree.unflatten(structure, leaves)
    assert type(again) is type(sampler) and jax.tree.structure(again) == structure
    assert hash(structure) == hash(jax.tree.structure(make(name, seed=1)))


def test_memory_does_not_grow_with_steps(name):
    """Temporary memory of the compiled program at 10 and at 200 steps."""
    from jaxdiff.sampling import _run_trajectory, _Samples

    def temporary(count):
        steps = jd.Schedule.from_config().steps(count, inner=2).astype(np.float32)
        sampler = make(name)
        sampler, own, _ = sampler.split()
        samples = _Samples(KEY[None], own)
        program = jax.jit(
            lambda s, c, m: _run_trajectory(s, c, 1.0, m, sampler.shape, np.dtype("f"), None, None),
            compiler_options=platform.compiler_options(),
        )  # also: the loop can be called inside a user's jit
        return program.lower(sampler, steps, samples).compile().memory_analysis()

    short, long = temporary(10), temporary(200)
    assert long.temp_size_in_bytes <= short.temp_size_in_bytes + 200 * 10 * 8


@pytest.mark.parametrize("name", RESTORING)
def test_batch_of_measurements(name, steps):
    sampler = make(name, batch=3)

    def residual(x, info):
        return info["residual"]

    images, kept = jd.sample(sampler, steps, key=KEY, n=2, batch_size=2, keep=residual)
    chex.assert_shape(images, (3, 2, 8, 8, 3))
    chex.assert_shape(kept, (6, 3, 2))
    first = dataclasses.replace(sampler, y=sampler.y[0])
    alone, _ = jd.sample(first, steps, key=KEY, n=2, keep=residual)
    np.testing.assert_allclose(alone, images[0], atol=1e-5)
    if not SAMPLERS[name].loop:
        return
    noise = np.random.default_rng(0).standard_normal((7, 3, 2, *sampler.shape)).astype("f")
    hooked = jd.sample(sampler, steps, noise=noise, key=KEY, batch_size=2)
    alone = jd.sample(first, steps, noise=noise[:, 0], key=KEY)
    np.testing.assert_allclose(alone, hooked[0], atol=1e-5)


@pytest.mark.parametrize(
    "name", ["dps", "pigdm", "spectral", "spectral-modulated", "spectral-masked"]
)
def test_each_measurement_its_own_operator_and_key(name, steps):
    """A batch blurred in several ways, in one program: the same as one by one."""
    ones = [make(name, seed=s, blur=3 + s) for s in range(3)]
    denoiser = ones[0].denoiser
    keys = jax.random.split(KEY, 3)
    fields = {"operator": jd.operators.Stack([s.operator for s in ones])}
    fields |= {"denoiser": denoiser, "y": np.stack([s.y for s in ones])}
    if name != "dps":
        fields["sigma"] = np.array([0.1, 0.2, 0.3])
    images = jd.sample(dataclasses.replace(ones[0], **fields), steps, key=keys, n=2)
    for i, one in enumerate(ones):
        changes = {"denoiser": denoiser} | ({"sigma": 0.1 * (i + 1)} if name != "dps" else {})
        one = dataclasses.replace(one, **changes)
        batch = dataclasses.replace(one, y=one.y[None])
        alone = jd.sample(batch, steps, key=keys[i : i + 1], n=2)
        np.testing.assert_allclose(alone[0], images[i], atol=1e-5)
    with pytest.raises(ValueError, match="one measurement for each"):
        dataclasses.replace(ones[0], **(fields | {"y": ones[0].y}))
    with pytest.raises(ValueError, match="one kind"):
        jd.operators.Stack([ones[0].operator, jd.operators.Blur(np.ones((1, 1)), (4, 4))])
    with pytest.raises(ValueError, match="key"):
        jd.sample(ones[0], steps, key=keys)


@pytest.mark.parametrize("name", RESTORING)
def test_bad_measurements(name):
    sampler = make(name)

    def rebuild(**changes):
        return dataclasses.replace(sampler, **changes)

    for y, message in (
        (np.zeros((8, 9, 3)), "expected the operator's output"),
        (np.zeros((8, 8, 1)), "expected the operator's output"),
        (np.zeros((8, 8, 3), np.uint8), "divide by 255"),
        (np.full((8, 8, 3), np.nan), "NaN"),
    ):
        with pytest.raises(ValueError, match=message):
            rebuild(y=y)
    if name in SCALED:
        with pytest.raises(ValueError, match="scale"):
            rebuild(scale=-1)
    if name in LINEAR:
        for sigma in (-0.1, np.nan, "a"):
            with pytest.raises(ValueError, match="sigma"):
                rebuild(sigma=sigma)
