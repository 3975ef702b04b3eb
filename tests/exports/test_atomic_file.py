"""A file takes its place as a whole, and what others are writing is left alone."""

import os

import pytest

from billing_core.errors import BadParameter
from billing_core.exports.atomic_file import replacing
from tests.bound_by_modes import run_bound


def names(folder):
    return sorted(one.name for one in folder.iterdir())


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("old")
    with replacing(path) as file:
        file.write(b"new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert names(tmp_path) == ["a.csv"]


def test_an_error_leaves_nothing(tmp_path):
    def fails():
        with replacing(tmp_path / "a.csv") as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    assert names(tmp_path) == []


def test_parts_of_the_dead_are_removed_and_those_of_the_living_are_not(tmp_path):
    (tmp_path / ".a.csv.dead.part").write_text("half")
    (tmp_path / ".b.csv.dead.part").write_text("another file's")
    with replacing(tmp_path / "a.csv") as first:
        first.write(b"first")
        with replacing(tmp_path / "a.csv") as second:
            second.write(b"second")
        assert (tmp_path / "a.csv").read_bytes() == b"second"
    assert (tmp_path / "a.csv").read_bytes() == b"first"
    assert names(tmp_path) == [".b.csv.dead.part", "a.csv"]


def test_a_name_is_no_pattern(tmp_path):
    (tmp_path / ".abc.x.part").write_text("not ours")
    with replacing(tmp_path / "a*") as file:
        file.write(b"1")
    assert names(tmp_path) == [".abc.x.part", "a*"]


WRITE = """
import sys
from pathlib import Path
from billing_core.errors import BadParameter
from billing_core.exports.atomic_file import replacing
try:
    with replacing(Path(sys.argv[1])):
        pass
except BadParameter as error:
    print(error)
"""


def test_a_folder_nobody_may_write_to_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    done = run_bound(WRITE, str(tmp_path / "a.csv"))
    tmp_path.chmod(0o700)
    assert "Permission denied" in done.stdout, done.stderr
    assert names(tmp_path) == []


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(BadParameter, match="this is a folder"), replacing(tmp_path):
        pass


def test_a_pipe_or_a_device_is_not_replaced_and_a_link_goes_on_leading_to_its_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BadParameter, match="a device or a pipe"), replacing(tmp_path / "pipe"):
        pass
    assert (tmp_path / "pipe").is_fifo()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with replacing(tmp_path / "link") as file:
        file.write(b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"new"
