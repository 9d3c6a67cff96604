"""Images of any size: windows of a denoiser of a fixed size, margins, and the command line's canvas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import jaxdiff as jd
from jaxdiff.commands.cameras import in_grey, of_measurement, of_picture
from jaxdiff.priors import Padded, Tiled, of_size
from jaxdiff.schedules import Level

RNG = np.random.default_rng(0)
SCHEDULE = jd.Schedule.from_config()


@jd.pytree
class Pixelwise(jd.denoiser.Prior):
    """x̂₀ that no other pixel has a part in, as windows must find it."""

    weight: float
    schedule = SCHEDULE
    shape = (8, 8, 3)

    def __call__(self, x, at):
        return jnp.tanh(self.weight * x) * at.alpha


@pytest.mark.parametrize(
    "size, window, overlap", [((8, 8), 8, 2), ((9, 20), 7, 0), ((31, 17), 8, 7), ((5, 40), 12, 5)]
)
def test_windows_of_a_pixelwise_denoiser_are_the_denoiser(size, window, overlap):
    """At every pixel and time the weights sum to one, and the gradient is the same."""
    with jax.enable_x64():
        tiled = Tiled(Pixelwise(0.7), size, window, overlap)
        x = RNG.standard_normal((*size, 3))

        def loss(x, prior, t):
            x0_hat = prior(x, SCHEDULE.level(t))
            return jnp.sum(x0_hat**3), x0_hat

        both = jax.jit(jax.grad(loss, has_aux=True))
        for t in (0, 13, 500, 999):
            found, expected = both(x, tiled, t), both(x, tiled.denoiser, t)
            np.testing.assert_allclose(found[0], expected[0], atol=1e-12)
            np.testing.assert_allclose(found[1], expected[1], atol=1e-12)


def test_windows_cover_what_they_must_at_every_offset():
    tiled = Tiled(Pixelwise(0.7), (37, 64), 16, 5)
    for axis, size in enumerate((37, 64)):
        place = jax.jit(lambda t, axis=axis: tiled._axis(axis, Level(t, 1.0, 1.0)))
        for t in (*range(0, 1000, 37), -1.55, -0.3, 0.7, -1553.6):  # EDM's and consistency's too
            starts, weights, total = place(t)
            assert starts.min() == 0 and starts.max() == size - 16
            assert np.max(np.diff(np.sort(starts))) <= 16 - 5
            assert np.min(total) > 0 and weights.shape == (16,)


def test_the_grid_moves_with_the_level():
    tiled = Tiled(Pixelwise(0.7), (200, 200), 32, 8)
    second = jax.jit(lambda t: tiled._axis(0, Level(t, 1.0, 1.0))[0][1])
    firsts = {int(second(t)) for t in range(0, 1000, 50)}
    assert len(firsts) >= 10


@pytest.mark.parametrize("overlap", [-1, 8, 9])
def test_an_overlap_that_is_none(overlap):
    with pytest.raises(ValueError, match="overlap: expected pixels from 0 to 7"):
        Tiled(Pixelwise(0.7), (20, 20), 8, overlap)


def test_a_margin_is_no_part_of_the_posterior():
    """Given a picture of 6×7 of a white prior of 8×8: the posterior's mean and deviation, exactly."""
    prior = Padded(jd.priors.Gaussian(np.full((8, 8), 0.5), SCHEDULE), (6, 7), 8)
    blur = jd.operators.Blur(np.array([[0.2, 0.5, 0.3]]), (6, 7))
    truth = 0.5 + 0.3 * RNG.standard_normal((6, 7, 1))
    y = np.asarray(blur(truth)) + 0.1 * RNG.standard_normal((6, 7, 1))
    with jax.enable_x64():
        sampler = jd.SpectralPosterior(prior, blur, y, 0.1, prior.denoiser.covariance)
        steps = SCHEDULE.steps(3, spacing="trailing")
        _, draws = jd.sample(sampler, steps, key=jax.random.key(0), n=600, keep=lambda x, i: x)
        assert draws.shape == (3, 600, 8, 8, 1)
        a = np.asarray(jax.vmap(blur)(np.eye(42).reshape(42, 6, 7, 1))).reshape(42, 42).T
    # In image units the prior is N(1/2, 1/8): a quarter of the state's variance.
    gain = a.T @ np.linalg.inv(a @ a.T + 0.1**2 / 0.125 * np.eye(42))
    mean = 0.5 + gain @ (y.ravel() - a @ np.full(42, 0.5))
    found = np.asarray(draws[-1])[:, 1:7, 0:7].mean(0).ravel() / 2 + 0.5
    deviation = np.sqrt(0.125 * (1 - np.diag(gain @ a)))
    error = (found - mean) / deviation * np.sqrt(600)
    assert np.sqrt(np.mean(error**2)) < 1.3


@pytest.mark.parametrize("size", [(64, 64), (50, 70), (200, 333)])
def test_a_networks_prior_of_any_size(size):
    prior = of_size(jd.Denoiser(*jd.load("faces64")), size)
    state = jnp.zeros(prior.shape)
    assert prior.shape[0] % 8 == prior.shape[1] % 8 == 0
    assert jax.eval_shape(prior, state, 500).shape == state.shape
    assert jax.eval_shape(prior.image, state).shape == (*size, 3)
    image = RNG.random((*size, 3)).astype(np.float32)
    np.testing.assert_allclose(prior.image(prior.state(image)), image, atol=1e-6)


