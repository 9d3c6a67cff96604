"""A blur whose kernel is not known."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.operators.base import Compose, Linear, LinearCompose, Operator
from jaxdiff.operators.blur import Blur
from jaxdiff.util.pytree import field, pytree, replace_leaf


def _odd(size) -> int:
    if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 3 or not size % 2:
        raise ValueError(f"size: expected an odd number of pixels ≥ 3, got {size!r}")
    return int(size)


@pytree
class UnknownBlur(Operator):
    """A circular blur by a kernel that is ≥ 0, of sum 1, in a square of pixels, and not known.

    `jd.Blind` finds it. `Crop(margin) @ UnknownBlur(size)` is that of a photograph, whose border
    got light from beyond it. Called, it blurs by `guess`.

    Args:
        size: of the square that holds the kernel: height and width in pixels, odd.

    Raises:
        ValueError: for another size.

    Example:
        >>> UnknownBlur(5)(np.ones((16, 16, 3))).shape
        (16, 16, 3)
    """

    size: int = field(default=17, static=True, converter=_odd)

    @property
    def guess(self) -> np.ndarray:
        """The kernel to begin with: a Gaussian as wide as the square allows."""
        steps = np.arange(self.size) - self.size // 2
        line = np.exp(-0.5 * (6 * steps / self.size) ** 2)
        return np.outer(line, line) / line.sum() ** 2

    @property
    def reach(self) -> tuple[int, int]:
        """From how many pixels away, in rows and in columns, a pixel may get light."""
        return self.size // 2, self.size // 2

    circular = True  # as Blur's

    def known(self, kernel, shape) -> Blur:
        """The blur by a kernel [size, size], for images of `shape` (H, W)."""
        shape = int(shape[0]), int(shape[1])
        if min(shape) < self.size:
            raise ValueError(
                f"size: a kernel of {self.size}×{self.size} is larger than the image's "
                f"{shape[0]}×{shape[1]}: name a smaller one"
            )
        before = [n // 2 - self.size // 2 for n in shape]
        padding = [(b, n - self.size - b) for b, n in zip(before, shape)]
        padded = jnp.pad(jnp.asarray(kernel), padding)
        return replace_leaf(Blur(np.ones((1, 1)), shape), kernel=padded)

    def __call__(self, x) -> jax.Array:
        return self.known(self.guess, jnp.shape(x)[-3:-1])(x)


def unknown(camera: Operator) -> UnknownBlur | None:
    """The blur of a camera whose kernel is not known, None where there is none."""
    while isinstance(camera, Compose):
        camera = camera.inner
    return camera if isinstance(camera, UnknownBlur) else None


def separated(camera: Operator, kernel, shape) -> tuple[Linear | None, Blur]:
    """(P, B) of a camera P∘B, B its unknown blur by that kernel; P is None where nothing follows."""
    if isinstance(camera, UnknownBlur):
        return None, camera.known(kernel, shape)
    assert isinstance(camera, Compose)
    outer, blur = separated(camera.inner, kernel, shape)
    last = camera.outer.linear
    return last if outer is None else LinearCompose(last, outer), blur


def with_kernel(camera: Operator, kernel, shape) -> Operator:
    """A camera whose unknown blur is by that kernel [size, size], for images of `shape` (H, W)."""
    outer, blur = separated(camera, kernel, shape)
    return blur if outer is None else outer @ blur
