"""Compression."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy

from jaxdiff.operators.base import Operator
from jaxdiff.util.arrays import Number, as_number
from jaxdiff.util.pytree import field, pytree, static

# ITU-T T.81, annex K: what may be lost of each frequency of an 8×8 block.
LUMA = np.array([
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55,
    14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
]).reshape(8, 8)  # fmt: skip
CHROMA = np.full((8, 8), 99)
CHROMA[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]
YCBCR = np.array([  # JFIF: of RGB in 0 to 255, less 128
    [0.299, 0.587, 0.114],
    [-0.168735892, -0.331264108, 0.5],
    [0.5, -0.418687589, -0.081312411],
])  # fmt: skip
DCT = scipy.fft.dct(np.eye(8), axis=0, norm="ortho")


@pytree
class JPEG(Operator):
    """A(x): the image as JPEG gives it back: 8×8 cosine transforms, rounded to a table's multiples.

    Colours and pixels are rounded to 8 bits where a codec does so. The surrogate gradient takes each
    rounding for the identity (straight through), so that the derivative is that of the colour
    transform, the halved chroma and the clipping to [0, 1] alone.

    Args:
        quality: 1 to 100, which scales the tables of the standard's annex K as libjpeg does.
        subsample: whether the chroma has half the sides (4:2:0, usual) or all (4:4:4).

    Raises:
        ValueError: for another quality or, at the call, images of neither 1 nor 3 channels.

    Source: ITU-T T.81; libjpeg's triangle filter to enlarge the chroma. Bengio et al. 2013 (arXiv
    1308.3432) for the gradient.

    Example:
        >>> JPEG(30)(np.ones((20, 12, 3))).shape
        (20, 12, 3)
    """

    quality: Number = field(
        default=30,
        converter=as_number(
            "quality", "1 (worst) to 100 (best), such as 30", lambda value: 1 <= value <= 100
        ),
    )
    subsample: bool = static(default=True)

    def _table(self, base, dtype):
        quality = jnp.asarray(self.quality, dtype)
        scale = jnp.where(quality < 50, 5000 / quality, 200 - 2 * quality)
        return jnp.clip(jnp.floor((jnp.asarray(base, dtype) * scale + 50) / 100), 1, 255)

    def __call__(self, x) -> jax.Array:
        """A(x)."""
        x = jnp.asarray(x)
        height, width, channels = x.shape[-3:]
        if channels not in (1, 3):
            raise ValueError(f"expected an image of 1 or 3 channels, got {list(x.shape)}")
        margins = [(0, -height % 16), (0, -width % 16)]
        margins = [(0, 0)] * (x.ndim - 3) + margins + [(0, 0)]
        levels = _round(255 * jnp.pad(jnp.clip(x, 0, 1), margins, mode="edge"))
        planes = levels @ jnp.asarray(YCBCR.T, x.dtype) if channels == 3 else levels
        planes = _round(planes) - jnp.asarray([128, 0, 0][:channels], x.dtype)
        luma, chroma = planes[..., :1], planes[..., 1:]
        planes = _coded(luma, self._table(LUMA, x.dtype))
        if channels == 3:
            chroma = _halved(chroma) if self.subsample else chroma
            chroma = _coded(chroma, self._table(CHROMA, x.dtype))
            chroma = _doubled(chroma) if self.subsample else chroma
            planes = jnp.concatenate([planes, chroma], -1)
        planes += jnp.asarray([128, 0, 0][:channels], x.dtype)
        levels = planes @ jnp.asarray(np.linalg.inv(YCBCR).T, x.dtype) if channels == 3 else planes
        return jnp.clip(_round(levels[..., :height, :width, :]) / 255, 0, 1)


def _coded(plane, table):
    """Its blocks' transforms, rounded to multiples of the table, and back."""
    *batch, height, width, channels = plane.shape
    blocks = plane.reshape(*batch, height // 8, 8, width // 8, 8, channels)
    dct = jnp.asarray(DCT, plane.dtype)
    spectrum = jnp.einsum("ui,vj,...aibjc->...abcuv", dct, dct, blocks, precision="highest")
    rounded = table * _round(spectrum / table)
    blocks = jnp.einsum("ui,vj,...abcuv->...aibjc", dct, dct, rounded, precision="highest")
    return _round(blocks.reshape(plane.shape))


def _round(x):
    """The nearest whole number, with the gradient of the identity."""
    return x + jax.lax.stop_gradient(jnp.round(x) - x)


def _halved(plane):
    """The means of 2×2 pixels."""
    *batch, height, width, channels = plane.shape
    return _round(plane.reshape(*batch, height // 2, 2, width // 2, 2, channels).mean((-4, -2)))


def _doubled(plane):
    """Twice the sides: each pixel is three quarters of the nearest and one of the next."""
    for axis in (-3, -2):
        last = plane.shape[axis] - 1
        places = np.arange(last + 1, dtype=np.int32)
        shifted = np.maximum(places - 1, 0), np.minimum(places + 1, last)
        near = [(3 * plane + jnp.take(plane, i, axis)) / 4 for i in shifted]
        size = list(plane.shape)
        size[axis] *= 2
        plane = jnp.stack(near, axis).reshape(size)
    return plane
