"""The core's nouns: levels, the one transition, decoders, observations, noises; and what they say."""

import dataclasses
import pickle
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiff as jd
from jaxdiff.noise import Noise
from jaxdiff.observation import Observation
from jaxdiff.operators import Affine, Blur, Crop, Grey, Mask, Scale
from jaxdiff.samplers import Draws, move
from jaxdiff.samplers.presets import NAMES, PRESETS, preset
from jaxdiff.schedules import Level, Steps
from tests.test_samplers import COVARIANCE, KEY, SAMPLERS, Toy, make

pytestmark = pytest.mark.usefixtures("hurried")
SCHEDULE = jd.Schedule.from_config()
RNG = np.random.default_rng(0)
TOY, EYE = Toy(np.float32(1)), Mask(np.ones((8, 8)))


def row(steps, i):
    return jax.tree.map(lambda a: jnp.asarray(a[i]), steps)


def general(c):
    """The same row without the stored coefficients."""
    return dataclasses.replace(c, x0_coef=jnp.nan, xt_coef=jnp.nan, noise_coef=jnp.nan)


@pytest.mark.parametrize("i", [0, 7, 18, 19])
def test_move_is_one_formula(i, x64):
    """The stored coefficients are those of fresh = τ, and the published transitions are shares."""
    c = row(SCHEDULE.steps(20), i)
    x, x0, z = (jnp.asarray(a) for a in RNG.standard_normal((3, 4, 4, 1)))
    np.testing.assert_allclose(move(x, c, x0, z), move(x, general(c), x0, z, c.fresh), atol=1e-12)
    eps = (x - c.now.alpha * x0) / c.now.sigma
    ddim = c.next.alpha * x0 + c.next.sigma * eps
    np.testing.assert_allclose(move(x, c, x0, z, 0.0), ddim, atol=1e-12)
    daps = c.next.alpha * x0 + c.next.sigma * z
    np.testing.assert_allclose(move(x, c, x0, z, 1.0), daps, atol=1e-12)


def test_the_last_step_returns_x0_without_a_flag():
    for config in ({}, {"variance_type": "fixed_large"}, {"timestep_spacing": "trailing"}):
        c = row(jd.Schedule.from_config(config).steps(20).astype(np.float32), -1)
        assert (float(c.next.alpha), float(c.next.sigma)) == (1, 0)
        x, x0 = jnp.ones((2, 2, 1)), jnp.full((2, 2, 1), 0.3)
        for z in (0.0, 5.0):
            np.testing.assert_array_equal(move(x, c, x0, z), x0)
        assert float(c.ancestral) == 0


def test_moving_keeps_the_forward_process(x64):
    """x_s of a move from x_t = α_t·x₀ + σ_t·ε has the mean α_s·x₀ and the deviation σ_s, any share."""
    c = row(SCHEDULE.steps(10), 4)
    for fresh in (None, 0.0, 0.3, 1.0):
        share = c.fresh if fresh is None else fresh
        kept = c.next.sigma * np.sqrt(1 - share)
        of_eps = move(c.now.sigma, c, 0.0, 0.0, fresh)
        np.testing.assert_allclose(of_eps, kept, rtol=1e-12)
        np.testing.assert_allclose(move(c.now.alpha, c, 1.0, 0.0, fresh), c.next.alpha, rtol=1e-12)
        of_z = move(0.0, c, 0.0, 1.0, fresh)
        np.testing.assert_allclose(of_eps**2 + of_z**2, c.next.sigma**2, rtol=1e-12)


def test_levels_at_any_scaling():
    preserving = SCHEDULE.level(300)
    exploding = Level(300, 1.0, preserving.sigma / preserving.alpha)
    assert preserving.signal == pytest.approx(exploding.signal, rel=1e-12)
    assert preserving.signal == pytest.approx(SCHEDULE.alphas_cumprod[300], rel=1e-12)
    assert exploding.noise + exploding.signal == pytest.approx(1)
    assert preserving.variance == pytest.approx(exploding.sigma**2)


def test_a_ladder_from_each_level():
    steps = SCHEDULE.steps(4, inner=3)
    assert steps.inner is not None and steps.inner.now.t.shape == (4, 3)
    np.testing.assert_array_equal(steps.inner.now.t[:, 0], steps.t)
    assert (steps.inner.now.t[:, -1] == 0).all() and (steps.inner.next.sigma[:, -1] == 0).all()
    alone = row(steps, 1).inner
    assert isinstance(alone, Steps) and alone.now.alpha.shape == (3,)
    assert SCHEDULE.steps(4).inner is None


