"""Which of diffusers' schedulers describe the noise of a DDPM: x_t = √ᾱ_t·x₀ + √(1 − ᾱ_t)·ε."""

from collections.abc import Mapping
from typing import Any

# Samplers for a network that was trained on DDPM's table of β, which their configs hold.
DDPM_FAMILY = (
    "DDPMScheduler",
    "DDPMParallelScheduler",
    "DDIMScheduler",
    "DDIMInverseScheduler",
    "DDIMParallelScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepInverseScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSDEScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "RePaintScheduler",
    "SASolverScheduler",
    "UniPCMultistepScheduler",
)
# Whose β, where their config does not say, are not DDPM's.
_OTHER_BETAS = (
    "DPMSolverSDEScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
)


def check_family(config: Mapping[str, Any]) -> dict[str, Any]:
    """A `scheduler_config.json` of `DDPM_FAMILY` in DDPM's own fields.

    A config without `_class_name` is DDPM's. Fields that choose where a sampler steps, such as
    `use_karras_sigmas`, say nothing about the network and stay as they are.

    Raises:
        ValueError: for a config that says it is of another noise all the same.

    Example:
        >>> check_family({"_class_name": "PNDMScheduler", "beta_end": 0.02})["beta_end"]
        0.02
        >>> check_family({"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": True})
        Traceback (most recent call last):
        ValueError: use_flow_sigmas: the noise of flow matching is not that of a DDPM
    """
    if config.get("use_flow_sigmas", False) is not False:
        raise ValueError("use_flow_sigmas: the noise of flow matching is not that of a DDPM")
    if config.get("timestep_type", "discrete") != "discrete":
        raise ValueError("timestep_type: expected 'discrete', timesteps that count DDPM's steps")
    if config.get("_class_name") in _OTHER_BETAS and config.get("trained_betas") is None:
        if missing := [k for k in ("beta_start", "beta_end", "beta_schedule") if k not in config]:
            raise ValueError(
                f"{', '.join(missing)}: not there, and a {config['_class_name']} has no β of DDPM's"
            )
    # The solvers have no variance type: null.
    return {k: v for k, v in config.items() if not (k == "variance_type" and v is None)}
