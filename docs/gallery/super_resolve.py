"""A sixteenth of the pixels: draws that all shrink to the same thumbnail."""

import numpy as np

import jaxdiff as jd

image = jd.data.faces()["1"]
smaller = jd.operators.Downsample(4)
sigma = 2 / 255
thumbnail = np.asarray(smaller(image))
y = thumbnail + sigma * np.random.default_rng(0).standard_normal(thumbnail.shape)

restored = jd.restore(y, smaller, sigma, prior="faces64", n=9)

figure = jd.plot.posterior(
    restored.draws, image, before=[jd.plot.degraded(smaller, y, sigma)], shown=2
)
figure.savefig("super_resolve.png")
