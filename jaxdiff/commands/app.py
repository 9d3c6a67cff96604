"""The web page: a picture, a camera, a prior and a sampler; posterior draws as they come."""

import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import jax
import numpy as np
from matplotlib import colormaps

import jaxdiff as jd
from jaxdiff.commands.cameras import operator as named_operator
from jaxdiff.data import fit, to_uint8
from jaxdiff.restoration import default_sampler
from jaxdiff.samplers.presets import NAMES

CAMERAS = {  # no recipe that reads a file: a visitor may not name one
    "camera shake": "blur:motion:9,0",
    "strong camera shake": "blur:motion:17,1",
    "out of focus": "blur:gaussian:9,1.5",
    "7 of 10 pixels missing": "mask:0.3,0",
    "a quarter of the resolution": "downsample:4",
    "grey": "grey",
    "lights and shadows cut off": "hdr:2",
    "JPEG of little quality": "jpeg:20",
}
AUTOMATIC = "automatic"
MOST_DRAWS = 16
LARGEST = "10mb"  # of an upload
WAITING = 8  # visitors; one more is told to come again
KEPT = 300  # seconds that a picture is kept for the page that shows it

CODE = """\
import jax
import numpy as np

import jaxdiff as jd
from jaxdiff.commands.cameras import operator

prior = jd.Denoiser(*jd.load({model!r}))
photo = jd.data.read_image("photo.png")
camera = operator({recipe!r}, prior.shape[:2])
{measured}
draws = [
    jd.restore(
        y, camera, {sigma:g} / 255, prior={prior}, n=1, sampler={sampler!r}, key=jax.random.key({seed} + i)
    ).draws[0]
    for i in range({n})
]
restored, deviation = np.mean(draws, 0), np.std(draws, 0, ddof=1)
"""
DEGRADED = """\
image = jd.data.fit(photo, prior.shape[:2], "resize")
noise = np.random.default_rng({seed}).standard_normal(camera(image).shape)
y = np.asarray(camera.project(camera(image) + {sigma:g} / 255 * noise), np.float32)"""
MEASURED = """\
shape = jax.eval_shape(camera, jax.ShapeDtypeStruct(prior.shape, "float32")).shape
y = jd.data.fit(photo, shape[:2], "resize")
y = np.asarray(camera.project(y if shape[2] == 3 else jd.operators.Grey()(y)), np.float32)"""


@cache
def _prior(model: str) -> tuple[jd.Denoiser, Any]:
    """A prior, and its table of covariances where it has one."""
    denoiser = jd.Denoiser(*jd.load(model))
    if denoiser.shape is None or denoiser.shape[2] != 3:
        raise ValueError(f"{model}: expected a prior of colour images that names its size")
    return denoiser, jd.SpectralCovariance.find(model)


def measure(photo: np.ndarray, camera, sigma: float, shape, clean: bool, seed: int) -> np.ndarray:
    """The measurement: the photo itself, or what the camera makes of it."""
    if clean:
        image = fit(photo, shape[:2], "resize")
        noise = np.random.default_rng(seed).standard_normal(camera(image).shape)
        return np.asarray(camera.project(camera(image) + sigma * noise), np.float32)
    output = jax.eval_shape(camera, jax.ShapeDtypeStruct(shape, "float32")).shape
    y = fit(photo, output[:2], "resize")
    return np.asarray(camera.project(y if output[2] == 3 else jd.operators.Grey()(y)), np.float32)


def restore(
    photo: np.ndarray | None,
    camera: str,
    sigma: float,
    clean: bool,
    model: str,
    sampler: str,
    n: int,
    seed: int,
    progress: Any = None,
) -> Iterator[tuple[Any, ...]]:
    """After each draw: (measurement, mean), the draws, their deviation, and the Python for it.

    Args:
        photo: [H, W, 3] uint8, of any size; it is brought to the prior's.
        camera: a name in `CAMERAS`.
        sigma: of the noise, in 255.
        clean: whether the photo is to be degraded first.
        progress: is called with the share that is done and a line about it.
    """
    say = progress or (lambda share, desc: None)
    if photo is None:
        raise ValueError("choose a picture first")
    seed, n = int(seed), int(n)
    say(0, desc=f"loading {model}")
    denoiser, covariance = _prior(model)
    recipe = CAMERAS[camera]
    shape: Any = denoiser.shape
    operator = named_operator(recipe, shape[:2])
    y = measure(np.asarray(photo, np.float32) / 255, operator, sigma / 255, shape, clean, seed)
    name = sampler
    if sampler == AUTOMATIC:
        name = default_sampler(denoiser, operator, sigma / 255, covariance)
    measured = (DEGRADED if clean else MEASURED).format(seed=seed, sigma=sigma)
    by_name = repr(model) if covariance is not None else "prior"
    code = CODE.format(
        model=model, recipe=recipe, measured=measured, sigma=sigma, prior=by_name, sampler=name,
        seed=seed, n=n,
    )  # fmt: skip
    draws: list[np.ndarray] = []
    for i in range(n):
        say(i / n, desc="compiling, then the first draw" if i == 0 else f"draw {i + 1} of {n}")
        found = jd.restore(
            y, operator, sigma / 255, prior=denoiser, n=1, sampler=name, covariance=covariance,
            key=jax.random.key(seed + i),
        )  # fmt: skip
        draws.append(np.asarray(found.draws[0]))
        pair = large(shown(y, shape)), large(np.mean(draws, 0))
        deviation = None if len(draws) == 1 else large(heat(np.std(draws, 0, ddof=1)))
        yield pair, [large(draw) for draw in draws], deviation, code


