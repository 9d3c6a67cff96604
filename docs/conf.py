"""The site: `python -m sphinx -W --keep-going docs build/site`."""

import re
import shutil
import tomllib
from pathlib import Path

from sphinx.util import logging

import jaxdiff
from jaxdiff import cli

HERE = Path(__file__).parent
ROOT = HERE.parent
REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Homepage"]

project = "jaxdiff"
author = "the jaxdiff maintainers"
release = version = jaxdiff.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinxcontrib.typer",
]
myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # notebooks show the outputs that they hold
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the signature says them
autodoc_default_options = {"exclude-members": "tree_flatten, tree_unflatten"}
napoleon_google_docstring = True
exclude_patterns = ["gallery/*.py"]
html_theme = "sphinx_book_theme"
html_title = "jaxdiff"
html_theme_options = {
    "repository_url": REPOSITORY,
    "use_repository_button": True,
    "use_issues_button": True,
    "path_to_docs": "docs",
    "show_toc_level": 2,
}

# The extension draws what Rich draws, which on a terminal would take brackets for markup.
cli.app.rich_markup_mode = "markdown"

# The notebooks stand beside the repository's other folders, pages are taken from this one.
NOTEBOOKS = HERE / "course"
for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
    shutil.copy2(notebook, NOTEBOOKS / notebook.name)

_LINK = re.compile(r"(\]\()((?:\.\./)+|docs/)([^)#]*)")


def _outside(app, where, source) -> None:
    """A link to a file of the repository that is no page here goes to the repository."""
    folder = where if where.is_dir() else where.parent

    def replaced(match):
        opening, parents, rest = match.groups()
        target = (folder / parents / rest).resolve()
        if target.is_relative_to(HERE):
            return match.group(0)
        if not target.exists():
            logging.getLogger(__name__).warning("%s: no file %s", where.name, parents + rest)
        kind = "tree" if target.is_dir() else "blob"
        return f"{opening}{REPOSITORY}/{kind}/main/{target.relative_to(ROOT)}"

    source[0] = _LINK.sub(replaced, source[0])


def _docstring(app, what, name, obj, options, lines) -> None:
    """A backtick is code, as in the source; a bar is a bar."""
    for i, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...")):
            parts = re.split(r"((?<!:)`+[^`]+`+)", line)
            lines[i] = "".join(
                f"``{part.strip('`')}``\\ " if part.startswith("`") else part.replace("|", r"\|")
                for part in parts
            )


def setup(app) -> None:
    app.connect("autodoc-process-docstring", _docstring)
    app.connect("source-read", lambda app, name, s: _outside(app, Path(app.env.doc2path(name)), s))
    app.connect("include-read", lambda app, path, parent, s: _outside(app, ROOT / path, s))
