"""Seeded torch models and their inputs."""

import numpy as np
import torch
from diffusers import UNet2DModel

from jaxdiff.checkpoints.tensors import Tensor


def torch_unet(config: dict, seed: int = 0) -> UNet2DModel:
    """A model whose norms and biases are random too: at their initial values errors could hide."""
    torch.manual_seed(seed)
    model = UNet2DModel(**config).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim == 1 and name != "time_proj.weight":
                p.add_(0.2 * torch.randn_like(p))
    return model.requires_grad_(False)


def seeded(model: torch.nn.Module, seed: int = 0):
    """Any module with random norms and biases, and no weight left at 0."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, p in sorted(model.named_parameters()):
            if p.ndim == 1:
                p.add_(0.2 * torch.randn(p.shape, generator=generator))
            else:
                p.copy_(torch.randn(p.shape, generator=generator) / (p[0].numel() ** 0.5))
    return model.eval().requires_grad_(False)


def lazy(model: torch.nn.Module) -> dict[str, Tensor]:
    """A module's tensors as a checkpoint's reader gives them."""
    return {
        name: Tensor(tuple(t.shape), lambda t=t: t.detach().numpy())
        for name, t in model.state_dict().items()
    }


def nchw(array) -> torch.Tensor:
    return torch.tensor(np.asarray(array)).permute(0, 3, 1, 2).contiguous()


def inputs(config: dict, n: int = 2, seed: int = 0):
    """x [n, H, W, C], timesteps [n] and class labels, float64."""
    rng = np.random.default_rng(seed)
    size = config.get("sample_size") or 8
    h, w = (size, size) if isinstance(size, int) else size
    x = rng.standard_normal((n, h, w, config.get("in_channels", 3)))
    t = np.array([999, 37])[:n]
    labels = None
    if config.get("class_embed_type") == "identity":
        dim = config.get("time_embedding_dim") or 4 * config["block_out_channels"][0]
        labels = rng.standard_normal((n, dim))
    elif config.get("class_embed_type") == "timestep" or config.get("num_class_embeds"):
        labels = np.array([3, 7])[:n]
    return x, t, labels


def torch_forward_and_gradient(model, x, t, labels, weight):
    """The output NHWC, and the gradient to x of ⟨output, weight⟩."""
    dtype = model.dtype
    integers = model.config.time_embedding_type == "learned"
    as_time = torch.long if integers else dtype
    xt = torch.tensor(x, dtype=dtype).permute(0, 3, 1, 2).contiguous().requires_grad_(True)
    if labels is not None:
        by_number = model.config.class_embed_type is None
        labels = torch.as_tensor(labels).to(torch.long if by_number else as_time)
        if model.config.class_embed_type == "identity":
            labels = labels.to(dtype)
    out = model(xt, torch.as_tensor(t).to(as_time), class_labels=labels).sample
    out = out.permute(0, 2, 3, 1)
    (gradient,) = torch.autograd.grad((out * torch.tensor(weight, dtype=dtype)).sum(), xt)
    return out.numpy(force=True), gradient.permute(0, 2, 3, 1).numpy(force=True)
