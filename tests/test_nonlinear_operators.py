"""A contract for operators that are not linear: one row a new one."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import jaxdiff as jd
from jaxdiff.operators import HDR, JPEG, Gamma, PhaseRetrieval, Saturate
from jaxdiff.util.platform import jit
from tests.test_samplers import KEY, LINEAR_ONLY, MODULATED, SCHEDULE, Toy, make

OPERATORS = {
    "phase": PhaseRetrieval(2),
    "phase-4": PhaseRetrieval(4),
    "hdr": HDR(2),
    "saturate": Saturate(1.5),
    "gamma": Gamma(2.2),
    "gamma-root": Gamma(1 / 2.2),
    "jpeg": JPEG(30),
    "jpeg-444": JPEG(80, subsample=False),
    "gamma-of-blur": Gamma(0.5) @ jd.operators.Blur(np.full((3, 3), 1 / 9), (8, 12)),
    "grey-of-hdr": jd.operators.Grey() @ HDR(1.5),
}
ROUNDED = ("jpeg", "jpeg-444")  # whose derivative is a surrogate
IMAGES = np.random.default_rng(0).uniform(0.05, 0.95, (2, 8, 12, 3))

forward = jit(lambda operator, x: operator(x))
product = jit(lambda operator, x, v: jax.jvp(operator, (x,), (v,))[1])
pullback = jit(lambda operator, x, u: jax.vjp(operator, x)[1](u)[0])


@pytest.fixture(params=OPERATORS)
def name(request):
    return request.param


def test_its_derivatives_are_adjoint_and_those_of_differences(name, x64):
    operator, rng = OPERATORS[name], np.random.default_rng(1)
    v = rng.standard_normal(IMAGES.shape)
    jv = product(operator, IMAGES, v)
    u = rng.standard_normal(jv.shape)
    np.testing.assert_allclose(
        jnp.vdot(jv, u), jnp.vdot(v, pullback(operator, IMAGES, u)), rtol=1e-10
    )
    if name not in ROUNDED:
        up, down = (forward(operator, IMAGES + s * v) for s in (1e-7, -1e-7))
        np.testing.assert_allclose(jv, (up - down) / 2e-7, atol=1e-5)


def test_gradients_are_finite_where_it_has_edges(name):
    """At black, at white, beyond both, and at 0 amplitudes."""
    operator = OPERATORS[name]
    for value in (-0.5, 0.0, 1.0, 1.5):
        x = np.full((2, 8, 12, 3), value, np.float32)
        y = forward(operator, x)
        slope = pullback(operator, x, np.ones(y.shape, np.float32))
        assert np.isfinite(y).all() and np.isfinite(slope).all()


def test_takes_batches_keeps_dtype_and_does_not_retrace(name, x64):
    operator, traces = OPERATORS[name], []
    y = forward(operator, IMAGES)
    one = forward(operator, np.stack([IMAGES[1]] * 2))
    np.testing.assert_allclose(one[0], y[1], atol=1e-12)
    assert operator.input_shape(y.shape) == IMAGES.shape

    @jax.jit
    def apply(a, x):
        traces.append(1)
        return a(x)

    with jax.enable_x64(False):
        x = IMAGES.astype(np.float32)
        assert jax.eval_shape(apply, operator, x).dtype == jnp.float32
        jax.eval_shape(apply, jax.tree.map(lambda leaf: 0.9 * leaf, operator), x)
    assert len(traces) == 1


def test_dps_and_spectral_take_it_and_what_needs_a_linear_one_says_so(name):
    operator = OPERATORS[name]
    if operator.shape is not None:  # of another size than the toy's images
        operator = Gamma(0.5) @ jd.operators.Blur(np.full((3, 3), 1 / 9), (8, 8))
    toy = Toy(np.float32(1))
    y = np.asarray(operator(np.full((8, 8, 3), 0.4, np.float32)))
    samplers = [jd.DPS(toy, operator, y)] if name in ("phase", "hdr", "jpeg") else []
    if operator.ambiguous:
        with pytest.raises(TypeError, match="PhaseRetrieval measures the same of images"):
            jd.SpectralPosterior(toy, operator, y, 0.1, MODULATED)
    else:
        samplers.append(jd.SpectralPosterior(toy, operator, y, 0.1, MODULATED))
    for sampler in samplers:
        assert np.isfinite(jd.sample(sampler, SCHEDULE.steps(2), key=KEY)).all()
    for method in LINEAR_ONLY[:3]:
        with pytest.raises(TypeError, match=r"not linear.*DPS takes any"):
            type(make(method))(toy, operator, y, 0.1)


def test_phases_are_lost(x64):
    """The amplitudes of numpy's transform; an image turned by 180° or moved has the same."""
    x = np.random.default_rng(2).random((8, 12, 1))
    found = PhaseRetrieval(2)(x)
    padded = np.pad(x[..., 0], ((2, 2), (3, 3)))
    expected = np.fft.fftshift(np.abs(np.fft.fft2(padded, norm="ortho")))
    np.testing.assert_allclose(found[..., 0], expected, atol=1e-12)
    np.testing.assert_allclose(PhaseRetrieval(2)(x[::-1, ::-1]), found, atol=1e-12)
    assert float(jnp.linalg.norm(found)) == pytest.approx(np.linalg.norm(x))


