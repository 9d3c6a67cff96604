"""EDM's network in torch, written from its papers, and pickles as EDM writes them.

Source: Karras et al. 2022 (arXiv 2206.00364), appendix C.2, figures of DDPM++ and NCSN++ after
Song et al. 2021 (arXiv 2011.13456); the names of modules are those of its checkpoints.
"""

import contextlib
import math
import pickle
import sys
from types import ModuleType
from unittest import mock

import torch
from torch import nn
from torch.nn import functional as F

SOURCE = "raise AssertionError('this ran')\n" + "#" * 40_000


def _reconstruct_persistent_obj(meta):
    raise AssertionError("a reader that runs this would run the stored source")


class EasyDict(dict):
    pass


class Persistent(nn.Module):
    """Pickled as the name of its class, its state and source text."""

    def __init__(self, **kwargs):
        super().__init__()
        self._init_args, self._init_kwargs = (), EasyDict(kwargs)

    def __reduce__(self):
        meta = dict(type="class", version=6, module_src=SOURCE, class_name=type(self).__name__, state=self.__dict__)  # fmt: skip
        return _reconstruct_persistent_obj, (meta,)


@contextlib.contextmanager
def edm_modules():
    """The modules that EDM's pickles name, while one is written."""
    persistence, util = ModuleType("torch_utils.persistence"), ModuleType("dnnlib.util")
    persistence._reconstruct_persistent_obj = _reconstruct_persistent_obj
    util.EasyDict = EasyDict
    known = {m.__name__: m for m in (persistence, util)}
    known |= {name: ModuleType(name) for name in ("torch_utils", "dnnlib")}
    with (
        mock.patch.dict(sys.modules, known),
        mock.patch.object(_reconstruct_persistent_obj, "__module__", "torch_utils.persistence"),
        mock.patch.object(EasyDict, "__module__", "dnnlib.util"),
    ):
        yield


def write_edm(path, network, **others):
    with edm_modules():
        content = dict(
            ema=network, loss_fn=Linear(2, 2), augment_pipe=None,
            dataset_kwargs=EasyDict(path="faces.zip", xflip=False), **others,
        )  # fmt: skip
        path.write_bytes(pickle.dumps(content))
    return path


class Linear(Persistent):
    def __init__(self, ins, outs, bias=True):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outs, ins))
        self.bias = nn.Parameter(torch.zeros(outs)) if bias else None

    def forward(self, x):
        return F.linear(x, self.weight, self.bias)


class GroupNorm(Persistent):
    def __init__(self, channels):
        super().__init__()
        self.groups = min(32, channels // 4)
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x):
        return F.group_norm(x, self.groups, self.weight, self.bias, 1e-6)


class Conv2d(Persistent):
    """A filter that doubles or halves, a convolution, or one after the other (`after`)."""

    def __init__(self, ins, outs, kernel, up=False, down=False, taps=(1, 1), after=False):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outs, ins, kernel, kernel)) if kernel else None
        self.bias = nn.Parameter(torch.zeros(outs)) if kernel else None
        taps = torch.tensor(taps, dtype=torch.float32)
        whole = torch.outer(taps, taps) / taps.sum() ** 2
        self.register_buffer("resample_filter", whole[None, None] if up or down else None)
        self.up, self.down, self.after = up, down, after

    def forward(self, x):
        pad = 0 if self.weight is None else self.weight.shape[-1] // 2
        if self.resample_filter is not None:
            own = (self.resample_filter.shape[-1] - 1) // 2
        if self.after:
            return self._halve(F.conv2d(x, self.weight, self.bias, padding=pad + own), 0)
        if self.up:
            taps = 4 * self.resample_filter.repeat(x.shape[1], 1, 1, 1)
            x = F.conv_transpose2d(x, taps, stride=2, padding=own, groups=x.shape[1])
        if self.down:
            x = self._halve(x, own)
        return x if self.weight is None else F.conv2d(x, self.weight, self.bias, padding=pad)

    def _halve(self, x, pad):
        taps = self.resample_filter.repeat(x.shape[1], 1, 1, 1)
        return F.conv2d(x, taps, stride=2, padding=pad, groups=x.shape[1])


class UNetBlock(Persistent):
    def __init__(self, ins, outs, emb, attention=False, up=False, down=False, taps=(1, 1)):
        super().__init__()
        self.in_channels, resize = ins, dict(up=up, down=down, taps=taps)
        self.norm0, self.conv0 = GroupNorm(ins), Conv2d(ins, outs, 3, **resize)
        self.affine = Linear(emb, outs)
        self.norm1, self.conv1 = GroupNorm(outs), Conv2d(outs, outs, 3)
        self.skip = Conv2d(ins, outs, 1, **resize) if ins != outs or up or down else None
        self.attends = attention
        if attention:
            self.norm2, self.qkv, self.proj = (
                GroupNorm(outs),
                Conv2d(outs, 3 * outs, 1),
                Conv2d(outs, outs, 1),
            )

    def forward(self, x, emb):
        h = self.conv0(F.silu(self.norm0(x))) + self.affine(emb)[:, :, None, None]
        h = self.conv1(F.silu(self.norm1(h)))
        x = (h + (x if self.skip is None else self.skip(x))) * math.sqrt(0.5)
        if self.attends:
            n, c = x.shape[:2]
            q, k, v = self.qkv(self.norm2(x)).reshape(n, c, 3, -1).unbind(2)
            weights = torch.softmax(torch.einsum("ncq,nck->nqk", q, k) / math.sqrt(c), -1)
            out = torch.einsum("nqk,nck->ncq", weights, v).reshape(x.shape)
            x = (x + self.proj(out)) * math.sqrt(0.5)
        return x


