"""EDM's network and its pickles: the same function, every tensor, and nothing executed."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jaxdiff.checkpoints.edm import is_edm, read_edm, song_from_tensors
from jaxdiff.nn.song import SongConfig
from tests.parity.reference import nchw, seeded
from tests.parity.song import DDPMPP, NCSNPP, EDMPrecond, Persistent, SongUNet, write_edm
from tests.parity.test_unet import forward_and_gradient, relative

CASES = {
    "ddpm++": DDPMPP,
    "ncsn++": NCSNPP,
    "skip": NCSNPP | dict(encoder_type="skip", decoder_type="skip", label_dim=4),
    "residual without a filter": DDPMPP | dict(encoder_type="residual", channel_mult=(2, 1), num_blocks=2),
}  # fmt: skip


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    network = seeded(EDMPrecond(**DDPMPP))
    return network, write_edm(tmp_path_factory.mktemp("edm") / "a.pkl", network)


@pytest.mark.parametrize("name", CASES)
def test_same_function_in_float64(name, tmp_path, x64):
    network = seeded(EDMPrecond(**CASES[name]))
    config, tensors, sigmas = read_edm(write_edm(tmp_path / "a.pkl", network))
    assert sigmas == {"sigma_min": 0, "sigma_max": float("inf"), "sigma_data": 0.5}
    unet = song_from_tensors(config, tensors, jnp.float64)
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((2, 8, 16, 3)), np.array([0.7, -1.3])
    labels = np.array([3, 0]) if config.label_dim else None
    weight = rng.standard_normal(x.shape)
    given = nchw(x).requires_grad_(True)
    model = network.model.double()
    out = model(given, torch.tensor(t), None if labels is None else torch.tensor(labels))
    (gradient,) = torch.autograd.grad((out * nchw(weight)).sum(), given)
    ours = forward_and_gradient(unet, x, t, labels, weight)
    assert relative(nchw(ours[0]).numpy(), out.numpy(force=True)) <= 1e-10
    assert relative(nchw(ours[1]).numpy(), gradient.numpy()) <= 1e-10


def test_every_tensor_is_the_networks(written):
    network, path = written
    assert is_edm(path)
    _, tensors, _ = read_edm(path)
    expected = {k: v for k, v in network.model.state_dict().items() if "map_augment" not in k}
    expected = {k: v for k, v in expected.items() if "resample_filter" not in k}
    assert tensors.keys() == expected.keys()
    for name, tensor in expected.items():
        np.testing.assert_array_equal(tensors[name].read(), tensor.numpy())


@pytest.mark.parametrize(
    "wiring",
    [
        dict(channel_mult=(2, 2, 2), augment_dim=9),
        dict(channel_mult=(2, 2, 2), embedding_type="fourier", encoder_type="residual",
             channel_mult_noise=2, resample_filter=(1, 3, 3, 1), augment_dim=9),
        dict(channel_mult=(2, 2, 2), label_dim=10),
    ],
    ids=["vp", "ve", "class-conditional"],
)  # fmt: skip
def test_the_published_networks_are_whole(wiring):
    """Names and shapes at edm-ffhq-64x64's size, of networks without memory."""
    from flax import nnx

    from jaxdiff.checkpoints.names import torch_name, torch_shape
    from jaxdiff.nn.abstract import abstract
    from jaxdiff.nn.song import SongUNet as Ours

    sizes = dict(img_resolution=64, model_channels=128, num_blocks=4, attn_resolutions=(16,))
    with torch.device("meta"):
        model = SongUNet(**sizes | wiring)
    theirs = {
        name: tuple(t.shape)
        for name, t in model.state_dict().items()
        if "resample_filter" not in name and "map_augment" not in name
    }
    fields = {k: v for k, v in (sizes | wiring).items() if k != "augment_dim"}
    network = abstract(lambda rngs: Ours(SongConfig(**fields), rngs=rngs))
    ours = {
        torch_name(path): torch_shape(path, p.shape)
        for path, p in nnx.to_flat_state(nnx.state(network))
    }
    assert ours == theirs


@pytest.mark.slow
def test_float32_at_the_published_size(tmp_path):
    network = seeded(EDMPrecond(**NCSNPP | dict(
        img_resolution=64, model_channels=128, channel_mult=(2, 2, 2), num_blocks=4, attn_resolutions=(16,)
    )))  # fmt: skip
    config, tensors, _ = read_edm(write_edm(tmp_path / "a.pkl", network))
    unet = song_from_tensors(config, tensors)
    x = np.random.default_rng(0).standard_normal((1, 16, 16, 3)).astype("f")
    with torch.no_grad():
        out = network.model(nchw(x), torch.tensor([0.3]))
    ours = jax.jit(type(unet).__call__)(unet, x, np.float32(0.3))
    assert relative(nchw(ours).numpy(), out.numpy()) <= 1e-5


class Runs:
    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize(
    "planted",
    [
        Runs(exec, "open('was-here', 'w')"),
        Runs(os.system, "touch was-here"),
        Runs(eval, "1"),
        Runs(getattr, {}, "items"),
        torch.nn.Conv2d(1, 1, 1),
        np.zeros(2),
    ],
    ids=lambda p: type(p).__name__,
)
def test_what_wants_code_is_refused(planted, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write_edm(tmp_path / "a.pkl", EDMPrecond(**DDPMPP), planted=planted)
    with pytest.raises(ValueError, match=r"a\.pkl: .*not allowed") as e:
        read_edm(path)
    assert "\n" not in str(e.value)
    assert [p.name for p in tmp_path.iterdir()] == ["a.pkl"]


@pytest.mark.parametrize("share", [0.001, 0.3, 0.9, 0.9999])
def test_cut_short(share, written, tmp_path):
    content = written[1].read_bytes()
    (tmp_path / "cut.pkl").write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"cut\.pkl"):
        read_edm(tmp_path / "cut.pkl")


