"""On a fresh machine the packages are installed, or the command to run is said; here by fakes of the system's tools."""

import fcntl
import os
import pty
import shutil
import subprocess
import sys
import termios

import pytest

FAKES = {
    "apt-get": """
        echo "apt-get $*" >>"$MACHINE/calls"
        case " $* " in *" install "*) ;; *) exit 0 ;; esac
        if [ -e "$MACHINE/offline" ]; then echo "E: Unable to locate package" >&2; exit 100; fi
        for package; do echo "$package" >>"$MACHINE/installed"; done
        """,
    "brew": """shift 2; grep -qx "$1" "$MACHINE/installed" """,
    "dpkg-query": """
        for package; do :; done
        grep -qx "$package" "$MACHINE/installed" && printf installed
        """,
    "id": "echo 1000",
    "python3": """case $2 in "import ensurepip") exit 1 ;; *) echo python3.12-venv ;; esac""",
    "sudo": """
        if [ "$1" = -n ]; then test -e "$MACHINE/free"; exit; fi
        test -e "$MACHINE/free" || echo "sudo asks" >>"$MACHINE/calls"
        exec "$@"
        """,
    "uname": "echo Linux",
}
REAL = ["cat", "dirname", "grep", "mkdir", "sh", "tail"]


class Machine:
    """A folder that is all of PATH: a Debian machine of a person who may use sudo with a password."""

    def __init__(self, folder, project):
        self.folder = folder
        self.programs = folder / "bin"
        self.project = folder / "project"
        self.programs.mkdir()
        (self.project / "tools").mkdir(parents=True)
        shutil.copy(project / "tools" / "install_packages.sh", self.project / "tools")
        shutil.copy(project / "Makefile", self.project)
        for name, script in FAKES.items():
            self.fake(name, script)
        for name in REAL:
            (self.programs / name).symlink_to(shutil.which(name))
        (folder / "installed").touch()
        (folder / "calls").touch()

    def fake(self, name, script=""):
        (self.programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (self.programs / name).chmod(0o755)

    def lacks(self, name):
        (self.programs / name).unlink()

    def is_roots(self):
        self.fake("id", "echo 0")
        self.lacks("sudo")

    def install(self, *groups, **options):
        return self.run(self.project / "tools" / "install_packages.sh", *groups, **options)

    def run(self, *command, **options):
        return subprocess.run(
            command,
            cwd=self.project,
            env={"PATH": str(self.programs), "MACHINE": str(self.folder)},
            capture_output=True,
            text=True,
            check=False,
            start_new_session=True,  # without the terminal in which the tests may run
            **{"stdin": subprocess.DEVNULL} | options,
        )

    @property
    def calls(self):
        return (self.folder / "calls").read_text().splitlines()


@pytest.fixture
def machine(tmp_path, project):
    return Machine(tmp_path, project)


UPDATE = "apt-get -qq update"
INSTALL = "apt-get -qq -y --no-install-recommends --no-remove -o DPkg::Lock::Timeout=600 install"
BY_HAND = "apt-get install --no-install-recommends"


def test_root_installs_what_is_missing_and_says_so_in_one_line(machine):
    machine.is_roots()
    machine.fake("openssl")
    done = machine.install("firmware-test", "demo")
    assert (done.returncode, done.stdout, done.stderr) == (0, "packages: installing mosquitto\n", "")
    assert machine.calls == [UPDATE, f"{INSTALL} mosquitto"]


def test_second_run_installs_nothing_and_says_nothing(machine):
    machine.is_roots()
    assert machine.install("firmware", "firmware-test", "fuzz", "test", "ci", "engine").returncode == 0
    done = machine.install("firmware", "firmware-test", "fuzz", "test", "ci", "engine")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert len(machine.calls) == 2


def test_no_group_needs_nothing(machine):
    done = machine.install()
    assert (done.returncode, done.stdout, done.stderr, machine.calls) == (0, "", "", [])


def test_package_of_two_groups_is_installed_once(machine):
    machine.is_roots()
    machine.install("demo", "test", "firmware-test")
    assert [call.split().count("openssl") for call in machine.calls] == [0, 1]


@pytest.mark.parametrize("browser", ["chromium", "chromium-browser", "google-chrome"])
def test_program_of_another_origin_will_do(machine, browser):
    machine.is_roots()
    for name in ("openssl", "curl", "wget", "psql", browser):
        machine.fake(name)
    assert machine.install("test").stdout == ""


def test_venv_comes_from_the_package_of_the_very_python(machine):
    machine.is_roots()
    assert machine.install("python").stdout == "packages: installing python3.12-venv\n"
    machine.fake("python3")
    assert machine.install("python").stdout == ""


def test_sudo_without_a_password_is_used(machine):
    (machine.folder / "free").touch()
    done = machine.install("demo")
    assert (done.returncode, done.stdout) == (0, "packages: installing openssl (with sudo)\n")
    assert machine.calls == [UPDATE, f"{INSTALL} openssl"]


@pytest.fixture
def terminal():
    ours, theirs = pty.openpty()
    yield theirs
    os.close(ours)
    os.close(theirs)


def test_sudo_asks_once_in_a_terminal(machine, terminal):
    done = machine.install(
        "demo", stdin=terminal, preexec_fn=lambda: fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
    )  # its session's
    line = "packages: installing openssl (with sudo, which asks for your password)\n"
    assert (done.returncode, done.stdout) == (0, line)
    assert machine.calls == ["sudo asks", UPDATE, f"{INSTALL} openssl"]


def test_terminal_in_which_sudo_could_not_ask_is_none(machine, terminal):
    assert (machine.install("demo", stdin=terminal).returncode, machine.calls) == (1, [])


def test_without_a_terminal_the_command_is_said_at_once(machine):
    done = machine.install("demo", "firmware-test")
    assert (done.returncode, done.stdout, machine.calls) == (1, "", [])
    assert done.stderr.splitlines()[1:] == [f"  sudo apt-get update && sudo {BY_HAND} openssl mosquitto"]


def test_without_sudo_the_command_is_one_for_root(machine):
    machine.lacks("sudo")
    done = machine.install("demo")
    assert (done.returncode, machine.calls) == (1, [])
    assert done.stderr.splitlines()[1:] == [f"  su -c 'apt-get update && {BY_HAND} openssl'"]


def test_failed_installation_shows_why_and_what_to_run(machine):
    machine.is_roots()
    (machine.folder / "offline").touch()
    done = machine.install("demo")
    assert (done.returncode, done.stdout) == (1, "packages: installing openssl\n")
    why, _, command = done.stderr.splitlines()
    assert why == "E: Unable to locate package"
    assert command == f"  apt-get update && {BY_HAND} openssl"


def test_macos_gets_the_line_of_homebrew(machine):
    machine.fake("uname", "echo Darwin")
    machine.lacks("apt-get")
    machine.fake("c++")
    machine.fake("curl-config")
    (machine.folder / "installed").write_text("googletest\n")
    done = machine.install("firmware")
    assert (done.returncode, machine.calls) == (1, [])
    assert done.stderr.splitlines()[1:] == ["  brew install cmake ninja mosquitto mbedtls"]
    (machine.folder / "installed").write_text("googletest\ncmake\nninja\nmosquitto\nmbedtls\n")
    assert machine.install("firmware").returncode == 0


def test_other_systems_are_told_what_debian_calls_it(machine):
    machine.lacks("apt-get")
    machine.fake("c++")
    done = machine.install("firmware")
    assert done.returncode == 1
    assert done.stderr.splitlines()[1:] == ["  cmake ninja-build libcurl4-openssl-dev"]
    for name in ("cmake", "ninja", "curl-config"):
        machine.fake(name)
    assert machine.install("firmware").returncode == 0


def test_unknown_group_is_refused(machine):
    machine.is_roots()
    done = machine.install("demo", "firm")
    assert (done.returncode, done.stderr, machine.calls) == (2, "packages: there is no group firm\n", [])


# --- by the Makefile ------------------------------------------------------------------------------------------------


@pytest.fixture
def make(machine):
    for requirements in ("dev", "uv", "emulator", "checkov", "bench", "goosebit"):
        file = machine.project / "requirements" / f"{requirements}.txt"
        file.parent.mkdir(exist_ok=True)
        file.touch()
    (machine.project / "pyproject.toml").touch()
    machine.fake("nproc", "echo 1")
    program = shutil.which("make")
    return lambda *arguments: machine.run(program, f"PYTHON={sys.executable}", *arguments)


HOST_BUILD = {"g++", "cmake", "ninja-build", "libcurl4-openssl-dev", "libmosquitto-dev", "libmbedtls-dev"}
HOST_TESTS = HOST_BUILD | {"mosquitto", "openssl"}
CHROMIUM = {"chromium"}


@pytest.mark.parametrize(
    ("goal", "needed", "not_needed"),
    [
        (["demo"], HOST_BUILD | {"openssl"}, CHROMIUM),
        (["demo", "DEVICES=0"], {"openssl"}, HOST_BUILD | CHROMIUM),
        (["test"], HOST_TESTS | CHROMIUM | {"clang", "libclang-rt-dev", "curl", "wget", "postgresql-client"}, set()),
        (["test-apart"], HOST_TESTS | CHROMIUM, set()),
        (["test-in-cloud"], HOST_TESTS | CHROMIUM, set()),
        (["test-firmware"], HOST_TESTS, CHROMIUM),
        (["bench"], HOST_BUILD, CHROMIUM),
        (["bench", "ONLY=peer device"], HOST_BUILD, CHROMIUM),
        (["fuzz"], {"clang", "cmake", "ninja-build", "libmbedtls-dev"}, CHROMIUM),
        (["prove"], HOST_TESTS | CHROMIUM, set()),
        (["demo", "test"], HOST_TESTS | CHROMIUM, set()),
    ],
)
def test_command_ends_at_once_with_the_packages_that_it_needs(machine, make, goal, needed, not_needed):
    done = make(*goal)
    assert done.returncode != 0
    [command] = [line for line in done.stderr.splitlines() if BY_HAND in line]
    named = set(command.split(BY_HAND)[1].split())
    assert needed <= named
    assert not named & not_needed
    assert not (machine.project / ".venv").exists()


def test_demo_says_how_to_do_without_devices(make):
    hint = "make demo DEVICES=0"
    assert hint in make("demo").stderr
    assert hint not in make("demo", "DEVICES=0").stderr
    assert hint not in make("test").stderr


def test_bench_without_the_device_needs_no_toolchain(make):
    def groups(row):
        [line] = [
            line for line in make("--dry-run", "bench", f"ONLY={row}").stdout.splitlines() if "packages.sh" in line
        ]
        return line.split("packages.sh")[1].split()

    assert groups("publish") == ["python"]
    assert groups("device") == ["firmware", "python"]


def test_ci_installs_by_groups_that_there_are(machine, project):
    machine.is_roots()
    calls = [line.split()[1:] for line in (project / ".ci" / "run").read_text().splitlines() if "packages.sh" in line]
    assert calls == [["ci"], ["engine"]]
    assert machine.install(*(group for groups in calls for group in groups)).returncode == 0
