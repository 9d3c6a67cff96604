"""The site's pages belong to the files they show."""

import ast
import re
from pathlib import Path

import pytest
from PIL import Image

DOCS = Path(__file__).parents[1] / "docs"
SCRIPTS = sorted(p.stem for p in (DOCS / "gallery").glob("*.py") if p.stem != "run")


def test_the_gallery_is_whole():
    assert len(SCRIPTS) >= 5
    index = (DOCS / "gallery/index.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r":link: (\w+)", index)) == SCRIPTS


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_has_its_page_and_its_picture(name):
    folder = DOCS / "gallery"
    page = (folder / f"{name}.md").read_text(encoding="utf-8")
    assert f"({name}.png)" in page and f"{{literalinclude}} {name}.py" in page
    script = (folder / f"{name}.py").read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(script)) and f'savefig("{name}.png")' in script
    with Image.open(folder / f"{name}.png") as picture:
        assert min(picture.size) >= 250


def test_the_first_picture_is_the_gallery_s():
    first = (DOCS / "comparison.png").read_bytes()
    assert first == (DOCS / "gallery/deblur.png").read_bytes()


def test_every_command_and_every_page_is_listed():
    from jaxdiff.cli import app

    commands = {c.callback.__name__ for c in app.registered_commands if c.callback is not None}
    reference = (DOCS / "reference/cli.md").read_text(encoding="utf-8")
    assert set(re.findall(r":prog: jaxdiff (\w+)", reference)) == commands
    pages = {str(p.relative_to(DOCS).with_suffix("")) for p in DOCS.rglob("*.md")}
    listed = {"index"}
    for page in DOCS.rglob("*.md"):
        for block in re.findall(r"{toctree}\n(.*?)```", page.read_text(encoding="utf-8"), re.S):
            names = [line for line in block.split() if re.fullmatch(r"[\w/]+", line)]
            listed |= {str((page.parent / n).relative_to(DOCS)) for n in names}
    assert pages <= listed
