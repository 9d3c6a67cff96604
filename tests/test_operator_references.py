"""Operators against what others take them for: scipy, scikit-image, numpy, MATLAB's documentation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from skimage.transform import radon

import jaxdiff as jd
from jaxdiff.linalg.fields import Stationary
from jaxdiff.operators import (
    Blur,
    CompressedSensing,
    Crop,
    Demosaic,
    Diagonal,
    Downsample,
    Fourier,
    Grey,
    Inpaint,
    Mask,
    Outpaint,
    Radon,
    Scale,
    SpaceVaryingBlur,
)
from jaxdiff.samplers.system import System
from jaxdiff.util.platform import jit

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("boundary, mode", [("reflect", "mirror"), ("zero", "constant")])
@pytest.mark.parametrize("size", [(3, 3), (4, 6), (9, 10)])
def test_a_border_is_scipys(boundary, mode, size, x64):
    """scipy calls numpy's "reflect" "mirror", and centres a kernel of even size where we do."""
    kernel, x = RNG.random(size), RNG.random((9, 10))
    found = Blur(kernel, (9, 10), boundary=boundary)(x[..., None])[..., 0]
    np.testing.assert_allclose(found, ndimage.convolve(x, kernel, mode=mode), atol=1e-12)


SYSTEMS = {
    "reflect": lambda: Blur(RNG.random((3, 4)), (6, 7), boundary="reflect"),
    "zero": lambda: Blur(RNG.random((3, 4)), (6, 7), boundary="zero"),
    "varying": lambda: SpaceVaryingBlur(
        [RNG.random((3, 4)), np.ones((1, 1))], RNG.random((2, 6, 7)), (6, 7)
    ),
    "weighted mask of a bordered blur": lambda: (
        Diagonal(RNG.uniform(0.3, 1, (6, 7, 1)))
        @ Mask(RNG.random((6, 7)) < 0.7)
        @ SYSTEMS["zero"]()
    ),
    "sensing of a blur": lambda: CompressedSensing(2, (6, 7)) @ Blur(RNG.random((3, 3)), (6, 7)),
    "scan": lambda: Fourier(RNG.random((6, 7)) < 0.5),
    "radon": lambda: Radon(5, (6, 7)),
    "blur of a crop": lambda: Blur(RNG.random((3, 3)), (4, 5)) @ Crop(1),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_spectral_system_of_what_is_no_filter_is_its_own(name, x64):
    """(BΣBᵀ + σ²I)⁻¹ against dense matrices, also of what no image gives, whatever preconditions it."""
    operator = SYSTEMS[name]() @ Scale(0.5)
    power = np.abs(np.fft.rfft2(RNG.standard_normal((6, 7)))) ** 2 / 42 + 0.1
    prior = Stationary(jnp.asarray(power[..., None, None]))
    r = operator.project(RNG.standard_normal(operator(np.zeros((6, 7, 1))).shape))

    @jit
    def solved(operator, prior, r):
        system = System(operator, prior, jnp.asarray(0.01), (6, 7, 1))
        unit = jnp.eye(42).reshape(42, 6, 7, 1)
        return system.solve(system.enter(r)), jax.vmap(operator)(unit), jax.vmap(prior.apply)(unit)

    (found, report), *matrices = solved(operator, prior, r)
    b, sigma = (np.asarray(m).reshape(42, -1).T for m in matrices)
    expected = np.linalg.solve(b @ sigma @ b.T + 0.01 * np.eye(len(b)), np.ravel(r))
    assert report["cg_converged"]
    np.testing.assert_allclose(found.ravel(), expected, atol=1e-7 * np.abs(expected).max())


SPECTRAL = {
    "blur": lambda: Blur(RNG.random((3, 4)), (4, 6)),
    "mask": lambda: Mask(RNG.random((4, 6)) < 0.5),
    "crop": lambda: Crop(1),
    "downsample": lambda: Downsample(2, "bicubic"),
    "grey": lambda: Grey(),
    "scale": lambda: Scale(0.7),
    "states": lambda: Downsample(2) @ Scale(0.5),
    "matlab": lambda: Downsample(2, "matlab"),
    "demosaic": lambda: Demosaic(),
    "fourier": lambda: Fourier(RNG.random((4, 6)) < 0.5),
    "weighted-mask": lambda: Diagonal(RNG.random((4, 6, 3))) @ Mask(RNG.random((4, 6)) < 0.5),
}


@pytest.mark.parametrize("name", SPECTRAL)
def test_spectral_functions(name, x64):
    """f(AᵀA) against the eigenvectors of the matrix, for an f that is not 0 at 0."""
    operator, shape = SPECTRAL[name](), (4, 6, 3)
    x = jnp.asarray(RNG.standard_normal(shape))
    matrix = np.asarray(jax.vmap(operator)(jnp.eye(72).reshape(72, *shape))).reshape(72, -1)
    values, vectors = np.linalg.eigh(matrix @ matrix.T)
    expected = vectors @ (np.cos(3 * values) * (vectors.T @ x.ravel()))
    found = operator.spectral(lambda e: jnp.cos(3 * e), x)
    np.testing.assert_allclose(found.ravel(), expected, atol=1e-10)


def imresize(size, factor):
    """The matrix that MATLAB documents: an antialiased cubic of an image that is mirrored."""

    def cubic(t):
        t = abs(t)
        near, far = 1.5 * t**3 - 2.5 * t**2 + 1, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
        return near if t <= 1 else far if t <= 2 else 0

    matrix = np.zeros((size // factor, size))
    for i, row in enumerate(matrix):
        middle = (i + 0.5) * factor - 0.5
        places = range(int(middle - 2 * factor) - 1, int(middle + 2 * factor) + 3)
        weights = np.array([cubic((middle - j) / factor) for j in places])
        for j, weight in zip(places, weights / weights.sum()):
            j %= 2 * size
            row[min(j, 2 * size - 1 - j)] += weight
    return matrix


@pytest.mark.parametrize("size, factor", [((16, 24), 4), ((8, 4), 2), ((6, 9), 3)])
def test_bicubic_is_pillows_and_matlab_is_matlabs(size, factor, x64):
    """They differ at the border, and there alone."""
    x = RNG.random(size).astype(np.float32)
    bicubic, matlab = (Downsample(factor, m)(x[..., None])[..., 0] for m in ("bicubic", "matlab"))
    small = [size[1] // factor, size[0] // factor]
    pillow = Image.fromarray(x).resize(small, Image.Resampling.BICUBIC)
    np.testing.assert_allclose(bicubic, np.asarray(pillow), atol=1e-6)
    expected = imresize(size[0], factor) @ x @ imresize(size[1], factor).T
    np.testing.assert_allclose(matlab, expected, atol=1e-6)
    assert float(jnp.abs(matlab - bicubic).max()) > 1e-3
    np.testing.assert_allclose(matlab[2:-2, 2:-2], bicubic[2:-2, 2:-2], atol=1e-6)


@pytest.mark.parametrize("shape", [(16, 16), (15, 15), (16, 11)])
def test_radon_is_scikit_images(shape, x64):
    """Of any angles, in its units: pixels, of which we count the longer side as one."""
    angles, x = np.array([0.0, 17, 45, 90, 123.4, 200]), RNG.random(shape)
    found = Radon(angles, shape)(x[..., None])[..., 0]
    expected = radon(x, angles, circle=False).T / max(shape)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_radon_of_a_disc_is_its_chords(x64):
    down, right = np.mgrid[:64, :64] - 32
    disc = (down**2 + right**2 <= 20**2).astype(float)
    found = np.asarray(Radon(4, (64, 64))(disc[..., None]))[..., 0]
    place = np.arange(91) - 45
    chords = 2 * np.sqrt(np.maximum(20.25**2 - place**2, 0)) / 64
    assert np.abs(found - chords).mean() < 0.01 * chords.max()


def test_fourier_is_numpys_masked_in_the_middle(x64):
    x, mask = RNG.random((8, 7, 2)), RNG.random((8, 7)) < 0.5
    spectrum = np.fft.fftshift(np.fft.fft2(x, axes=(0, 1), norm="ortho"), (0, 1)) * mask[..., None]
    found = np.asarray(Fourier(mask)(x)).reshape(8, 7, 2, 2)
    np.testing.assert_allclose(found[..., 0] + 1j * found[..., 1], spectrum, atol=1e-12)
    whole = Fourier(np.ones((8, 7)))
    np.testing.assert_allclose(whole.adjoint(whole(x)), x, atol=1e-12)


def test_lines_of_a_scan():
    """A fourth of the columns, with all of the middle 8 %; another seed, other columns."""
    scan = Fourier.lines(4, (64, 64))
    columns = scan.mask[0]
    assert (scan.mask == columns).all() and columns.sum() == 16 and columns[30:35].all()
    assert (Fourier.lines(4, (64, 64), seed=1).mask != scan.mask).any()


def test_demosaic_takes_the_colour_of_each_filter():
    x = RNG.random((4, 6, 3))
    y = np.asarray(Demosaic("GBRG")(x))[..., 0]
    for (row, column), colour in {(0, 0): 1, (0, 1): 2, (1, 0): 0, (1, 1): 1}.items():
        np.testing.assert_allclose(y[row::2, column::2], x[row::2, column::2, colour], rtol=1e-6)


def test_one_kernel_everywhere_is_a_blur(x64):
    kernels, x = [RNG.random((3, 3)), RNG.random((4, 5))], RNG.random((8, 9, 3))
    ones, zeros = np.ones((8, 9)), np.zeros((8, 9))
    for kernel, weights in zip(kernels, ([ones, zeros], [zeros, ones])):
        found = SpaceVaryingBlur(kernels, weights, (8, 9))(x)
        np.testing.assert_allclose(found, Blur(kernel, (8, 9))(x), atol=1e-12)
    point = np.zeros((8, 9, 1))
    point[4, 4] = 1
    spread = SpaceVaryingBlur(kernels, [0.3 * ones, 0.7 * ones], (8, 9))(point)
    mean = 0.3 * Blur(kernels[0], (8, 9))(point) + 0.7 * Blur(kernels[1], (8, 9))(point)
    np.testing.assert_allclose(spread, mean, atol=1e-12)


def test_compressed_sensing_keeps_what_a_random_image_has(x64):
    """AAᵀ = I, and of the energy a share of 1/factor on average."""
    camera, x = CompressedSensing(4, (32, 32)), RNG.standard_normal((32, 32, 3))
    y = camera(x)
    np.testing.assert_allclose(camera(camera.adjoint(y)), y, atol=1e-12)
    assert float(jnp.sum(y**2) / np.sum(x**2)) == pytest.approx(1 / 4, rel=0.15)
    assert (CompressedSensing(4, (32, 32), seed=1).rows != camera.rows).any()


def test_boxes():
    known = np.ones((6, 8))
    known[1:3, 2:6] = 0
    np.testing.assert_array_equal(Inpaint((1, 2, 2, 4), (6, 8)).mask[..., 0], known)
    np.testing.assert_array_equal(Outpaint((1, 2, 2, 4), (6, 8)).mask[..., 0], 1 - known)
    known[5, 0] = 0
    both = Inpaint([(1, 2, 2, 4), (5, 0, 1, 1)], (6, 8))
    np.testing.assert_array_equal(both.mask[..., 0], known)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Blur(np.ones((3, 3)), (8, 8), boundary="edge"), "boundary: expected one of circular"),
        (lambda: Blur(np.ones((3, 3)), (8, 8), boundary="zero")(np.ones((8, 9, 1))), "expected"),
        (lambda: Inpaint((0, 0, 8, 8), (8, 8)), "hides every pixel"),
        (lambda: Inpaint((4, 4, 5, 2), (8, 8)), "not within an image of 8×8"),
        (lambda: Inpaint((4, 4, 0, 2), (8, 8)), "not within"),
        (lambda: Outpaint((1, 2, 3), (8, 8)), r"expected \(top, left, height, width\)"),
        (lambda: Outpaint((0.5, 2, 3, 3), (8, 8)), r"expected \(top, left, height, width\)"),
        (lambda: Demosaic("RGB"), "pattern: expected RGGB"),
        (lambda: Demosaic()(np.ones((8, 8, 1))), "3 channels"),
        (lambda: Fourier(np.zeros((8, 8))), "mask: measures no frequency"),
        (lambda: Fourier(np.full((8, 8), 0.5)), "mask: expected"),
        (lambda: Fourier(np.ones((8, 8)), np.ones((2, 8, 9))), "coils: expected finite"),
        (lambda: Fourier.lines(1, (8, 8)), "factor: expected an integer from 2 to 8"),
        (lambda: Fourier.lines(0, (8, 8)), "factor: expected"),
        (lambda: Radon(0, (8, 8)), "angles: expected degrees"),
        (lambda: Radon([], (8, 8)), "angles: expected degrees"),
        (lambda: Radon([0, np.nan], (8, 8)), "angles: hold NaN"),
        (lambda: Radon(3, (8, 8))(np.ones((9, 8, 1))), "expected images of"),
        (lambda: CompressedSensing(0, (8, 8)), "factor: expected an integer from 1 to 64"),
        (lambda: CompressedSensing(65, (8, 8)), "factor: expected an integer from 1 to 64"),
        (lambda: SpaceVaryingBlur([np.ones((2, 2))], np.ones((2, 8, 8)), (8, 8)), "weights: expected"),
        (lambda: SpaceVaryingBlur([np.ones((2, 2))], -np.ones((1, 8, 8)), (8, 8)), "≥ 0"),
        (lambda: SpaceVaryingBlur([np.ones((9, 2))], np.ones((1, 8, 8)), (8, 8)), "larger than"),
        (lambda: jd.operators.Diagonal(np.zeros((8, 8, 1))), "leaves nothing"),
        (lambda: jd.operators.Diagonal(np.ones((8, 8))), r"weights: expected finite numbers \[H, W, C\]"),
    ],
)  # fmt: skip
def test_bad_operators(make, message):
    with pytest.raises(ValueError, match=message):
        make()
