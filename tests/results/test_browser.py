"""The report in headless Chromium: it renders, its filters work, it asks nothing of the network."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from results import ledger, publish, report, verdict
from results.scoreboard import Board

pytestmark = pytest.mark.slow

ROOT = Path(report.__file__).parents[1]
PROGRAM = next(filter(shutil.which, ("chromium", "chromium-browser", "google-chrome")), None)
CSP = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
PHONE, DESKTOP = (390, 3000), (1280, 2000)
#: What Chromium asks for on its own account has this initiator.
ITSELF = "not an origin"


@dataclass(frozen=True)
class Opened:
    """The document after its script ran, what the console said, and the page's own requests."""

    document: str
    console: str
    requests: list[str]


Browser = Callable[..., Opened]


@pytest.fixture
def browser(tmp_path: Path) -> Browser:
    """open(page, size) -> Opened"""
    if PROGRAM is None:
        pytest.skip("no Chromium on this machine; apt-get install chromium")

    def opened(page: Path, size: Sequence[int] = DESKTOP) -> Opened:
        log = tmp_path / "net.json"
        done = subprocess.run(
            [str(PROGRAM), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--disable-sync",
             "--enable-logging=stderr", f"--log-net-log={log}", "--hide-scrollbars",
             f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={size[0]},{size[1]}",
             "--dump-dom", page.as_uri()],
            capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
        said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
        return Opened(done.stdout, "\n".join(said), _requests(log))

    return opened


def _requests(log: Path) -> list[str]:
    data = json.loads(log.read_text())
    kind = data["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    asked = [e["params"] for e in data["events"] if e["type"] == kind and "params" in e]
    return [p["url"] for p in asked if "url" in p and p.get("initiator") != ITSELF]


@pytest.fixture(scope="module")
def html(suite: list[ledger.Run], tmp_path_factory: pytest.TempPathFactory) -> str:
    """A report of two seeds and three arms."""
    path = tmp_path_factory.mktemp("report") / "r.html"
    claims = verdict.registered(suite, verdict.load_policy())
    return report.build(suite, claims, path, command="make it").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def everything(board: Board, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The whole report, with every word."""
    path = tmp_path_factory.mktemp("suite") / "report.html"
    return report.build_suite(board, path).read_text(encoding="utf-8")


def page_with(html: str, script: str, path: Path) -> Path:
    """A page that runs a script of the test's at its end; its policy would forbid that."""
    path.write_text(CSP.sub("", html).replace("</body>", f"{script}</body>"), encoding="utf-8")
    return path


CLICKS = """<script>
document.querySelector('.legend button[value="3"]').click();
document.querySelectorAll('.tabs button')[1].click();
const area = document.querySelector('.plotbox').getBoundingClientRect();
document.querySelector('.plotbox').dispatchEvent(new PointerEvent('pointermove',
  {clientX: area.left + area.width / 2, bubbles: true}));
document.querySelector('.t.s-visual').dispatchEvent(
  new PointerEvent('pointerover', {bubbles: true}));
</script>"""


def test_the_page_renders_without_a_console_message(
    html: str, tmp_path: Path, browser: Browser
) -> None:
    page = tmp_path / "page.html"
    page.write_text(html, encoding="utf-8")
    found = browser(page)
    assert found.console == "" and found.requests == []
    assert found.document.count('aria-selected="false"') == 1  # the script ran: one tab is open


def test_filter_tabs_cursor_and_tooltips_work(html: str, tmp_path: Path, browser: Browser) -> None:
    found = browser(page_with(html, CLICKS, tmp_path / "page.html"))
    document = found.document
    assert found.console == ""
    assert 'data-arm="3" hidden=""' in document
    assert "step 1" in document and 'class="dot a1"' in document
    assert 'class="dot a3"' not in document  # the hidden arm has no dot either
    assert re.search(r'<div class="tip"[^>]*>[^<]*visual', document)


FILTER = """<script>
document.querySelector('.filter button[value="not run"]').click();
document.querySelector('.filter button[name="paper"][value="ffr"]').click();
document.querySelector('.view .legend button[value="1"]').click();
location.hash = "#ktr-main-video-ktr-64-videommmu-accuracy";
</script>"""


def test_the_whole_report_renders_and_filters(
    everything: str, tmp_path: Path, browser: Browser
) -> None:
    page = tmp_path / "page.html"
    page.write_text(everything, encoding="utf-8")
    found = browser(page)
    assert found.console == "" and found.requests == []
    assert '<div class="tip" hidden="">' in found.document  # the script ran
    found = browser(page_with(everything, FILTER, page))
    document = found.document
    assert found.console == ""
    assert re.search(r'<article class="card paper" data-paper="ffr" hidden=""', document)
    assert not re.search(r'<article class="card paper" data-paper="ktr" hidden=""', document)
    assert 'data-word="not run" class="faded"' in document
    assert re.search(r'<details [^>]*data-word="not run"[^>]* hidden=""', document)
    assert 'data-arm="1" hidden=""' in document
    card = r'<details class="card cellcard" id="ktr-main-video-ktr-64-videommmu[^>]* open=""'
    assert re.search(card, document)  # the link into it opened it


# --- the network, strangers' text, the width -----------------------------------------------


def test_a_request_would_be_seen(tmp_path: Path, browser: Browser) -> None:
    """The control of the next test."""
    page = tmp_path / "bad.html"
    page.write_text('<!doctype html><img src="http://127.0.0.1:9/pixel.png">')
    assert browser(page).requests == ["http://127.0.0.1:9/pixel.png"]


def test_the_committed_results_as_a_page(tmp_path: Path, browser: Browser) -> None:
    """Of the real ledger: no request, no message, no sideways scrolling, the same bytes twice."""
    board, _ = publish.load_board(ROOT)
    page = report.build_suite(board, tmp_path / "a.html")
    again = report.build_suite(board, tmp_path / "b.html")
    assert page.read_bytes() == again.read_bytes() and page.stat().st_size < 2_000_000
    found = browser(page)
    assert found.requests == [] and found.console == ""
    html = page.read_text(encoding="utf-8")
    measure = (
        "<script>document.title = "
        "`wide ${document.documentElement.scrollWidth - innerWidth}`</script>"
    )
    for size in (PHONE, DESKTOP):
        measured = browser(page_with(html, measure, tmp_path / "m.html"), size)
        wide = re.search(r"<title>wide (-?\d+)</title>", measured.document)
        assert wide is not None and int(wide[1]) <= 0, size


def test_what_a_reply_holds_does_not_run(
    maker: Callable[..., ledger.Run], tmp_path: Path, browser: Browser
) -> None:
    evil = "<script>document.title='run'</script><img src=x onerror=\"document.title='run'\">"
    made = maker("ktr", 0, who=evil)
    rows = [said_by(row, evil) for row in made.rows]
    run = ledger.Run(made.record, tuple(rows), made.curves, made.tokens)
    page = report.build([run, maker("grpo", 0)], (), tmp_path / "r.html", title="quiet")
    for html in (page.read_text(encoding="utf-8"), CSP.sub("", page.read_text(encoding="utf-8"))):
        page.write_text(html, encoding="utf-8")  # with its policy, and without
        found = browser(page)
        assert "<title>quiet - ReelProof</title>" in found.document and found.console == ""
        assert found.requests == []
    assert "&lt;script&gt;document.title" in found.document


def said_by(row: ledger.Row, text: str) -> ledger.Row:
    """The row with a stranger's text wherever text goes."""
    return dataclasses.replace(row, reply=text, gold=text, prediction=text, detail=text)
