"""What every object keeps to: what it says of wrong arguments, its copies, pickles and text, and jit."""

import dataclasses
import pickle
import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiff as jd
from jaxdiff.operators import Affine, Blur, Crop, Grey, Mask
from jaxdiff.samplers import Draws
from tests.test_samplers import COVARIANCE, KEY, SAMPLERS, Toy, make

SCHEDULE = jd.Schedule.from_config()
RNG = np.random.default_rng(0)
TOY, EYE = Toy(np.float32(1)), Mask(np.ones((8, 8)))


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda s: jd.sample(s, SCHEDULE.steps(2), key=0), TypeError, r"jax.random.key\(seed\), got 0"),
        (lambda s: jd.sample(s, 10, key=KEY), TypeError, r"schedule.steps\(10\)"),
        (lambda s: jd.sample(s.denoiser, SCHEDULE.steps(2), key=KEY), TypeError, "sampler: expected"),
        (lambda s: jd.DDPM(3), TypeError, "denoiser: expected"),
        (lambda s: jd.DPS(s.denoiser, 3, np.zeros((8, 8, 3))), TypeError, "operator: expected"),
        (lambda s: SCHEDULE.steps(2.5), TypeError, "steps: expected"),
        (lambda s: jd.sample(s, SCHEDULE.steps(2), key=KEY, sharding=jax.devices()[0]), TypeError, "sharding"),
        (lambda s: jd.sample(s, SCHEDULE.steps(2), key=KEY, n=True), ValueError, "n: expected"),
    ],
)  # fmt: skip
def test_wrong_types_are_one_line(call, error, message):
    with pytest.raises(error, match=message):
        call(make("ddpm"))


def test_a_class_that_is_no_pytree_is_told_so():
    class Flip(jd.operators.Linear):
        def __call__(self, x):
            return x[..., ::-1, :]

    class Half:
        shape = (8, 8)

        def __call__(self, x):
            return x / 2

    for operator in (Flip(), Half()):
        with pytest.raises(TypeError, match=r"no pytree: put @jd.pytree above its class"):
            jd.DPS(Toy(np.float32(1)), operator, np.zeros((8, 8, 3)))


@pytest.mark.parametrize(
    "y, sigma, message",
    [
        (lambda x: 255 * x, 0.1, "divide by 255"),
        (lambda x: x, 10.0, "sigma: 10 is larger"),
        (lambda x: 2 * x - 1, 0.01, "negative"),
        (lambda x: x, 1.5, "more than white"),
    ],
)
def test_other_units_are_noticed(y, sigma, message):
    x = np.random.default_rng(0).random((8, 8, 3)).astype("f")
    with pytest.raises((ValueError, UserWarning), match=message):
        jd.PiGDM(Toy(np.float32(1)), Mask(np.ones((8, 8))), y(x), sigma)


@pytest.mark.parametrize("sigma", [None, jd.noise.Laplace(0.1), jd.noise.Quantised(8, 0.1)])
def test_a_dark_image_whose_noise_is_not_a_sigma_is_none_of_other_units(sigma):
    """Half of what a black image shows is negative; of [-1, 1] it is more than noise is."""
    y = 0.1 * np.random.default_rng(0).standard_normal((8, 8, 3)).astype("f")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jd.DPS(TOY, EYE, y, sigma=sigma)
    with pytest.warns(UserWarning, match="negative beyond its noise"):
        jd.DPS(TOY, EYE, np.linspace(-1, 1, 192).reshape(8, 8, 3), sigma=sigma)


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda y: (jd.PiGDM(TOY, EYE, y, -1.0), y), "sigma"),
        (lambda y: (jd.PiGDM(TOY, EYE, y, 10.0), y), "sigma: 10 is larger"),
        (lambda y: (jd.DPS(TOY, EYE, y, scale=-1.0), y), "scale"),
        (lambda y: (jd.PiGDM(TOY, EYE, np.full((8, 8, 3), 200.0), y[0, 0, 0]), y), "divide by 255"),
        (lambda y: (jd.PiGDM(TOY, EYE, np.full((8, 8, 3), np.nan), 0.1), y), "y: holds NaN"),
        (lambda y: (jd.PiGDM(TOY, EYE, y[:4], 0.1), y), "y: expected"),
    ],
)
def test_what_is_not_traced_is_checked(build, message):
    """Inside a caller's jit, for which one argument is an unknown number."""
    with pytest.raises(ValueError, match=message):
        jax.jit(lambda y: build(y)[1])(jnp.full((8, 8, 3), 0.5))


