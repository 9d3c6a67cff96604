"""A shaken camera: a portrait at 128×128, by a prior that was trained at 64×64."""

import numpy as np

import jaxdiff as jd

image = jd.data.example(128)
blur = jd.operators.Blur(jd.data.motion_kernel(17, seed=0), (128, 128))
sigma = 10 / 255
y = np.asarray(blur(image)) + sigma * np.random.default_rng(0).standard_normal(image.shape)

prior = jd.Denoiser(*jd.load("faces64"))  # convolutions and attention take any size
table = jd.SpectralCovariance.load("faces64")
restored = jd.restore(
    y, blur, sigma, prior=prior, covariance=table, sampler="spectral-jacobian", n=9
)

panels = [
    jd.plot.degraded(blur, y, sigma),
    ("Wiener filter", jd.wiener(y, blur, sigma)),
    ("one draw", restored.draws[0]),
    ("mean of nine draws", restored.mean),
]
figure = jd.plot.comparison([jd.plot.scored(*panel, image) for panel in panels], restored.std)
figure.savefig("deblur.png")
