"""Lights and shadows that were cut off: a camera that is not linear, and counts photons."""

import jax
import numpy as np

import jaxdiff as jd

image = jd.data.faces()["0"]
camera, photons = jd.operators.HDR(2), jd.noise.Poisson(200)
y = np.asarray(photons.draw(jax.random.key(0), camera(image)))

restored = jd.restore(y, camera, photons, prior="faces64", n=9)

figure = jd.plot.posterior(
    restored.draws, image, before=[("too hard a contrast, 200 photons", y)], shown=2
)
figure.savefig("overexposed.png")