@pytest.mark.parametrize("name", SAMPLERS)
def test_representations_are_short(name):
    text = repr(make(name, network=True))
    assert len(text) < 2000 and type(make(name)).__name__ in text
    assert len(repr(SCHEDULE)) < 2000 and len(repr(SCHEDULE.steps(50))) < 2000
    assert len(repr(jd.Schedule.from_config({"trained_betas": [0.01] * 500}))) < 2000


def test_replacing_nothing_changes_nothing():
    """A field is what its constructor takes."""
    blur = Blur(RNG.random((3, 4)), (8, 9), normalize=True)
    x = RNG.random((8, 9, 3))
    for same in (dataclasses.replace(blur), Blur(blur.kernel, blur.shape)):
        np.testing.assert_array_equal(same(x), blur(x))
    for operator in (Mask(RNG.random((8, 9)) < 0.5), Grey(), Crop(2), Affine(2.0, 1.0)):
        np.testing.assert_array_equal(dataclasses.replace(operator)(x), operator(x))
    stack = jd.operators.Stack([blur, blur])
    np.testing.assert_array_equal(
        dataclasses.replace(stack)(np.stack([x, x])), stack(np.stack([x, x]))
    )


def test_a_sampler_survives_pickling():
    """With its bits, and its compiled program: nothing is traced again."""
    traces = []

    def keep(x, info):
        traces.append(1)
        return x.mean()

    sampler, steps = make("pigdm", network=True), SCHEDULE.steps(2)
    expected, _ = jd.sample(sampler, steps, key=KEY, keep=keep)
    again = pickle.loads(pickle.dumps(sampler))
    found, _ = jd.sample(again, pickle.loads(pickle.dumps(steps)), key=KEY, keep=keep)
    np.testing.assert_array_equal(expected, found)
    assert len(traces) == 1


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_samples_do_not_depend_on_the_batch_whatever_the_key(impl):
    sampler, steps = make("ddpm"), SCHEDULE.steps(3)
    key = jax.random.key(0, impl=impl)
    four = jd.sample(sampler, steps, key=key, n=4)
    np.testing.assert_array_equal(jd.sample(sampler, steps, key=key, n=1)[0], four[0])
    np.testing.assert_array_equal(jd.sample(sampler, steps, key=key, n=4, batch_size=1), four)
    assert float(jnp.abs(four[0] - four[1]).max()) > 1e-3


def test_built_and_differentiated_inside_jit():
    steps, blur = SCHEDULE.steps(2), Blur(np.ones((3, 3)) / 9, (8, 8))
    toy, y = Toy(np.float32(1)), jnp.full((8, 8, 3), 0.4)

    def total(y, method):
        return method(y).sum()

    for method in (
        lambda y: jd.sample(jd.DPS(toy, blur, y), steps, key=KEY),
        lambda y: jd.sample(jd.PiGDM(toy, blur, y, 0.1), steps, key=KEY),
        lambda y: jd.sample(jd.SpectralPosterior(toy, blur, y, 0.1, COVARIANCE), steps, key=KEY),
    ):
        plain = total(y, method)
        np.testing.assert_allclose(jax.jit(total, static_argnums=1)(y, method), plain, rtol=1e-5)
        gradient = jax.grad(total)(y, method)
        inside = jax.jit(jax.grad(total), static_argnums=1)(y, method)
        np.testing.assert_allclose(gradient, inside, rtol=1e-3, atol=1e-4)


def test_the_public_names():
    """`dir(jd)` is the API, and every name is there; importing it changes no configuration of JAX."""
    assert dir(jd) == sorted(jd.__all__) and all(hasattr(jd, name) for name in jd.__all__)
    assert not [name for name in dir(jd) if name.startswith("_")]
    script = (
        "import sys, jaxdiff; assert 'jax' not in sys.modules;"
        "import jax; before = dict(jax.config.values); [getattr(jaxdiff, n) for n in dir(jaxdiff)];"
        "assert dict(jax.config.values) == before; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_draws_beside_z_need_a_key():
    with pytest.raises(ValueError, match="draws more than noise="):
        Draws(jnp.zeros(3)).require_key()
