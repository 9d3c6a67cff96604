"""Missing pixels: what was seen stays, the rest is drawn."""

import numpy as np

import jaxdiff as jd

image = jd.data.faces()["0"]
mask = jd.operators.Mask(np.random.default_rng(0).random((64, 64)) < 0.3)
sigma = 5 / 255
noise = np.random.default_rng(1).standard_normal(image.shape)
y = np.asarray(mask.project(image + sigma * noise))

restored = jd.restore(y, mask, sigma, prior="faces64", n=9)

figure = jd.plot.posterior(
    restored.draws, image, before=[jd.plot.degraded(mask, y, sigma)], shown=2
)
figure.savefig("inpaint.png")