def shown(y: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A measurement at the image's size: its pixels as squares, grey as colours."""
    factor = max(1, shape[0] // y.shape[0])
    return np.broadcast_to(y.repeat(factor, 0).repeat(factor, 1), (*shape[:2], 3))


def heat(std: np.ndarray) -> np.ndarray:
    """A deviation in colours: black where the draws agree, white where they differ most."""
    mean = std.mean(-1)
    return colormaps["magma"](mean / max(float(np.quantile(mean, 0.995)), 1e-9))[..., :3]


def large(image: np.ndarray) -> np.ndarray:
    """Each pixel a square, so that a page does not smooth it."""
    pixels, factor = to_uint8(image), max(1, 384 // image.shape[0])
    return pixels.repeat(factor, 0).repeat(factor, 1)


def build(models: Sequence[str] = ("photos64", "faces64")) -> Any:
    """The page (a `gradio.Blocks`), with a choice of priors."""
    import gradio as gr  # pyright: ignore[reportMissingImports]: an extra

    with gr.Blocks(
        title="jaxdiff", analytics_enabled=False, delete_cache=(KEPT // 5, KEPT)
    ) as page:
        gr.Markdown(
            "# jaxdiff\nRestore a picture with a diffusion prior, and see how sure each pixel is. "
            "The bundled prior knows faces, at 64×64. No picture is kept."
        )
        with gr.Row():
            with gr.Column():
                photo = gr.Image(
                    to_uint8(jd.data.example()), label="picture", type="numpy", image_mode="RGB"
                )
                clean = gr.Checkbox(True, label="it is clean: degrade it first")
                camera = gr.Dropdown([*CAMERAS], value="camera shake", label="camera")
                sigma = gr.Slider(1, 50, 10, step=1, label="noise: its deviation, in 255")
                model = gr.Dropdown([*models], value=models[0], label="prior")
                sampler = gr.Dropdown([AUTOMATIC, *NAMES], value=AUTOMATIC, label="sampler")
                n = gr.Slider(2, MOST_DRAWS, 4, step=1, label="draws")
                seed = gr.Number(0, label="seed", precision=0, minimum=0, maximum=2**31)
                start = gr.Button("Restore", variant="primary", elem_id="restore")
            with gr.Column():
                pair = gr.ImageSlider(label="measured | mean of the draws", elem_id="pair")
                deviation = gr.Image(label="deviation: bright is unsure", elem_id="deviation")
                draws = gr.Gallery(label="draws", columns=4, elem_id="draws")
        code = gr.Code(label="the same in Python", language="python", elem_id="code")

        bar = gr.Progress()

        def run(*inputs, progress=bar):  # which gradio looks for among the defaults
            yield from restore(*inputs, progress=progress)

        inputs = [photo, camera, sigma, clean, model, sampler, n, seed]
        start.click(run, inputs, [pair, draws, deviation, code], concurrency_limit=1)
    return page


def serve(models: Sequence[str], port: int) -> None:
    """Serve the page to this machine alone, until it is stopped; what was uploaded goes with it.

    Raises:
        FileNotFoundError, ValueError: for a prior that is not there, or not of colour images.
        OSError: for a port that is taken.
    """
    for model in models:
        _prior(model)  # a name that is wrong is known before a browser is opened
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # which leaves the folder's block, too
    with tempfile.TemporaryDirectory(prefix="jaxdiff-app-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        build(models).queue(max_size=WAITING).launch(
            server_name="127.0.0.1",
            server_port=port,
            share=False,
            max_file_size=LARGEST,
            quiet=True,
            show_error=True,
        )
