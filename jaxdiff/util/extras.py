"""What an extra of the package brings, and a plain install lacks."""

from importlib.util import find_spec


def need(extra: str, *modules: str) -> None:
    """Raise, in one line that names the extra, where one of its modules is not installed.

    Raises:
        ImportError

    Example:
        >>> need("mat", "no_such_module")
        Traceback (most recent call last):
        ImportError: no_such_module is not installed: pip install 'jaxdiff[mat]'
    """
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise ImportError(
            f"{' and '.join(missing)} {verb} not installed: pip install 'jaxdiff[{extra}]'"
        )
