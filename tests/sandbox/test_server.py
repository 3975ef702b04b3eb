from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest

from billing_core.errors import UpstreamError
from billing_core.sandbox.server import SandboxProcess, environment_for
from billing_core.settings import Mode, load_settings

ROOT = Path(__file__).parents[2]

PARENT = """
import sys
from billing_core.sandbox.server import SandboxProcess
process = SandboxProcess(events=5).start()
print(process.pid, process.url, flush=True)
sys.stdin.read()
"""


def is_gone(pid, seconds=10):
    try:
        psutil.Process(pid).wait(seconds)
    except psutil.NoSuchProcess:
        return True
    except psutil.TimeoutExpired:
        return False
    return True


def test_it_listens_quickly_whatever_the_amount_of_data():
    begin = time.monotonic()
    with SandboxProcess(events=20_000) as process:
        seconds = time.monotonic() - begin
        assert httpx.get(process.url + "/api/public/health").status_code == 200
    assert seconds < 5  # half a second on an idle machine; data alone takes longer than two


def test_its_environment_is_a_complete_connection(sandbox):
    assert sandbox.environment == environment_for(sandbox.url)
    settings = load_settings(sandbox.environment, env_file=None)
    assert (settings.mode, settings.langfuse_host, settings.stripe_api_base) == (Mode.LIVE, sandbox.url, sandbox.url)
    assert "BILLING_MODE" not in sandbox.environment


def test_it_ends_with_the_block():
    with SandboxProcess(events=5) as process:
        pid = process.pid
    assert is_gone(pid)


@pytest.mark.skipif(sys.platform == "win32", reason="kills by signal")
def test_it_does_not_outlive_a_killed_parent():
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with parent:
        pid, url = parent.stdout.readline().split()
        assert httpx.get(url + "/api/public/health").status_code == 200
        os.kill(parent.pid, signal.SIGKILL)
    assert is_gone(int(pid))
    with pytest.raises(httpx.ConnectError):
        httpx.get(url + "/api/public/health")


def test_the_command_prints_the_environment_and_ends_with_ctrl_c():
    command = [sys.executable, "-m", "billing_core.sandbox", "--events=5"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        lines = [process.stdout.readline().strip() for _ in range(5)]
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
        assert process.stderr.read() == ""
    printed = dict(line.removeprefix("export ").split("=", 1) for line in lines)
    assert printed == environment_for(printed["LANGFUSE_HOST"])


def test_a_taken_port_is_one_clear_line_and_exit_code_2():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "billing_core.sandbox", f"--port={port}"]
        process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert process.returncode == 2
    assert f"port {port} on 127.0.0.1 cannot be listened on" in process.stderr
    assert process.stderr.count("\n") == 1


def test_a_child_that_cannot_start_is_an_error_that_says_what_to_do(capfd):
    with pytest.raises(UpstreamError, match="ended with code 2; `python -m billing_core sandbox`"):
        SandboxProcess(events=0).start()
    assert "events: 0 is not accepted" in capfd.readouterr().err