@pytest.mark.parametrize(
    "name", ["ScoreSdeVpScheduler", "LCMScheduler", "FlowMatchLCMScheduler", "Mine"]
)
def test_a_schedule_of_another_noise_is_refused_by_name(name):
    with pytest.raises(ValueError, match=name):
        jd.Schedule.from_config({"_class_name": name, "num_train_timesteps": 2000})


@pytest.mark.parametrize("name", ["DDIMScheduler", "PNDMScheduler", "EulerDiscreteScheduler"])
def test_a_schedule_of_the_same_noise_is_the_same(name):
    config = {"_class_name": name, "beta_schedule": "scaled_linear", "beta_end": 0.012}
    ours = jd.Schedule.from_config(config)
    same = jd.Schedule.from_config(config | {"_class_name": "DDPMScheduler"})
    np.testing.assert_array_equal(ours.alphas_cumprod, same.alphas_cumprod)


DECODED = {
    "blur": lambda: Blur(RNG.random((3, 5)), (8, 8)),
    "mask": lambda: Mask(RNG.random((8, 8)) < 0.5),
    "crop-of-blur": lambda: Crop(1) @ Blur(RNG.random((3, 3)), (8, 8)),
    "grey-of-mask": lambda: Grey() @ Mask(RNG.random((8, 8)) < 0.5),
    "blur-of-blur": lambda: Blur(RNG.random((3, 3)), (8, 8)) @ Blur(RNG.random((2, 2)), (8, 8)),
    "scale": lambda: Scale(0.7),
}


@pytest.fixture(params=DECODED)
def observation(request, x64):
    operator = DECODED[request.param]()
    x = RNG.random((8, 8, 3))
    y = np.asarray(operator(x)) + 0.05
    return Observation(operator, operator.project(y), jd.noise.Gaussian(0.2))


def test_an_observation_of_states_is_that_of_images(observation):
    """Through any affine decoder: residuals, likelihoods, and the solve in the states' own units."""
    decode = Affine(0.3, 0.6)
    seen = observation @ decode
    state = jnp.asarray(RNG.standard_normal((8, 8, 3)))
    np.testing.assert_allclose(
        seen.residual(state), observation.residual(decode(state)), atol=1e-12
    )
    np.testing.assert_allclose(seen.log_prob(state), observation.log_prob(decode(state)))
    residual = seen.residual(state)
    ours, _ = seen.solve(residual, 0.5)
    theirs, _ = observation.solve(residual, 0.5 * 0.3**2)
    np.testing.assert_allclose(ours, 0.3 * theirs, atol=1e-9)


def test_prox_is_the_minimum(observation):
    """Where the gradient of −log p(y | z) + ‖z − x‖²/(2v) is zero."""
    x, variance = jnp.asarray(RNG.standard_normal((8, 8, 3))), 0.3
    seen = observation @ Affine(0.5, 0.5)
    z, _ = seen.prox(x, variance)
    gradient = jax.grad(lambda z: -seen.log_prob(z) + jnp.sum((z - x) ** 2) / (2 * variance))(z)
    assert float(jnp.abs(gradient).max()) < 1e-7


def test_factors_are_the_operator(observation):
    """P F⁻¹ diag(K) F is the linear part of the observation."""
    from jaxdiff.linalg.fields import filtered

    linear = (observation @ Affine(0.5, 0.5)).operator.linear
    outer, response = linear.factors(jnp.float64)
    x = jnp.asarray(RNG.standard_normal((8, 8, 3)))
    eye = jnp.eye(3) * jnp.broadcast_to(response, (8, 5, 1))[..., None]
    after = filtered(eye, x)
    np.testing.assert_allclose(after if outer is None else outer(after), linear(x), atol=1e-12)


@jd.pytree
class Square(jd.operators.Operator):
    shape = (8, 8)

    def __call__(self, x):
        return x**2


