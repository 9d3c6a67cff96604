"""Restore images with a diffusion prior, in JAX.

>>> import jax, jaxdiff as jd
>>> unet, schedule = jd.load("faces64")
>>> denoiser = jd.Denoiser(unet, schedule)
>>> faces = jd.sample(jd.DDPM(denoiser), schedule.steps(2), key=jax.random.key(0), n=4)
>>> faces.shape
(4, 64, 64, 3)
"""

import lazy_loader

from jaxdiff.util import moved

# The public names and where they are stand in __init__.pyi; each is imported at its first use.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = "0.2.0.dev0"

moved.install()
