"""What was started is found again and ended, and nobody else is."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from local_cloud import LocalCloudError, stop
from local_cloud.emulator import start_emulator
from local_cloud.processes import ServerProcess, clean_environment, stop_strays

SLEEPER = "import time; print('up', flush=True); time.sleep(600)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEPER}"
WITH_CHILD = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {STUBBORN!r}]); {SLEEPER}"


@pytest.fixture
def start(tmp_path):
    started = []

    def run(program):
        process = ServerProcess.start(
            [sys.executable, "-c", program],
            environment=clean_environment(),
            folder=tmp_path,
            log=tmp_path / "log",
            record=tmp_path / "record",
        )
        started.append(process)
        until(lambda: "up" in (tmp_path / "log").read_text())
        return process

    yield run
    for process in started:
        process.stop(signal.SIGKILL, 1)


def until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_recorded_server_is_found_again_and_stopped(start, tmp_path):
    started = start(SLEEPER)
    found = ServerProcess.load(tmp_path / "record")
    assert found == started
    found.stop(signal.SIGTERM, 5)
    assert not psutil.pid_exists(started.pid)
    assert ServerProcess.load(tmp_path / "record") is None


def test_server_that_ignores_the_polite_signal_is_killed(start):
    process = start(STUBBORN)
    process.stop(signal.SIGTERM, 0.2)
    assert not process.is_running()


def test_children_end_with_their_server(start):
    process = start(WITH_CHILD)
    children = psutil.Process(process.pid).children()
    assert children
    process.stop(signal.SIGTERM, 5)
    assert not any(child.is_running() for child in children)


def test_stranger_who_has_the_recorded_pid_is_spared(tmp_path):
    """After a restart of the machine, say, the pid of a record may be anybody's."""
    stranger = subprocess.Popen([sys.executable, "-c", SLEEPER], stdout=subprocess.DEVNULL)
    try:
        started = psutil.Process(stranger.pid).create_time()
        record = tmp_path / "record"
        record.write_text(json.dumps({"pid": stranger.pid, "started": started - 3600}))
        assert ServerProcess.load(record) is None
        ServerProcess(stranger.pid, started - 3600).stop(signal.SIGKILL, 1)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_half_written_record_counts_as_none(tmp_path):
    record = tmp_path / "record"
    record.write_text('{"pid": 1')
    assert ServerProcess.load(record) is None


def test_workers_that_outlived_their_server_are_ended_and_nobody_else(tmp_path):
    """Somebody who looks at a file of that folder is no worker."""
    worker_file = tmp_path / "tmp" / "worker.py"
    worker_file.parent.mkdir()
    worker_file.write_text(SLEEPER)
    worker = subprocess.Popen([sys.executable, worker_file], stdout=subprocess.DEVNULL)
    os.mkfifo(worker_file.with_name("pipe"))
    onlooker = subprocess.Popen(["cat", worker_file.with_name("pipe")], stdout=subprocess.DEVNULL)
    elsewhere = subprocess.Popen([sys.executable, "-c", SLEEPER, worker_file], stdout=subprocess.DEVNULL)
    try:
        stop_strays(worker_file.parent)
        assert worker.wait(timeout=5) == -signal.SIGKILL
        assert onlooker.poll() is None
        assert elsewhere.poll() is None
    finally:
        for process in (worker, onlooker, elsewhere):
            process.kill()
            process.wait()


def test_environment_of_servers_holds_nothing_of_the_users_aws_configuration(monkeypatch):
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL_S3", "PGSERVICE", "PYTHONPATH", "OTA_SIGNING_KEY_PASSPHRASE"):
        monkeypatch.setenv(name, "mine")
    environment = clean_environment(AWS_ENDPOINT_URL="http://127.0.0.1:1")
    assert "mine" not in environment.values()
    assert environment["AWS_ENDPOINT_URL"] == "http://127.0.0.1:1"
    assert environment["HOME"] == os.environ["HOME"]


def test_missing_emulator_says_what_to_do(tmp_path):
    with pytest.raises(LocalCloudError, match="make setup"):
        start_emulator(tmp_path / "python", tmp_path / "tmp", tmp_path / "log", tmp_path / "record")


def test_emulator_that_does_not_start_is_reported_with_the_end_of_its_log(tmp_path):
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho no such module >&2\nexit 1\n")
    broken.chmod(0o755)
    with pytest.raises(LocalCloudError, match="no such module"):
        start_emulator(broken, tmp_path / "tmp", tmp_path / "log", tmp_path / "record")


def test_stopping_what_was_never_started_is_no_error(tmp_path):
    assert stop(tmp_path / "nothing") is False
    assert not (tmp_path / "nothing").exists()
