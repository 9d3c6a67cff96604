"""Colours for a grey picture: where the draws differ, nobody can know."""

import numpy as np

import jaxdiff as jd

image = jd.data.faces()["2"]
grey = jd.operators.Grey()
sigma = 2 / 255
clean = np.asarray(grey(image))
y = clean + sigma * np.random.default_rng(0).standard_normal(clean.shape)

restored = jd.restore(y, grey, sigma, prior="faces64", n=9)

figure = jd.plot.posterior(restored.draws, image, before=[jd.plot.degraded(grey, y, sigma)])
figure.savefig("colourise.png")
