"""Modules under the names that they had in the first release, for one release more."""

import importlib
import sys
import warnings
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec

MOVED = {
    "blocks": "nn.blocks",
    "checkpoint": "checkpoints.diffusers",
    "config": "nn.config",
    "evaluate": "commands.evaluate",
    "hosts": "util.hosts",
    "layers": "nn.layers",
    "matrices": "linalg.small_matrices",
    "model_card": "train.model_card",
    "native": "nn.native",
    "objective": "train.objective",
    "operators.linear": "operators.base",
    "operators.named": "commands.cameras",
    "platform": "util.platform",
    "pytree": "util.pytree",
    "remat": "nn.remat",
    "samplers.named": "samplers.presets",
    "schedule": "schedules",
    "stationary": "linalg.fields",
    "terminal": "cli.terminal",
    "torchfile": "checkpoints.torch_zip",
    "unet": "nn.unet",
}


class Moved(MetaPathFinder, Loader):
    """Imports `jaxdiff.OLD` as the module that it became, with a DeprecationWarning."""

    def find_spec(self, fullname, path=None, target=None):
        """Only of the names above."""
        name = fullname.removeprefix("jaxdiff.")
        return ModuleSpec(fullname, self) if fullname != name and name in MOVED else None

    def create_module(self, spec):
        """The module that it became."""
        old = spec.name.removeprefix("jaxdiff.")
        new = f"jaxdiff.{MOVED[old]}"
        warnings.warn(f"{spec.name} is {new} now", DeprecationWarning, stacklevel=2)
        return importlib.import_module(new)

    def exec_module(self, module):
        """It ran under its own name."""


def install() -> None:
    """Let old names be imported."""
    if not any(isinstance(finder, Moved) for finder in sys.meta_path):
        sys.meta_path.append(Moved())
