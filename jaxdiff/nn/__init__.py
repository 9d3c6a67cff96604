"""The network: diffusers' UNet2DModel in flax.nnx, and what makes it fast."""
