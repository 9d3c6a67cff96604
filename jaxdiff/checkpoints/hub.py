"""A checkpoint of one's own to the hub."""

import glob
import re
from pathlib import Path

from huggingface_hub import HfApi

from jaxdiff.checkpoints.sources import CONFIG

FILES = ("*.json", "*.safetensors", "*.bin", "README.md", "*.png")


def push(
    folder: str | Path,
    repo: str,
    *,
    private: bool = False,
    revision: str | None = None,
    token: str | None = None,
) -> str:
    """Upload a checkpoint to the Hugging Face hub as one commit, from where `jd.load(repo)` reads it.

    Its weights, configurations, table of covariances, model card and pictures go; nothing else of
    the folder does. A repository that is not there is made.

    Args:
        folder: what `jd.save` or `jaxdiff train` wrote (OUT/model).
        repo: "name/of-it" on the hub.
        private: whether a new repository is seen by you alone.
        revision: the branch; by default main.
        token: of your account; by default the one that `hf auth login` has kept.

    Returns:
        the commit's address.

    Raises:
        FileNotFoundError: where the folder holds no checkpoint.
        ValueError: for a name that is none of the hub's.
        OSError: where the hub does not answer, or refuses.
    """
    folder = Path(folder)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise ValueError(f"repo: expected the hub's OWNER/NAME, got {repo!r}")
    if not any((folder / name).is_file() for name in (CONFIG, f"unet/{CONFIG}")):
        raise FileNotFoundError(f"{folder}: no checkpoint: neither {CONFIG} nor unet/{CONFIG}")
    parts = [folder, folder / "unet", folder / "scheduler"]
    files = sorted(path for part in parts for kind in FILES for path in part.glob(kind))
    api = HfApi(token=token)
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            allow_patterns=[glob.escape(str(p.relative_to(folder))) for p in files],
            revision=revision,
            commit_message="A checkpoint of jaxdiff",
        )
    except Exception as e:  # of whichever HTTP library huggingface_hub is built on
        said = (str(e).strip().splitlines() or [type(e).__name__])[0]
        raise OSError(f"{repo}: not uploaded ({said}): see hf auth login and the connection") from e
    return str(commit.commit_url)
