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

# The names stand in __init__.pyi. What is behind one is imported at its first use: the command line
# answers --help and Ctrl-C before JAX is there.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
moved.install()

__version__ = "0.2.0.dev0"
