"""Takes the pictures of docs/verdicts.md again: a report of made runs that has every word.

python -m tests.pictures docs          needs Chromium
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from results import publish, report
from tests.results.conftest import make_paper_suite

ROOT = Path(__file__).parents[1]
#: The page's policy forbids scripts that are not its own.
CSP = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
ALONE = """<script>
const card = document.getElementById("%s"); card.open = true;
document.querySelector("main").replaceChildren(card);
document.querySelectorAll("body > :not(main)").forEach(e => e.remove());
</script></body>"""
#: Name -> the card that is shown alone, width and height of the window.
PICTURES = {
    "scoreboard": ("", 1180, 1000),
    "cell": ("ktr-main-video-ktr-64-videommmu-accuracy", 1180, 900),
}


def main(folder: Path) -> None:
    program = next(filter(shutil.which, ("chromium", "chromium-browser", "google-chrome")), None)
    if program is None:
        raise SystemExit("error: no Chromium on this machine; apt-get install chromium")
    with tempfile.TemporaryDirectory() as scratch:
        runs, page = Path(scratch, "runs"), Path(scratch, "report.html")
        make_paper_suite(runs)
        report.build_suite(publish.load_board(ROOT, runs)[0].only({"ktr"}), page)
        whole = CSP.sub("", page.read_text(encoding="utf-8"))
        for name, (card, width, height) in PICTURES.items():
            shown = Path(scratch, f"{name}.html")
            shown.write_text(whole.replace("</body>", ALONE % card) if card else whole)
            subprocess.run(
                [program, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                 f"--user-data-dir={scratch}/profile", f"--window-size={width},{height}",
                 f"--screenshot={folder / name}.png", shown.as_uri()],
                check=True, capture_output=True, timeout=120,
            )  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]))
