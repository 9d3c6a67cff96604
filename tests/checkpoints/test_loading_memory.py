"""Weights are copied once on their way from a file to JAX, and nothing is drawn for their shapes."""

import tracemalloc

import jax
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

import jaxdiff as jd
from jaxdiff.checkpoints.diffusers import check_finite, filled, network_from_tensors
from jaxdiff.checkpoints.names import torch_name, torch_shape
from jaxdiff.checkpoints.weights import open_file
from jaxdiff.nn.unet import abstract_unet

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("source", [np.float32, np.float16, np.float64])
@pytest.mark.parametrize("shape", [(), (3,), (0, 4), (5, 37), (33, 20, 3, 3)])
def test_a_tensor_is_copied_where_jax_takes_it_over(shape, source):
    found = np.asarray(RNG.standard_normal(shape)).astype(source).transpose()
    array = filled(found, np.float32)
    np.testing.assert_array_equal(array, found.astype(np.float32))
    assert array.flags.c_contiguous and array.dtype == np.float32
    if array.size and jax.default_backend() == "cpu":
        assert jax.device_put(array).unsafe_buffer_pointer() == array.ctypes.data


def test_large_numbers_whose_sum_is_none_are_weights():
    """It is the numbers that have to be finite, and one that is not is found."""
    large = np.full((3, 3), 3e38, np.float32)
    check_finite("large", large)
    for bad in (np.nan, np.inf, -np.inf):
        with pytest.raises(ValueError, match="bad: holds NaN or infinite values in float32"):
            check_finite("bad", np.where(np.eye(3) > 0, bad, large).astype(np.float32))


def test_loading_takes_one_copy_of_the_weights(tmp_path):
    """numpy makes it, and JAX holds that very memory: were it copied, numpy's would be gone."""
    config = jd.UNet2DConfig(
        sample_size=32,
        block_out_channels=(256, 512),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )
    network = abstract_unet(config)
    params = nnx.to_flat_state(nnx.state(network))
    path = tmp_path / "weights.safetensors"
    save_file(
        {
            torch_name(p): np.full(torch_shape(p, leaf.shape), 0.01, np.float32)
            for p, leaf in params
        },
        path,
    )
    tensors = open_file(path)
    tracemalloc.start()
    try:
        with jax.default_device(jax.devices("cpu")[0]):
            found = network_from_tensors(network, tensors, np.float32)
            jax.block_until_ready(jax.tree.leaves(found))
        held, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    size = path.stat().st_size
    assert size > 1e8
    assert size <= held + 2**20 and most <= 1.02 * size
