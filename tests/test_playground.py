"""The playground in a browser: what it shows is what the server answers, by keyboard, on a phone and in the dark."""

import shutil

import pytest

from test_serve import FIRST, SECOND, Running, expected, wire  # noqa: F401  (fixture)
from test_wire_folder import QUESTION, TEXT

api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")


@pytest.fixture(scope="module")
def running(wire, home, tmp_path_factory):  # noqa: F811
    made = Running(wire, home, tmp_path_factory.mktemp("store"))
    yield made
    made.stop()


@pytest.fixture(scope="module")
def browser():
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


def opened(browser, running, **fields):
    context = browser.new_context(**fields)
    page = context.new_page()
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(f"{running.url}/playground")
    page.wait_for_function("document.getElementById('compression').options.length > 0")
    return page, problems


def test_answers_of_every_reader_from_text_and_latent_stand_side_by_side(browser, running, wire, home):  # noqa: F811
    page, problems = opened(browser, running)
    page.fill("#context", TEXT)
    page.fill("#question", QUESTION)
    page.focus("#question")
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelectorAll('#asked tr').length == 4")
    cards = page.locator(".answer")
    titles = [cards.nth(place).locator("h3").inner_text() for place in range(4)]
    assert titles == [f"{name}, from {kind}" for name in (FIRST, SECOND) for kind in ("text", "4× latent")]
    for place, name in ((1, FIRST), (3, SECOND)):
        shown = cards.nth(place).locator("p").inner_text()
        reader = wire.open_reader(str(home / name))
        answer = reader.answer(wire.prefix(wire.encode([TEXT]), reader), QUESTION, 64).text
        assert shown.split() == (answer or "(nothing)").split()
    facts = cards.nth(1).locator("dt").all_inner_texts()
    assert facts == ["positions", "bytes", "first token", "KV memory"]
    positions = [int(cards.nth(place).locator("dd").first.inner_text().replace(",", "")) for place in (0, 1)]
    assert positions[1] < positions[0]
    page.select_option("#compression", "8")
    page.select_option("#codec", "int8")
    page.click("#ask")
    page.wait_for_function("document.querySelectorAll('#asked tr').length == 8")
    assert "8× latent" in page.locator("#asked tr").first.inner_text()
    assert not problems


def test_what_the_server_refuses_is_said(browser, running):
    page, problems = opened(browser, running)
    page.fill("#context", "word " * 5000)
    page.fill("#question", QUESTION)
    page.click("#ask")
    page.wait_for_selector("#problem:not(:empty)")
    assert "expected at most" in page.inner_text("#problem")
    assert page.is_enabled("#ask")
    assert not problems


def test_a_browser_gives_an_api_key_as_a_password(browser, wire, home, tmp_path):  # noqa: F811
    keyed = Running(wire, home, tmp_path, keys=("one",))
    try:
        page, problems = opened(browser, keyed, http_credentials={"username": "anyone", "password": "one"})
        page.click("#ask")
        page.wait_for_function("document.querySelectorAll('#asked tr').length == 4")
        assert not problems
    finally:
        keyed.stop()


def test_it_fits_a_phone_and_is_dark_where_that_is_wanted(browser, running):
    phone, _ = opened(browser, running, viewport={"width": 360, "height": 720})
    assert phone.evaluate("document.documentElement.scrollWidth") <= 360
    tall = phone.evaluate(
        "[...document.querySelectorAll('button, select, input')].every(one => one.offsetHeight >= 32)"
    )
    assert tall
    dark, _ = opened(browser, running, color_scheme="dark")
    colours = [page.evaluate("getComputedStyle(document.body).backgroundColor") for page in (phone, dark)]
    assert colours[0] != colours[1]
    names = dark.evaluate(
        "[...document.querySelectorAll('textarea, input, select')].every(one => one.labels.length == 1)"
    )
    assert names
