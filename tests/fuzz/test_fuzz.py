"""A bounded run of `python -m tests.fuzz`, the same inputs every time."""

import sys

import pytest

from tests.fuzz.run import fuzz


@pytest.mark.skipif(sys.platform != "linux", reason="limits a process's memory as Linux does")
def test_damaged_files_are_refused_by_name_or_read():
    assert fuzz(600, seed=1) == []
