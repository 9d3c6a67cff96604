"""A camera of one's own: a lens that darkens the corners, behind a blur."""

import jax.numpy as jnp
import numpy as np

import jaxdiff as jd


@jd.pytree
class Vignette(jd.operators.Linear):
    """Each pixel times its weight; adjoint, solve and pseudo-inverse follow by themselves."""

    weights: np.ndarray  # [H, W, 1]

    def __call__(self, x):
        return x * jnp.asarray(self.weights, x.dtype)


image = jd.data.faces()["3"]
rows, columns = np.mgrid[-1:1:64j, -1:1:64j]
lens = Vignette(np.exp(-(rows**2 + columns**2))[..., None])
blur = jd.operators.Blur(jd.data.gaussian_kernel(7, 1.2), (64, 64))
camera = lens @ blur
sigma = 5 / 255
y = np.asarray(camera(image)) + sigma * np.random.default_rng(0).standard_normal(image.shape)

restored = jd.restore(y, camera, sigma, prior="faces64", n=9)

figure = jd.plot.posterior(
    restored.draws, image, before=[jd.plot.degraded(camera, y, sigma)], shown=2
)
figure.savefig("own_operator.png")
