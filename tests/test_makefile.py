"""The Makefile, where it does more than to call something."""

import os
import re
import shutil
import subprocess
import sys

from tests.service import BASE_DIR


def test_clean_removes_a_cluster_that_lies_elsewhere(tmp_path):
    checkout, elsewhere = tmp_path / "checkout", tmp_path / "elsewhere"
    (checkout / ".data").mkdir(parents=True)
    (elsewhere / "data").mkdir(parents=True)
    (checkout / ".data" / "postgresql").symlink_to(elsewhere)
    shutil.copy(BASE_DIR / "Makefile", checkout)
    subprocess.run(["make", "clean"], cwd=checkout, check=True, capture_output=True)
    assert [path.name for path in checkout.iterdir()] == ["Makefile"]
    assert not elsewhere.exists()


def test_clean_minds_nothing_that_is_missing(tmp_path):
    shutil.copy(BASE_DIR / "Makefile", tmp_path)
    subprocess.run(["make", "clean"], cwd=tmp_path, check=True, capture_output=True)
    assert [path.name for path in tmp_path.iterdir()] == ["Makefile"]


def test_two_that_install_at_once_do_not_take_each_other_s_environment_away(tmp_path):
    (tmp_path / "config").mkdir()
    for name in ("Makefile", "requirements.txt", "config/alone.py"):
        shutil.copy(BASE_DIR / name, tmp_path / name)
    (tmp_path / ".venv").mkdir()
    first = subprocess.Popen(
        [sys.executable, "-m", "config.alone", "sh", "-c", "echo begun; read -r line"],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with first:
        assert first.stdout.readline() == b"begun\n"
        second = subprocess.run(
            ["make", "run", f"PYTHON={sys.executable}"],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            check=False,
        )
        assert second.returncode == 2
        assert second.stderr.splitlines()[0] == (
            "Another `make` is installing in this folder. Wait until it has finished, and try again."
        )
        assert (tmp_path / ".venv").is_dir()
        first.communicate(b"end\n")
    assert first.returncode == 0
    subprocess.run([sys.executable, "-m", "config.alone", "true"], cwd=tmp_path, check=True)


def test_it_names_files_of_tests_that_are_there():
    named = re.findall(r"tests/\S+\.py\S*", (BASE_DIR / "Makefile").read_text())
    assert named
    assert [name for name in named if not (BASE_DIR / name).exists()] == []
