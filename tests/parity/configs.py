"""Small configurations of UNet2DModel that between them use every option."""

BASE = dict(
    sample_size=8,
    block_out_channels=(8, 16),
    down_block_types=("DownBlock2D", "AttnDownBlock2D"),
    up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    layers_per_block=1,
    norm_num_groups=4,
    attention_head_dim=4,
)
_ATTN = dict(
    down_block_types=("AttnDownBlock2D", "AttnDownBlock2D"),
    up_block_types=("AttnUpBlock2D", "AttnUpBlock2D"),
)
_RESNET = dict(
    down_block_types=("ResnetDownsampleBlock2D", "ResnetDownsampleBlock2D"),
    up_block_types=("ResnetUpsampleBlock2D", "ResnetUpsampleBlock2D"),
)
_SKIP = dict(
    down_block_types=("SkipDownBlock2D", "SkipDownBlock2D"),
    up_block_types=("SkipUpBlock2D", "SkipUpBlock2D"),
    block_out_channels=(16, 32),
)
_ATTN_SKIP = dict(
    down_block_types=("AttnSkipDownBlock2D", "AttnSkipDownBlock2D"),
    up_block_types=("AttnSkipUpBlock2D", "AttnSkipUpBlock2D"),
    block_out_channels=(32, 32),
)
_FOURIER = dict(time_embedding_type="fourier")
_LEARNED = dict(time_embedding_type="learned", num_train_timesteps=1000)

CONFIGS = {
    name: BASE | changes
    for name, changes in {
        "base": {},
        "celebahq-like": dict(
            attention_head_dim=None, downsample_padding=0, flip_sin_to_cos=False, freq_shift=1,
            norm_eps=1e-6, layers_per_block=2,
        ),
        "plain-blocks": dict(
            down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2
        ),
        "attn-everywhere": _ATTN,
        "resnet-resampling": _RESNET,
        "skip": _SKIP,
        "attn-skip": _ATTN_SKIP,
        "skip-no-norm-groups": _SKIP | dict(norm_num_groups=None),
        "ncsnpp": _FOURIER | dict(
            block_out_channels=(32, 32, 32),
            down_block_types=("SkipDownBlock2D", "AttnSkipDownBlock2D", "SkipDownBlock2D"),
            up_block_types=("SkipUpBlock2D", "AttnSkipUpBlock2D", "SkipUpBlock2D"),
            mid_block_scale_factor=2**0.5, layers_per_block=2, attention_head_dim=None,
            norm_num_groups=None,
        ),
        "skip-up-only": dict(
            up_block_types=("UpBlock2D", "SkipUpBlock2D"), block_out_channels=(16, 16)
        ),
        "legacy-prefix": dict(
            down_block_types=("UNetResDownBlock2D", "UNetResAttnDownBlock2D"),
            up_block_types=("UNetResAttnUpBlock2D", "UNetResUpBlock2D"),
        ),
        "three-levels": dict(
            block_out_channels=(8, 12, 16),
            down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        ),
        "one-level": dict(
            block_out_channels=(8,), down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",)
        ),
        "two-layers": dict(layers_per_block=2),
        "three-layers": dict(layers_per_block=3),
        "mixed-kinds": dict(
            down_block_types=("ResnetDownsampleBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "ResnetUpsampleBlock2D"),
        ),
        "downsample-resnet": _ATTN | dict(downsample_type="resnet"),
        "upsample-resnet": _ATTN | dict(upsample_type="resnet"),
        "resample-resnet": _ATTN | dict(downsample_type="resnet", upsample_type="resnet"),
        "padding-0": dict(downsample_padding=0),
        "padding-0-attn": _ATTN | dict(downsample_padding=0),
        "fourier": _FOURIER,
        "learned-time": _LEARNED,
        "sin-cos-order": dict(flip_sin_to_cos=False),
        "freq-shift": dict(freq_shift=1),
        "odd-embedding": dict(
            block_out_channels=(15, 30), norm_num_groups=5, attention_head_dim=15
        ),
        "time-dim": dict(time_embedding_dim=24),
        "scale-shift": dict(resnet_time_scale_shift="scale_shift"),
        "scale-shift-attn-norm": dict(
            resnet_time_scale_shift="scale_shift", attn_norm_num_groups=8
        ),
        "scale-shift-skip": _SKIP | dict(resnet_time_scale_shift="scale_shift"),
        "scale-shift-resnet": _RESNET | dict(resnet_time_scale_shift="scale_shift"),
        "attn-norm-groups": dict(attn_norm_num_groups=2),
        "no-mid-attention": dict(add_attention=False),
        "no-mid-block": dict(mid_block_type=None),
        "mid-scale": dict(mid_block_scale_factor=1.7),
        "one-head": dict(attention_head_dim=None),
        "head-dim-8": dict(attention_head_dim=8),
        "head-dim-not-a-divisor": dict(attention_head_dim=6),
        "center-input": dict(center_input_sample=True),
        "dropout": dict(dropout=0.3),
        "swish": dict(act_fn="swish"),
        "mish": dict(act_fn="mish"),
        "gelu": dict(act_fn="gelu"),
        "relu": dict(act_fn="relu"),
        "relu-skip": _SKIP | dict(act_fn="relu"),
        "eps": dict(norm_eps=1e-3),
        "groups-8": dict(norm_num_groups=8),
        "classes": dict(num_class_embeds=10),
        "class-timestep": dict(class_embed_type="timestep"),
        "class-timestep-fourier": _FOURIER | dict(class_embed_type="timestep"),
        "class-timestep-learned": _LEARNED | dict(class_embed_type="timestep"),
        "class-identity": dict(class_embed_type="identity"),
        "consistency": dict(
            down_block_types=("ResnetDownsampleBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "ResnetUpsampleBlock2D"),
            downsample_type="resnet", upsample_type="resnet", attn_norm_num_groups=4,
            num_class_embeds=10, resnet_time_scale_shift="scale_shift", layers_per_block=2,
        ),
        "latent": dict(
            down_block_types=("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
            block_out_channels=(8, 16, 24), attention_head_dim=8,
        ),
        "grey": dict(in_channels=1, out_channels=1),
        "learned-variance": dict(out_channels=6),
        "other-size": dict(sample_size=(8, 12)),
        "no-size": dict(sample_size=None),
    }.items()
}  # fmt: skip


def _options(config: dict) -> set[tuple[str, str]]:
    found = set()
    for key, value in config.items():
        several = value if key.endswith("block_types") else (value,)
        found |= {(key, str(one)) for one in several}
    return found


def combinations() -> list[str]:
    """The rows of which every option is in a row before them."""
    seen: set[tuple[str, str]] = set()
    found = []
    for name, config in CONFIGS.items():
        if _options(config) <= seen:
            found.append(name)
        seen |= _options(config)
    return found
