"""How long a command took, compiling apart from running."""

import functools
import time

import jax

_spans: list[tuple[float, float]] = []  # of tracing and compiling, none within another


@functools.cache
def _listen() -> None:
    """JAX says of each trace, lowering and compilation, when it is over, how long it took."""

    def heard(event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event.startswith("/jax/core/compile/"):
            end = time.perf_counter()
            start = end - duration_secs
            while _spans and _spans[-1][0] >= start:  # happened within this one
                _spans.pop()
            _spans.append((start, end))

    jax.monitoring.register_event_duration_secs_listener(heard)


class Seconds:
    """Counts from its creation.

    Example:
        >>> seconds = Seconds()
        >>> _ = jax.jit(lambda x: x + 1)(1.0)
        >>> seconds.compiling() <= seconds.total()
        True
    """

    def __init__(self) -> None:
        _listen()
        self._start = time.perf_counter()

    def total(self) -> float:
        """Seconds since then."""
        return time.perf_counter() - self._start

    def compiling(self) -> float:
        """How many of them JAX traced and compiled, or read compiled programs from disk."""
        return sum(end - max(start, self._start) for start, end in _spans if end > self._start)

    def report(self) -> dict[str, float]:
        """All three, rounded, as they stand in metrics.json."""
        total, compiling = self.total(), self.compiling()
        parts = {"seconds": total, "seconds_compiling": compiling}
        parts["seconds_running"] = max(total - compiling, 0.0)
        return {name: round(value, 2) for name, value in parts.items()}
