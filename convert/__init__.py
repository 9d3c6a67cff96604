"""Weight porting that needs torch and diffusers: `python -m convert SRC DST --verify`.

The reading and writing itself is `jaxdiff.checkpoints`, which needs neither.
"""
