"""The page at /, in a real browser: headless Chromium, driven by Playwright."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from onnx_rerank_integrations import TextCrossEncoder
from tests.live_server import running, until

WANTED = 'NOT RUN: the page is tested with pip install ".[server]" playwright axe-playwright-python, and Chromium'
pytest.importorskip("fastapi", reason=WANTED)
playwright = pytest.importorskip("playwright.sync_api", reason=WANTED)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip(WANTED, allow_module_level=True)

SCREENSHOTS = os.environ.get("ONNX_RERANK_SCREENSHOTS")
"""A folder to keep pictures in, to look at."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running({"lexical": TextCrossEncoder("lexical")}) as server:
        yield server.url


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    # Playwright's loop runs in this thread while its context is open; pytest-asyncio's tests are in other files.
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=250_000)
        yield opened
        opened.close()


@pytest.fixture(params=["light", "dark"])
def page(request: pytest.FixtureRequest, browser: Any, url: str) -> Iterator[Any]:
    context = browser.new_context(color_scheme=request.param, viewport={"width": 1200, "height": 900})
    context.set_default_timeout(120_000)  # milliseconds
    page = context.new_page()
    page.scheme = request.param
    outside: list[str] = []
    faults: list[str] = []
    page.on("request", lambda one: None if one.url.startswith((url, "data:")) else outside.append(one.url))
    page.on("console", lambda one: faults.append(one.text) if one.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(url)
    wait_for(page, "document.getElementById('model').length > 0")
    yield page
    context.close()
    assert not outside
    assert not [fault for fault in faults if "status of 4" not in fault], faults


def picture(page: Any, name: str) -> None:
    if SCREENSHOTS:
        page.screenshot(path=str(Path(SCREENSHOTS) / f"{name}-{page.scheme}.png"), full_page=True)


def wait_for(page: Any, condition: str) -> None:
    """Not Playwright's own, which evaluates texts inside the page, where its policy forbids that."""
    until(lambda: page.evaluate(condition))


def texts(page: Any) -> list[str]:
    return [one.inner_text() for one in page.query_selector_all("#results .text")]


def test_with_the_keyboard_alone_from_a_query_to_the_command(page: Any) -> None:
    page.keyboard.press("Tab")  # the two links of the header come first
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "query"
    page.keyboard.press("Control+A")
    page.keyboard.type("where is the Eiffel Tower")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#results li")

    assert texts(page)[0] == "The Eiffel Tower is in Paris."
    assert page.evaluate("document.activeElement.id") == "found", "a screen reader goes on at the ranking"
    assert "5 of 5 documents" in page.inner_text("#status")
    assert "None was truncated" in page.inner_text("#status")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "threshold"
    page.keyboard.press("End")
    assert "0 of 5 documents" in page.inner_text("#status")
    page.keyboard.press("Home")
    assert "5 of 5 documents" in page.inner_text("#status")
    picture(page, "ranked")


def test_the_threshold_hides_and_the_command_gives_what_is_seen(page: Any) -> None:
    page.fill("#query", "it's the \"capital\" of France's $HOME `id`?")
    page.click("#rank")
    page.wait_for_selector("#results li")
    scores = [float(one.inner_text()) for one in page.query_selector_all("#results .score")]
    assert scores == sorted(scores, reverse=True)
    threshold = round((scores[0] + scores[1]) / 2, 2)
    page.evaluate(f"threshold.value = {threshold}; threshold.dispatchEvent(new Event('input'))")
    assert len(texts(page)) == 1

    command = page.inner_text("#curl")
    assert "jq" in command
    if shutil.which("curl"):
        without_filter = command.partition(" \\\n  | jq")[0]
        done = subprocess.run(["bash", "-c", without_filter + " -sS"], capture_output=True, text=True, timeout=250)
        best = json.loads(done.stdout)["results"][0]
        assert round(best["relevance_score"], 4) == scores[0]


def test_files_of_each_kind(page: Any, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a red fox"}\n\n{"text": "a blue whale"}\n')
    (tmp_path / "b.md").write_text("# Foxes\nred\n\n```\n# no heading\n```\n## Whales\nblue\n")
    (tmp_path / "c.txt").write_text("a red fox\r\n\r\na blue whale\n")
    for name, expected in (
        ("a.jsonl", ["a blue whale", "a red fox"]),
        ("b.md", ["## Whales\nblue", "# Foxes\nred\n\n```\n# no heading\n```"]),
        ("c.txt", ["a blue whale", "a red fox"]),
    ):
        page.fill("#query", "blue whale whales")
        page.set_input_files("#file", str(tmp_path / name))
        content = (tmp_path / name).read_text()
        until(lambda content=content: page.input_value("#documents") == content)
        page.click("#rank")
        wait_for(page, f"document.querySelectorAll('#results li').length == {len(expected)}")
        wait_for(page, "!document.getElementById('rank').disabled")
        assert texts(page) == expected, name


def test_what_is_truncated_and_what_is_wrong_is_said(page: Any) -> None:
    page.fill("#documents", "fox " * 3000 + "\na <b>red</b> fox & <img src=x onerror=alert(1)>")
    page.click("#rank")
    page.wait_for_selector("#results li")
    assert "Truncated: 1, longer than the model reads" in page.inner_text("#status")
    assert len(page.query_selector_all("#results .truncated")) == 1
    assert "a <b>red</b> fox & <img src=x onerror=alert(1)>" in texts(page)
    picture(page, "truncated")

    page.fill("#documents", "  \n")
    page.click("#rank")
    wait_for(page, "document.getElementById('fault').textContent")
    assert "no documents" in page.inner_text("#fault")
    page.select_option("#split", "jsonl")
    page.fill("#documents", '{"text": "a"}\n{"txt": "b"}')
    page.click("#rank")
    wait_for(page, "document.getElementById('fault').textContent.includes('Line 2')")
    picture(page, "fault")
    page.select_option("#split", "lines")
    page.fill("#documents", "\n".join(f"text {i}" for i in range(2001)))
    page.click("#rank")
    wait_for(page, "document.getElementById('fault').textContent.includes('2,001 documents')")


def test_a_narrow_screen_has_no_sideways_scrolling(page: Any) -> None:
    page.set_viewport_size({"width": 340, "height": 700})
    page.fill("#documents", "fox" * 300 + "\nb")
    page.click("#rank")
    page.wait_for_selector("#results li")

    assert page.evaluate("document.documentElement.scrollWidth") <= 340
    picture(page, "narrow")


def test_axe_finds_no_barrier(page: Any) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason=WANTED).Axe()
    page.fill("#documents", "fox " * 3000 + "\na red fox")
    page.click("#rank")
    page.wait_for_selector("#results li")
    page.evaluate("fault.textContent = 'Line 2 is no JSON.'")

    found = axe.run(page)

    assert found.violations_count == 0, found.generate_report()
