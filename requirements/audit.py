"""Ask pip-audit about every lock, with the dated exceptions of audit.toml.

    pip install --require-hashes --no-deps -r requirements/tools.lock
    python requirements/audit.py [--vulnerability-service osv ...]      options are pip-audit's own

Exit code 1 for a hole that is not accepted, 2 where something could not be audited.
"""

import json
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


def ask(name, options):
    """pip-audit's answer about one lock: its `dependencies`. One lock at a time: it refuses a
    package that two files name. Exits with a sentence where it gives no answer."""
    done = subprocess.run(
        [sys.executable, "-m", "pip_audit", "--no-deps", "--disable-pip", "--progress-spinner",
         "off", "--format", "json", "--requirement", str(HERE / name), *options],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    try:
        return json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        refuse(f"{name} could not be audited: {said[-1]}")


def refuse(sentence):
    print(f"error: {sentence}; this needs pip-audit (requirements/tools.lock) and a network that "
          "reaches its database", file=sys.stderr)  # fmt: skip
    sys.exit(2)


def holes(packages, ignored):
    """A line for every known hole that is not accepted, by its id or another name of it."""
    found = []
    for package in packages:
        for hole in package.get("vulns", []):
            if not {hole["id"], *hole.get("aliases", [])} & set(ignored):
                mended = ", ".join(hole.get("fix_versions", [])) or "no version yet"
                named = " ".join([hole["id"], *hole.get("aliases", [])])
                found.append(f"{package['name']} {package['version']}: {named}; mended in {mended}")
    return sorted(set(found))


def main():
    ignored = accepted((HERE / "audit.toml").read_text(encoding="utf-8"), date.today())
    packages = [p for name in LOCKS for p in ask(name, sys.argv[1:])]
    unknown = sorted({p["name"]: p["skip_reason"] for p in packages if "skip_reason" in p}.items())
    if unknown:
        refuse(f"{len(unknown)} packages could not be audited, first {': '.join(unknown[0])}")
    found = holes(packages, ignored)
    print(f"{len({(p['name'], p['version']) for p in packages})} packages in {len(LOCKS)} locks, "
          f"{len(found)} known holes, {len(ignored)} accepted for a while")  # fmt: skip
    if found:
        sys.exit("\n".join([*found, "error: update these, or accept them in audit.toml"]))


if __name__ == "__main__":
    main()