def test_every_damage_is_refused_or_read(written, tmp_path):
    """Bytes changed, lost and added: one line, or the numbers of tensors."""
    content, path = written[1].read_bytes(), tmp_path / "a.pkl"
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(100):
        damaged = bytearray(content)
        at, count = rng.integers(len(content)), rng.integers(1, 9)
        damaged[at : at + rng.choice([0, count])] = rng.bytes(rng.choice([0, count]))
        path.write_bytes(damaged)
        try:
            _, tensors, _ = read_edm(path)
            assert all(t.read().shape == t.shape for t in tensors.values())
        except ValueError as e:
            assert str(path) in str(e) and "\n" not in str(e)
            refused += 1
    assert refused > 10


class DhariwalUNet(Persistent):
    pass


class VPPrecond(Persistent):
    pass


def test_other_networks_are_named(tmp_path):
    network = EDMPrecond(**DDPMPP)
    network.model = DhariwalUNet()
    for content, message in (
        (network, "its network is DhariwalUNet"),
        (VPPrecond(), "its preconditioning is VPPrecond"),
        (None, "no network under 'ema'"),
    ):
        with pytest.raises(ValueError, match=message):
            read_edm(write_edm(tmp_path / "a.pkl", content))


def test_arguments_and_tensors_that_differ(tmp_path):
    network = EDMPrecond(**DDPMPP)
    network.model._init_kwargs["model_channels"] = 16
    config, tensors, _ = read_edm(write_edm(tmp_path / "a.pkl", network))
    with pytest.raises(ValueError, match=r"misshapen: dec\.4x4_block0\.affine"):
        song_from_tensors(config, tensors)
    for name, value, message in (
        ("encoder_type", "deep", "encoder_type"),
        ("model_channels", "8", "model_channels"),
        ("channel_mult", [], "channel_mult"),
        ("channel_mult", [1] * 1000, "channel_mult"),
        ("num_blocks", 10**9, "num_blocks"),
        ("resample_filter", [1, 2, 1], "resample_filter"),
        ("skip_everything", True, "skip_everything: not an argument"),
    ):
        network = EDMPrecond(**DDPMPP)
        network.model._init_kwargs[name] = value
        with pytest.raises(ValueError, match=message):
            read_edm(write_edm(tmp_path / "a.pkl", network))


def test_a_module_inside_itself(tmp_path):
    network = EDMPrecond(**DDPMPP)
    network.model.enc["8x8_conv"]._modules["again"] = torch.nn.ModuleList()
    network.model.enc["8x8_conv"]._modules["again"]._modules["0"] = network.model.enc
    with pytest.raises(ValueError, match="inside itself, or there twice"):
        read_edm(write_edm(tmp_path / "a.pkl", network))


def test_modules_without_number(tmp_path):
    """Twenty levels of a thousand references to the next: a file of a megabyte."""
    network = EDMPrecond(**DDPMPP)
    inner = torch.nn.ModuleList()
    for _ in range(20):
        outer = torch.nn.ModuleList()
        outer._modules.update({str(i): inner for i in range(1000)})
        inner = outer
    network.model.enc["8x8_conv"]._modules["again"] = inner
    with pytest.raises(ValueError, match="there twice"):
        read_edm(write_edm(tmp_path / "a.pkl", network))


def test_labels_are_checked():
    config = SongConfig(img_resolution=8, model_channels=8, channel_mult=(1,), num_blocks=1, label_dim=3)  # fmt: skip
    from jaxdiff.nn.abstract import abstract
    from jaxdiff.nn.song import SongUNet as Ours

    unet = abstract(lambda rngs: Ours(config, rngs=rngs))
    with pytest.raises(ValueError, match="class_labels"):
        unet(jnp.zeros((1, 8, 8, 3)), 0.5)
    with pytest.raises(ValueError, match=r"expected \[n, H, W, 3\]"):
        unet(jnp.zeros((1, 8, 8, 1)), 0.5, np.zeros(1, int))


def nested(call: bytes) -> bytes:
    """A pickle whose call gets a tuple of itself, thirty deep: to hash it would take 2³⁰ steps."""
    deep = b"K\x01\x85" + b"q\x00h\x00\x86" * 30
    return b"\x80\x02X\x03\x00\x00\x00ema" + call.replace(b"DEEP", deep) + b"."


@pytest.mark.parametrize(
    "hostile",
    [
        nested(b"cbuiltins\nset\n]DEEPa\x85R"),
        nested(b"\x8fDEEP\x8c"),
        nested(b"\x8f(DEEP\x90"),
        nested(b"cdnnlib.util\nEasyDict\n](DEEPK\x01\x86e\x85R"),
        nested(b"}DEEPK\x01s"),
        b"\x80\x04\x8e" + (2**40).to_bytes(8, "little") + b"x.",
        b"\x80\x02ctorch.storage\n_load_from_bytes\nK\x01\x85R.",
        b"\x80\x02ctorch.nn.modules.container\nModuleDict\n)\x81K\x01b.",
        b"\x80\x02ctorch.nn.modules.container\nModuleDict\n}\x86b.",
    ],
    ids=range(9),
)
def test_what_asks_for_time_or_memory(hostile, tmp_path):
    (tmp_path / "a.pkl").write_bytes(hostile)
    with pytest.raises(ValueError, match=r"a\.pkl: "):
        read_edm(tmp_path / "a.pkl")