@pytest.mark.parametrize("name", [n for n, r in SAMPLERS.items() if r.restores and r.linear])
def test_a_nonlinear_operator_is_told_what_takes_it(name):
    sampler = make(name)
    for operator in (Square(), lambda x: x**2, Grey() @ Square()):
        with pytest.raises(TypeError, match=r"not linear.*DPS takes any"):
            dataclasses.replace(sampler, operator=operator, y=np.asarray(operator(sampler.y)))


def test_dps_takes_any_differentiable_operator():
    y = np.full((8, 8, 3), 0.25, np.float32)
    toy = Toy(np.float32(1))
    known, steps = jd.operators.Mask(np.eye(8) < 1), SCHEDULE.steps(3)
    images = [
        jd.sample(jd.DPS(toy, operator, np.asarray(known(y))), steps, key=KEY)
        for operator in (known @ Square(), lambda x: known(x**2))
    ]
    np.testing.assert_allclose(*images, atol=1e-6)


@jd.pytree
class Laplace(Noise):
    scale: float

    def log_prob(self, y, mean):
        return -jnp.abs(y - mean).sum() / self.scale

    def draw(self, key, mean):
        return mean + self.scale * jax.random.laplace(key, mean.shape, mean.dtype)

    def residual(self, y, mean):
        return jnp.sign(y - mean)


def test_a_noise_of_ones_own():
    """DPS takes it; what needs a Gaussian says so; a float is one."""
    y = np.full((8, 8, 3), 0.5, np.float32)
    toy, blur, steps = Toy(np.float32(1)), Blur(np.ones((3, 3)) / 9, (8, 8)), SCHEDULE.steps(3)
    plain = jd.sample(jd.DPS(toy, blur, y), steps, key=KEY)
    other = jd.sample(jd.DPS(toy, blur, y, sigma=Laplace(0.1)), steps, key=KEY)
    assert float(jnp.abs(plain - other).max()) > 1e-4
    with pytest.raises(TypeError, match="Gaussian noise, got Laplace"):
        jd.PiGDM(toy, blur, y, Laplace(0.1))
    given = [
        jd.sample(jd.PiGDM(toy, blur, y, s), steps, key=KEY) for s in (0.1, jd.noise.Gaussian(0.1))
    ]
    np.testing.assert_array_equal(*given)
    drawn = jd.noise.Gaussian(0.1).draw(KEY, jnp.zeros(10_000))
    assert float(drawn.std()) == pytest.approx(0.1, rel=0.05)


def test_restore_chooses_by_what_there_is(tiny):
    photograph = jd.data.example()
    blur = Blur(jd.data.motion_kernel(9, 0), (64, 64))
    y = np.asarray(blur(photograph))
    restored = jd.restore(y, blur, 10 / 255, prior=tiny, n=2, steps=2)
    assert restored.sampler == "spectral" and restored.draws.shape == (2, 64, 64, 3)
    np.testing.assert_allclose(restored.mean, restored.draws.mean(0), atol=1e-6)
    assert restored.std is not None and restored.std.shape == photograph.shape
    assert jd.restore(y, blur, 0.1, prior=tiny, n=1, steps=2).std is None
    denoiser = jd.Denoiser(*jd.load(tiny))
    assert jd.restore(y, blur, 0.1, prior=denoiser, n=1, steps=2).sampler == "pigdm-paper"
    squared = jd.restore(photograph**2, lambda x: x**2, 0.1, prior=denoiser, n=1, steps=2)
    assert squared.sampler == "dps"
    batch = jd.restore(np.stack([y, y]), blur, 0.1, prior=tiny, n=2, steps=2)
    assert batch.mean.shape == (2, 64, 64, 3)


def test_presets():
    toy, y = Toy(np.float32(1)), np.full((8, 8, 3), 0.5, np.float32)
    blur = Blur(np.ones((3, 3)) / 9, (8, 8))
    assert set(NAMES) == set(PRESETS)
    for name, row in PRESETS.items():
        camera = Mask(np.eye(8) < 1) if name == "repaint" else blur
        sampler = row.sampler(
            toy, camera, y, 0.1, covariance=COVARIANCE if row.needs_table else None
        )
        assert isinstance(sampler, row.method) and row.steps >= 10, name
    assert PRESETS["dps"].steps == 1000
    with pytest.raises(ValueError, match="expected one of spectral"):
        preset("dps-adaptve")
    with pytest.raises(ValueError, match="jaxdiff calibrate"):
        PRESETS["spectral"].sampler(toy, blur, y, 0.1)


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
