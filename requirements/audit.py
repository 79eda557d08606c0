"""Ask pip-audit about every lock, with the dated exceptions of audit.toml.

pip install --require-hashes --no-deps -r requirements/tools.lock && python requirements/audit.py
"""

import subprocess
import sys
import tomllib
from datetime import date, timedelta
from pathlib import Path

HERE = Path(__file__).resolve().parent
LOCKS = ("cpu.lock", "eval.lock", "train.lock", "tools.lock")
KEYS = {"id", "package", "reason", "since", "until"}
LONGEST = timedelta(days=90)  # chosen


def accepted(text, today):
    """Ids of the exceptions that hold today. Exits with a sentence for one that is wrong or old."""
    found = []
    for entry in tomllib.loads(text)["accepted"]:
        name = entry.get("id", "an exception without id")
        if set(entry) != KEYS or not all(entry.values()):
            sys.exit(f"error: {name} needs {', '.join(sorted(KEYS))}, and nothing else")
        if entry["until"] - entry["since"] > LONGEST:
            sys.exit(f"error: {name} is accepted for more than {LONGEST.days} days")
        if entry["until"] < today:
            sys.exit(
                f"error: {name} was accepted until {entry['until']}: update {entry['package']}"
            )
        found.append(name)
    return found


def main():
    ignored = accepted((HERE / "audit.toml").read_text(encoding="utf-8"), date.today())
    command = [sys.executable, "-m", "pip_audit", "--strict", "--no-deps", "--disable-pip",
               "--progress-spinner", "off"]  # fmt: skip
    for name in LOCKS:
        command += ["--requirement", str(HERE / name)]
    for hole in ignored:
        command += ["--ignore-vuln", hole]
    sys.exit(subprocess.run(command, check=False).returncode)


if __name__ == "__main__":
    main()