class Frequencies(Persistent):
    """Sines and cosines of a number."""

    def __init__(self, channels, fourier):
        super().__init__()
        half = channels // 2
        if fourier:
            self.register_buffer("freqs", 16 * torch.randn(half))
        self.half = half

    def forward(self, t):
        if "freqs" in self._buffers:
            angle = t[:, None] * (2 * math.pi * self.freqs)
        else:
            exponent = torch.arange(self.half, dtype=t.dtype) / (self.half - 1)
            angle = t[:, None] * (1 / 10000) ** exponent
        return torch.cat([angle.sin(), angle.cos()], 1)


class SongUNet(Persistent):
    def __init__(
        self, img_resolution, in_channels=3, out_channels=3, label_dim=0, augment_dim=0, model_channels=8,
        channel_mult=(1, 2), channel_mult_emb=4, num_blocks=1, attn_resolutions=(4,), dropout=0.1,
        embedding_type="positional", channel_mult_noise=1, encoder_type="standard",
        decoder_type="standard", resample_filter=(1, 1),
    ):  # fmt: skip
        given = {k: v for k, v in locals().items() if k != "self" and not k.startswith("__")}
        super().__init__(**{k: list(v) if isinstance(v, tuple) else v for k, v in given.items()})
        emb, noise = model_channels * channel_mult_emb, model_channels * channel_mult_noise
        taps, self.label_dim = resample_filter, label_dim
        self.map_noise = Frequencies(noise, embedding_type == "fourier")
        self.map_label = Linear(label_dim, noise) if label_dim else None
        self.map_augment = Linear(augment_dim, noise, bias=False) if augment_dim else None
        self.map_layer0, self.map_layer1 = Linear(noise, emb), Linear(emb, emb)
        self.enc, self.dec = nn.ModuleDict(), nn.ModuleDict()
        width, aux, kept = model_channels, in_channels, []
        for level, multiplier in enumerate(channel_mult):
            res = img_resolution >> level
            at = f"{res}x{res}"
            if level == 0:
                self.enc[f"{at}_conv"] = Conv2d(in_channels, width, 3)
            else:
                self.enc[f"{at}_down"] = UNetBlock(width, width, emb, down=True, taps=taps)
                if encoder_type == "skip":
                    self.enc[f"{at}_aux_down"] = Conv2d(aux, aux, 0, down=True, taps=taps)
                    self.enc[f"{at}_aux_skip"] = Conv2d(aux, width, 1)
                if encoder_type == "residual":
                    self.enc[f"{at}_aux_residual"] = Conv2d(
                        aux, width, 3, down=True, taps=taps, after=True
                    )
                    aux = width
            kept.append(width)
            for i in range(num_blocks):
                block = UNetBlock(width, model_channels * multiplier, emb, res in attn_resolutions)
                self.enc[f"{at}_block{i}"] = block
                width = model_channels * multiplier
                kept.append(width)
        for level, multiplier in reversed(list(enumerate(channel_mult))):
            res = img_resolution >> level
            at = f"{res}x{res}"
            if level == len(channel_mult) - 1:
                self.dec[f"{at}_in0"] = UNetBlock(width, width, emb, True)
                self.dec[f"{at}_in1"] = UNetBlock(width, width, emb)
            else:
                self.dec[f"{at}_up"] = UNetBlock(width, width, emb, up=True, taps=taps)
            for i in range(num_blocks + 1):
                attends = i == num_blocks and res in attn_resolutions
                ins, width = width + kept.pop(), model_channels * multiplier
                self.dec[f"{at}_block{i}"] = UNetBlock(ins, width, emb, attends)
            if decoder_type == "skip" or level == 0:
                if decoder_type == "skip" and level < len(channel_mult) - 1:
                    self.dec[f"{at}_aux_up"] = Conv2d(
                        out_channels, out_channels, 0, up=True, taps=taps
                    )
                self.dec[f"{at}_aux_norm"] = GroupNorm(width)
                self.dec[f"{at}_aux_conv"] = Conv2d(width, out_channels, 3)

    def forward(self, x, t, labels=None):
        emb = self.map_noise(t)
        if labels is not None:
            one_hot = F.one_hot(labels, self.label_dim).to(x.dtype)
            emb = emb + self.map_label(one_hot * math.sqrt(self.label_dim))
        emb = F.silu(self.map_layer1(F.silu(self.map_layer0(emb))))
        kept, aux = [], x
        for name, layer in self.enc.items():
            if name.endswith("aux_down"):
                aux = layer(aux)
            elif name.endswith("aux_skip"):
                x = kept[-1] = x + layer(aux)
            elif name.endswith("aux_residual"):
                x = kept[-1] = aux = (x + layer(aux)) / math.sqrt(2)
            else:
                x = layer(x) if name.endswith("conv") else layer(x, emb)
                kept.append(x)
        picture = made = None
        for name, layer in self.dec.items():
            if name.endswith("aux_up"):
                picture = layer(picture)
            elif name.endswith("aux_norm"):
                made = F.silu(layer(x))
            elif name.endswith("aux_conv"):
                picture = layer(made) if picture is None else picture + layer(made)
            else:
                x = x if x.shape[1] == layer.in_channels else torch.cat([x, kept.pop()], 1)
                x = layer(x, emb)
        return picture


class EDMPrecond(Persistent):
    def __init__(self, **kwargs):
        super().__init__(model_type="SongUNet", **kwargs)
        self.sigma_min, self.sigma_max, self.sigma_data = 0, float("inf"), 0.5
        self.model = SongUNet(**kwargs)


DDPMPP = dict(img_resolution=8, augment_dim=9)
NCSNPP = DDPMPP | dict(
    embedding_type="fourier",
    encoder_type="residual",
    channel_mult_noise=2,
    resample_filter=(1, 3, 3, 1),
)