def test_hdr_is_the_papers_in_their_units(x64):
    """DAPS clips twice an image in [-1, 1] to it."""
    x = np.random.default_rng(3).random((8, 8, 3))
    np.testing.assert_allclose(2 * HDR(2)(x) - 1, np.clip(2 * (2 * x - 1), -1, 1), atol=1e-12)
    np.testing.assert_allclose(Saturate(3.0)(x), np.minimum(3 * x, 1), atol=1e-12)
    np.testing.assert_allclose(Gamma(1 / 2.2)(x), x ** (1 / 2.2), atol=1e-12)


@pytest.mark.parametrize("quality", [5, 30, 50, 90])
@pytest.mark.parametrize("subsample", [False, True])
def test_jpeg_is_pillows(quality, subsample, photograph):
    """Equal in most pixels; where a coefficient is near a half, integer transforms round otherwise."""
    image = np.round(255 * photograph[:44, :60]).astype(np.uint8)  # which no block divides
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality, subsampling=2 if subsample else 0)
    expected = np.asarray(Image.open(file), np.float32)
    found = 255 * np.asarray(JPEG(quality, subsample)(image / np.float32(255)))
    error = np.abs(found - expected)
    assert np.abs(image - expected).mean() > 3 * error.mean(), "what is compared is the loss"
    assert error.mean() < 1 and np.median(error) < 1.1 and np.quantile(error, 0.99) < 12


def test_jpeg_passes_gradients_straight_through(x64):
    """Without chroma to halve, they are the identity where nothing clips."""
    x = np.random.default_rng(4).uniform(0.4, 0.6, (1, 16, 16, 3))
    u = np.random.default_rng(5).standard_normal(x.shape)
    np.testing.assert_allclose(pullback(JPEG(30, subsample=False), x, u), u, atol=1e-10)


@pytest.mark.parametrize(
    "make_operator, message",
    [
        (lambda: PhaseRetrieval(3), "oversample: expected an even integer"),
        (lambda: PhaseRetrieval(1.5), "oversample: expected an even integer"),
        (lambda: PhaseRetrieval(0), "oversample: expected an even integer"),
        (lambda: PhaseRetrieval(2)(np.ones((7, 8, 1))), r"multiples of 8, got 7×8: crop"),
        (lambda: HDR(0), "range: expected a finite number > 0"),
        (lambda: Saturate(-1), "gain: expected a finite number > 0"),
        (lambda: Gamma(np.inf), "exponent: expected a finite number > 0"),
        (lambda: JPEG(0), r"quality: expected 1 \(worst\) to 100"),
        (lambda: JPEG(101), "quality: expected 1"),
        (lambda: JPEG("best"), "quality: expected 1"),
        (lambda: JPEG(30)(np.ones((8, 8, 2))), "1 or 3 channels"),
    ],
)
def test_bad_operators(make_operator, message):
    with pytest.raises(ValueError, match=message):
        make_operator()
