"""What an extra of the package brings, and a plain install lacks."""

from importlib.util import find_spec


def need(extra: str, module: str) -> None:
    """Raise, in one line that names the extra, where its module is not installed.

    Raises:
        ImportError

    Example:
        >>> need("mat", "no_such_module")
        Traceback (most recent call last):
        ImportError: no_such_module is not installed: pip install 'jaxdiff[mat]'
    """
    if find_spec(module) is None:
        raise ImportError(f"{module} is not installed: pip install 'jaxdiff[{extra}]'")
