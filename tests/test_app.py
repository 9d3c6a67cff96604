"""The web page: what it computes, and what a browser does with it."""

import base64
import re
import socket
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

import jaxdiff as jd
from jaxdiff import data
from jaxdiff.commands import app
from tests.conftest import child


def test_draws_come_one_by_one_and_the_code_does_the_same(tiny, tmp_path, monkeypatch):
    """What the page shows in the end is what the Python that it shows computes."""
    photo, said = data.to_uint8(data.example(80)), []
    arguments = (photo, "a quarter of the resolution", 5, True, str(tiny), app.AUTOMATIC, 3, 7)
    results = list(app.restore(*arguments, progress=lambda share, desc: said.append((share, desc))))
    assert [len(draws) for _, draws, _, _ in results] == [1, 2, 3]
    assert results[0][2] is None and results[1][2].shape == (384, 384, 3)
    assert said[1] == (0, "compiling, then the first draw") and said[-1] == (2 / 3, "draw 3 of 3")
    (measured, restored), draws, _, code = results[-1]
    assert measured.shape == restored.shape == draws[0].shape == (384, 384, 3)

    monkeypatch.chdir(tmp_path)
    data.write_image(tmp_path / "photo.png", photo / 255)
    names = {}
    exec(code, names)
    assert np.abs(app.large(names["restored"]).astype(int) - restored).max() <= 1
    assert names["y"].shape == (16, 16, 3) and names["deviation"].shape == (64, 64, 3)


def test_a_picture_that_is_the_measurement(tiny):
    """It is brought to the measurement's size, and stays what it is."""
    photo = data.to_uint8(data.example(64))
    arguments = (photo, "grey", 5, False, str(tiny), "pigdm-paper", 2, 0)
    ((measured, _), _, _, code), *_ = app.restore(*arguments)
    grey = jd.operators.Grey()(data.example(64))
    expected = app.large(np.broadcast_to(grey, (64, 64, 3)))
    assert np.abs(measured.astype(int) - expected).max() <= 1 and "rng" not in code


def test_nothing_was_chosen(tiny):
    with pytest.raises(ValueError, match="choose a picture first"):
        next(app.restore(None, "grey", 5, True, str(tiny), app.AUTOMATIC, 2, 0))


def test_no_camera_reads_a_file():
    """A visitor of the page can name no file of the machine that serves it."""
    kinds = {recipe: recipe.split(":")[0] for recipe in app.CAMERAS.values()}
    assert set(kinds.values()) <= {"blur", "mask", "downsample", "grey", "hdr", "jpeg"}
    files = [r for r in kinds if re.search(r"[./]\w*[a-z]|\.(png|mat|npy)", r.split(":", 1)[-1])]
    assert not files


# --- in a browser ------------------------------------------------------------------------------------


@pytest.fixture
def page(tmp_path, monkeypatch):
    """`jaxdiff app` in a process of its own, whose temporary files are in `tmp_path`."""
    pytest.importorskip("gradio", reason="needs pip install 'jaxdiff[app]'")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    address = f"http://127.0.0.1:{port}"
    with child([sys.executable, "-m", "jaxdiff.cli", "app", "--port", port]) as process:
        for _ in range(120):
            try:
                urllib.request.urlopen(address, timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, "the page ended"
                time.sleep(1)
        yield address, port, process


@pytest.fixture
def browser(monkeypatch):
    """Chrome or Chromium without a window, where selenium finds them; a driver it may download."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs pip install selenium")
    monkeypatch.setenv("SE_AVOID_BROWSER_DOWNLOAD", "true")
    monkeypatch.setenv("SE_AVOID_STATS", "true")
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1280,1700"):
        options.add_argument(argument)
    chromium = webdriver.Chrome(options)
    yield chromium
    chromium.quit()


def test_in_a_browser(page, browser, tmp_path):
    """A picture is dropped, draws come, the slider and the deviation are seen; nothing is kept."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    address, port, process = page
    data.write_image(tmp_path / "mine.png", data.faces()["7"])
    wait = WebDriverWait(browser, 240)
    browser.get(address)
    chooser = wait.until(lambda b: b.find_element(By.CSS_SELECTOR, "input[type=file]"))
    before = browser.find_elements(
        By.CSS_SELECTOR, "button[aria-label='Clear'], button[title='Clear']"
    )
    for button in before[:1]:
        browser.execute_script("arguments[0].click()", button)
        chooser = wait.until(lambda b: b.find_element(By.CSS_SELECTOR, "input[type=file]"))
    chooser.send_keys(str(tmp_path / "mine.png"))
    time.sleep(2)
    browser.execute_script("document.querySelector('#restore').click()")
    wait.until(lambda b: len(b.find_elements(By.CSS_SELECTOR, "#draws img")) >= 4)
    wait.until(lambda b: b.find_elements(By.CSS_SELECTOR, "#deviation img"))
    shown = browser.find_elements(By.CSS_SELECTOR, "#pair img")
    assert len(shown) >= 2 and all(int(i.get_property("naturalWidth")) == 384 for i in shown)
    assert "jd.restore(" in browser.find_element(By.CSS_SELECTOR, "#code").text
    screenshot = base64.b64decode(browser.get_screenshot_as_base64())
    (tmp_path / "screenshot.png").write_bytes(screenshot)
    listening = [
        line.split()[1]
        for line in Path("/proc/net/tcp").read_text(encoding="utf-8").splitlines()[1:]
    ]
    assert next(a for a in listening if a.endswith(f":{port:04X}")).startswith("0100007F:")
    (kept,) = tmp_path.glob("jaxdiff-app-*")
    assert list(kept.rglob("*.*"))
    process.terminate()
    process.wait(20)
    assert not kept.exists()
