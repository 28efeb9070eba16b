"""The Makefile, where it does more than to call something."""

import shutil
import subprocess

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
