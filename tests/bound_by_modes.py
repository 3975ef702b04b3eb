"""Programs to which files and folders are closed as their modes say, whoever runs the tests.

Root may read and write everything, and much of CI is root. It stays the owner of its files, but loses what lets it pass
over their modes; that takes effect with the next program, so a process of its own drops it and becomes that program.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CANNOT = 77
ROOT = Path(__file__).parents[1]

_DROPS = """
import ctypes, os, sys
if os.geteuid() == 0:
    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        if ctypes.CDLL(None, use_errno=True).prctl(24, capability, 0, 0, 0):  # PR_CAPBSET_DROP
            sys.exit(77)
os.execv(sys.argv[1], sys.argv[1:])
"""


def run_bound(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Python code in such a process; its standard output and error are text. Skips where root may not give that up."""
    done = subprocess.run(
        [sys.executable, "-c", _DROPS, sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join((os.environ.get("PYTHONPATH", ""), str(ROOT))), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    if done.returncode == CANNOT:
        pytest.skip("root may not give up passing over modes here (CAP_SETPCAP)")
    return done
