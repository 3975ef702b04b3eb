"""What is installed is what was locked: every package at one version, every file known by its SHA-256."""

import re
from pathlib import Path

import pytest

LOCKS = ("requirements.txt", "requirements-dev.txt", "requirements-focus.txt")


def entries(lock: str) -> list[str]:
    """One text per package: its line and the hashes that continue it."""
    lines = [line for line in Path(lock).read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")]
    return "\n".join(lines).replace("\\\n", " ").splitlines()


@pytest.mark.parametrize("lock", LOCKS)
def test_every_package_stands_at_one_version_with_its_hashes(lock):
    form = re.compile(r"[a-z0-9._-]+(\[[a-z,]+\])?==[^\s;]+( ; [^-]+)?(\s+--hash=sha256:[0-9a-f]{64})+\s*")
    assert [entry for entry in entries(lock) if not form.fullmatch(entry)] == []
    assert len(entries(lock)) > 30


@pytest.mark.parametrize("lock", LOCKS)
def test_where_packages_come_from_is_left_to_the_machine(lock):
    assert "//" not in Path(lock).read_text(encoding="utf-8")
    assert "index" not in " ".join(entries(lock))


def test_make_installs_nothing_without_its_hash():
    installs = re.findall(r"pip install.*", Path("Makefile").read_text(encoding="utf-8"))
    assert installs
    assert all("--require-hashes" in line for line in installs)
