"""Several devices, and several hosts through jax.distributed."""

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

T = TypeVar("T")


def join() -> None:
    """Join the other processes of a job, before anything else is asked of JAX.

    Slurm (`srun jaxdiff ...`) and Open MPI (`mpirun jaxdiff ...`) say who is who; by hand,
    JAX_COORDINATOR_ADDRESS=HOST:PORT, JAX_NUM_PROCESSES and JAX_PROCESS_ID do.

    Raises:
        ValueError: where nothing in the environment says so.
    """
    names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    address, count, number = (os.environ.get(name) for name in names)
    if address and count and number:
        jax.distributed.initialize(address, int(count), int(number))
    elif {"SLURM_PROCID", "OMPI_COMM_WORLD_RANK"} & os.environ.keys():
        jax.distributed.initialize()
    else:
        raise ValueError(f"--hosts: start with srun or mpirun, or set {', '.join(names)}")


def device_sharding(devices: int | None) -> NamedSharding | None:
    """A sharding over the first so many devices of this host, for `jd.sample`; None for one.

    Raises:
        ValueError: where there are fewer.

    Example:
        >>> device_sharding(None) is None, device_sharding(1) is None
        (True, True)
    """
    if devices is None or devices == 1:
        return None
    local = jax.local_devices()
    if len(local) < devices:
        raise ValueError(
            f"--devices: JAX sees {len(local)} ({local[0].platform}), not {devices}"
            + (
                f"; XLA_FLAGS=--xla_force_host_platform_device_count={devices} splits a CPU"
                if local[0].platform == "cpu"
                else ""
            )
        )
    return NamedSharding(Mesh(np.array(local[:devices]), ("samples",)), P("samples"))


def share(items: Sequence[T]) -> list[T]:
    """Every host's own: each item is in the share of one host."""
    return list(items[jax.process_index() :: jax.process_count()])


def first() -> bool:
    """Whether this is the host that prints, and writes what there is one of."""
    return jax.process_index() == 0


def gather(content: Any) -> list[Any]:
    """What every host calls this with, in the hosts' order; anything that JSON can say.

    All hosts wait for each other here. In `joined` a host that failed is here too.

    Raises:
        ValueError: where another host failed.
    """
    if jax.process_count() == 1:
        return [content]
    every = [json.loads(text) for text in _gather_bytes(json.dumps([_failed, content]).encode())]
    if not _failed and (others := [i for i, (failed, _) in enumerate(every) if failed]):
        raise _OtherHost(f"stopped with host {others[0]}, which says why")
    return [content for _, content in every]


def wait() -> None:
    """Until every host is here."""
    gather(None)


@contextlib.contextmanager
def joined(several: bool) -> Iterator[None]:
    """As one of several processes, or alone.

    Where one host fails within, the others do so at their next `gather`, or at the end. Without
    this they would wait for that host until JAX gives up, minutes later.
    """
    global _failed
    if several:
        join()
    try:
        yield
        wait()
    except _OtherHost:
        raise
    except Exception:
        _failed = True
        with contextlib.suppress(Exception):  # what failed here is the thing to say
            wait()
        raise


class _OtherHost(ValueError):
    """It has been told, and need not tell."""


_failed = False


def _gather_bytes(text: bytes) -> list[bytes]:
    lengths = multihost_utils.process_allgather(np.array([len(text)]))[:, 0]
    padded = np.zeros(int(lengths.max()), np.uint8)
    padded[: len(text)] = np.frombuffer(text, np.uint8)
    return [row[:n].tobytes() for row, n in zip(multihost_utils.process_allgather(padded), lengths)]
