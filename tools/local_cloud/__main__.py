"""Start and stop the local cloud: python -m local_cloud up|down|status|sam-local."""

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

import click

from .cloud import PROJECT, is_running, start, stop
from .errors import LocalCloudError
from .sam_local import reachable_from_containers

_state = click.option(
    "--state", type=click.Path(path_type=Path), default=PROJECT / ".local", help="The folder for its files."
)


@click.group()
def main() -> None:
    """An AWS emulator and PostgreSQL on loopback, with the stack deployed."""


@main.command()
@_state
def up(state: Path) -> None:
    """Start it, deploy the stack and write the file to source. If it is running, only deploy again."""
    begun = time.monotonic()

    def say(what: str) -> None:
        print(f"[{time.monotonic() - begun:5.1f} s] {what}", flush=True)

    cloud = start(state, say)
    say("ready")
    folder = os.path.relpath(state)
    users = "\n".join(f"       {user:8} {password}" for user, password in cloud.console_passwords.items())
    print(f"\nNext:  . {folder}/env")
    print(f"       ota-sign sign {folder}/app.bin --product demo   # a real image; it prints the commands that drop it")
    print("Stop:  make stop")
    print(f"See:   {cloud.console_url}\n{users}")


@main.command()
@_state
def down(state: Path) -> None:
    """Stop it."""
    print("stopped" if stop(state) else "nothing was running")


@main.command()
@_state
def status(state: Path) -> None:
    """Print whether it is running; the exit code is 0 if it is."""
    alive = is_running(state)
    print("running" if alive else "not running")
    sys.exit(not alive)


@main.command()
@_state
def sam_local(state: Path) -> None:
    """Let `sam local invoke` reach it until Ctrl-C; start it if it is not running."""
    cloud = start(state, print)
    print("building the stack for AWS's runtime")
    with reachable_from_containers(cloud) as prepared:
        command = " ".join(prepared.command)
        print(f"\nNext, in another shell:  . {os.path.relpath(state)}/env\n  {command} --event EVENT.json FUNCTION")
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        main(standalone_mode=False)
    except LocalCloudError as error:
        sys.exit(f"local cloud: {error}")
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        sys.exit("local cloud: interrupted; everything it started is stopped")