def test_a_prior_of_its_own_size_and_an_exact_one_stay_as_they_are():
    prior = jd.Denoiser(*jd.load("faces64"))
    exact = jd.priors.Gaussian(np.ones((4, 4)), SCHEDULE)
    assert of_size(prior, (64, 64)) is prior and of_size(exact, (9, 9)) is exact


@pytest.mark.parametrize(
    "recipe, shape, canvas",
    [
        ("blur:gaussian:9,2", (40, 50, 3), (48, 58, 3)),
        ("downsample:2", (20, 25, 3), (40, 50, 3)),
        ("downsample:2@blur:gaussian:5,1", (20, 25, 3), (44, 54, 3)),
        ("crop:4@blur:gaussian:9,2", (40, 50, 3), (48, 58, 3)),
        ("mask:0.5,1", (41, 50, 3), (41, 50, 3)),
        ("grey", (41, 50, 1), (41, 50, 3)),
    ],
)
def test_the_canvas_of_a_measurement(recipe, shape, canvas):
    camera = of_measurement(recipe, shape, "unknown")
    assert camera.canvas == canvas
    assert camera.operator(np.ones(canvas, np.float32)).shape == shape
    shown = camera.shown(np.ones(canvas, np.float32)).shape
    picture = of_measurement(recipe, shape, "circular").canvas
    assert shown == (canvas if recipe.startswith("crop") else picture)


def test_an_unknown_border_is_that_of_a_larger_scene():
    """A photograph cut from a blurred scene: the camera gives it exactly, the circular one does not."""
    kernel = jd.data.load_kernel("motion:9,3")
    scene = RNG.random((48, 58, 3)).astype(np.float32)
    photograph = jd.operators.Crop(4)(jd.operators.Blur(kernel, (48, 58))(scene))
    camera = of_measurement("blur:motion:9,3", photograph.shape, "unknown")
    (top, bottom), (left, right) = camera.operator.outer.margin
    inner = scene[4 - top : 44 + bottom, 4 - left : 54 + right]
    assert inner.shape == camera.canvas
    circular = of_measurement("blur:motion:9,3", photograph.shape, "circular").operator
    assert np.abs(circular(scene[4:44, 4:54]) - photograph).max() > 0.01
    np.testing.assert_allclose(camera.operator(inner), photograph, atol=1e-6)


def test_grey_film():
    camera = in_grey(of_picture("blur:gaussian:5,1", (16, 18, 3)))
    picture = RNG.random((16, 18, 1)).astype(np.float32)
    image = np.broadcast_to(picture, (16, 18, 3))
    np.testing.assert_allclose(camera.shown(image), picture, atol=1e-6)
    expected = jd.operators.Blur(jd.data.load_kernel("gaussian:5,1"), (16, 18))(picture)
    np.testing.assert_allclose(camera.operator(image), expected, atol=1e-6)


def test_two_pictures_of_one_size_compile_once(tmp_path, tiny, monkeypatch):
    from jaxdiff.commands import restore

    traces = []

    def counted(x, info):
        traces.append(x.shape)
        return watch(x, info)

    watch = restore.watch
    monkeypatch.setattr(restore, "watch", counted)
    for i, size in enumerate([(21, 27), (21, 27), (20, 27)]):
        Image.fromarray(RNG.integers(0, 256, (*size, 3), np.uint8)).save(tmp_path / f"{i}.png")
    settings = restore.Settings(
        "blur:gaussian:5,1", 0.05, True, "pigdm", None, 2, 2, str(tiny), 0, None, None
    )
    report = restore.restore_images(tmp_path, settings, tmp_path / "out")
    assert len(report["images"]) == 3 and not report["failed"]
    assert len(traces) == 2
    with Image.open(tmp_path / "out/0/restored.png") as restored:
        assert restored.size == (27, 21)


@pytest.mark.parametrize(
    "recipe", ["blur:gaussian:5,1", "blur-zero:gaussian:5,1", "downsample:2@varying:1"]
)
def test_a_measurement_is_not_resized_under_its_kernel(recipe, tmp_path, tiny):
    from jaxdiff.commands.restore import Settings, restore_images

    Image.fromarray(np.zeros((21, 27, 3), np.uint8)).save(tmp_path / "a.png")
    settings = Settings(recipe, 0.05, False, None, None, 2, 2, str(tiny), 0, "resize", None)
    with pytest.raises(ValueError, match="--fit: a measurement is not resized"):
        restore_images(tmp_path / "a.png", settings, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("degrade", [True, False])
def test_a_grey_picture_through_a_prior_of_colours(degrade, tmp_path, tiny):
    from jaxdiff.commands.restore import Settings, restore_images

    Image.fromarray(RNG.integers(0, 256, (20, 27), np.uint8)).save(tmp_path / "a.png")
    settings = Settings(
        "blur:gaussian:5,1", 0.05, degrade, "pigdm", None, 2, 2, str(tiny), 0, None, None
    )
    report = restore_images(tmp_path / "a.png", settings, tmp_path / "out")
    assert ("psnr_restored" in report["images"]["a"]) == degrade
    with Image.open(tmp_path / "out/restored.png") as restored:
        assert restored.mode == "L" and restored.size == (27, 20)
