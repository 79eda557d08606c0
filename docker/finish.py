"""The last step of every image: our code compiled and named, the SBOM and the licences.

/opt/reelproof/sbom.cdx.json   CycloneDX: the Python packages as cyclonedx-py wrote them down, and
                               the system's with the versions that apt took
/opt/reelproof/LICENCES.txt    name, version and licence of each; the texts stay where their owners
                               put them: *.dist-info/licenses and /usr/share/doc/*/copyright
"""

import json
import subprocess
from pathlib import Path

SOURCE, VENV = Path("/opt/reelproof"), Path("/opt/venv")
NAME = "import setuptools.build_meta as b; b.prepare_metadata_for_build_wheel('.')"


def install():
    """The venv finds the code by its path; that gives it a version and quick imports too."""
    python = str(VENV / "bin" / "python")
    subprocess.run([python, "-c", NAME], check=True, cwd=SOURCE, stdout=subprocess.DEVNULL)
    code = ("repro", "evals", "results")
    subprocess.run([python, "-m", "compileall", "-q", *code], check=True, cwd=SOURCE)


def system_packages(told):
    """CycloneDX components from dpkg-query's lines `name<tab>version<tab>architecture`."""
    name, version = "ID=unknown", ""
    for line in Path("/etc/os-release").read_text().splitlines():
        name = line if line.startswith("ID=") else name
        version = line if line.startswith("VERSION_ID=") else version
    vendor = name.partition("=")[2].strip('"')
    release = vendor + "-" + version.partition("=")[2].strip('"')
    found = []
    for package, number, machine in (line.split("\t") for line in told.splitlines()):
        place = f"pkg:deb/{vendor}/{package}@{number}?arch={machine}&distro={release}"
        found.append(
            {"type": "library", "bom-ref": place, "name": package, "version": number,
             "purl": place.replace("+", "%2B")}
        )  # fmt: skip
    return found


def licence(component):
    """What a component says about its licence, in a few words."""
    said = []
    for entry in component.get("licenses", []):
        inner = entry.get("license", {})
        said.append(entry.get("expression") or inner.get("id") or inner.get("name") or "")
    if not said and component["purl"].startswith("pkg:deb/"):
        return f"/usr/share/doc/{component['name']}/copyright"
    return "; ".join(dict.fromkeys(text.strip().splitlines()[0] for text in said if text.strip()))


def write_sbom():
    told = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Package}\t${Version}\t${Architecture}\n"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    sbom = json.loads((VENV / "sbom.json").read_text())
    sbom["components"] += system_packages(told)
    (SOURCE / "sbom.cdx.json").write_text(json.dumps(sbom, indent=1) + "\n")
    lines = [
        f"{c['name']} {c.get('version', '')}: {licence(c) or 'not stated'}"
        for c in sbom["components"]
    ]
    (SOURCE / "LICENCES.txt").write_text("\n".join(sorted(lines)) + "\n")


def main():
    install()
    write_sbom()


if __name__ == "__main__":
    main()
