"""A likelihood of one's own: a sensor that counts few photons, so that dark pixels are surer."""

import jax
import jax.numpy as jnp
import numpy as np

import jaxdiff as jd


@jd.pytree
class Photons(jd.noise.Noise):
    """y = Poisson(peak · mean)/peak."""

    peak: float

    def log_prob(self, y, mean):
        rate = self.peak * jnp.maximum(mean, 1e-3)
        return jnp.sum(self.peak * y * jnp.log(rate) - rate)

    def variance(self, mean):  # with which the spectral sampler takes it
        return jnp.maximum(mean, 1 / self.peak) / self.peak

    def draw(self, key, mean):
        counts = jax.random.poisson(key, self.peak * jnp.maximum(mean, 0))
        return counts.astype(mean.dtype) / self.peak


image = jd.data.faces()["4"]
blur = jd.operators.Blur(jd.data.gaussian_kernel(7, 1.2), (64, 64))
photons = Photons(60.0)
y = np.asarray(photons.draw(jax.random.key(0), blur(image)))

restored = jd.restore(y, blur, photons, prior="faces64", n=9)

name = "degraded: blur, 60 photons"
figure = jd.plot.posterior(restored.draws, image, before=[(name, y)], shown=2)
figure.savefig("own_likelihood.png")
