"""Show the way of a release: sign, drop, and see devices told; then see a tampered drop rejected.

Everything happens on this machine, in a local cloud of its own that is stopped at the end, however the end comes.
"""

import base64
import hashlib
import importlib.metadata
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import requests
from local_cloud import LocalCloud, LocalCloudError, Message, Subscriber, running
from local_cloud.simulated_device import SimulatedDevice, build_ota_device
from rich.console import Console

PROJECT = Path(__file__).resolve().parents[1]
MACS = ["AA:BB:CC:00:00:01", "AA:BB:CC:00:00:02"]
STAGES = {
    "ValidateSignature": "validation",
    "ValidateAgain": "validation",
    "RegisterMetadata": "registration",
    "ResolveOnlyWave": "resolution",
    "PublishBatches": None,
    "RecordWave": "advance",
    "ArchiveDrop": None,
    "SettleInvalidDrop": "rejection",
}
TELLING = (
    "outcome",
    "step",
    "settled",
    "code",
    "version",
    "batches",
    "messages",
    "grace_seconds",
)
WAIT_SECONDS = 90.0
CHUNK_BYTES = 64 * 1024
FLEET_TOPICS = ["/firmware_update", "/firmware_update/product/mxdbg"]

console = Console(highlight=False)


def main() -> None:
    """Run the demonstration.

    Raises:
        LocalCloudError: Something was not as it has to be.
    """
    begun = time.monotonic()

    def progress(what: str) -> None:
        console.print(f"  [dim]{time.monotonic() - begun:5.1f} s[/dim]  {what}")

    headline("A local cloud: AWS emulator with IAM checking on, PostgreSQL over TLS, the real template")
    with running(PROJECT / ".local-demo", progress) as cloud, tempfile.TemporaryDirectory() as folder:
        build = Path(folder)
        copy_image(build / "mxdbg.bin")
        make_key(cloud, build)
        release(cloud, build)
        download(cloud, build)
        update_devices(cloud, build)
        tampered_drop(cloud, build)
        headline("Stopping everything")
    console.print(f"\n[bold green]All of it was seen, in {time.monotonic() - begun:.0f} s.[/bold green]")


def copy_image(place: Path) -> None:
    """Take a real ESP32-S3 application image: the one inside the package mxdbg (Apache-2.0)."""
    files = importlib.metadata.files("mxdbg") or []
    shutil.copyfile(next(file for file in files if file.name == "mxdbg.bin").locate(), place)


def make_key(cloud: LocalCloud, build: Path) -> None:
    """Make a signing key and let the stack trust it, by the commands that `ota-sign` names."""
    headline("A signing key that the stack trusts")
    shell(cloud, build, "ota-sign keygen private.pem --public public.pem >keygen.out 2>keygen.err")
    trust = next(line for line in (build / "keygen.err").read_text().splitlines() if "put-parameter" in line)
    shell(cloud, build, trust.strip().replace("/STACK/", "/ota/"))


def release(cloud: LocalCloud, build: Path) -> None:
    """Sign the image, drop it, and see what the pipeline did and what the devices heard."""
    headline("Signing a real image")
    commands = sign(cloud, build, "mxdbg.bin", "1.0.0", "Shows the way of a release")

    headline(f"Two devices subscribe over mutual TLS: {', '.join(MACS)}")
    with cloud.subscriber(MACS[0], FLEET_TOPICS) as first, cloud.subscriber(MACS[1], FLEET_TOPICS) as second:
        headline("Dropping it into the inbox")
        for command in commands:
            shell(cloud, build, command)
        history = follow(cloud, "published", lambda states: "AnnounceRelease" in states)
        headline("What each stage did")
        print_stages(history)
        headline("What the devices heard")
        sha256 = hashlib.sha256((build / "mxdbg.bin").read_bytes()).hexdigest()
        for mac, subscriber in zip(MACS, (first, second), strict=True):
            messages = hear(subscriber, mac, sha256)
            console.print(
                f"  {mac} on {' and '.join(message.topic for message in messages)}", markup=False, soft_wrap=True
            )
        print_notification(messages[0])


def download(cloud: LocalCloud, build: Path) -> None:
    """Download the image in chunks as a device does, over a link that is cut on the way, and verify it.

    Raises:
        LocalCloudError: What came is not what was signed.
    """
    headline(f"Downloading it in chunks of {CHUNK_BYTES // 1024} KiB, over a link that is cut in the middle of some")
    notification = cloud.client("iot-data").get_retained_message(topic="/firmware_update/product/mxdbg")["payload"]
    release = json.loads(notification)
    image, requests_made, cuts = b"", 0, 0
    session = requests.Session()
    session.headers["x-api-key"] = cloud.environment["OTA_API_KEY"]
    while len(image) < release["size"]:
        requests_made += 1
        last = min(len(image) + CHUNK_BYTES, release["size"]) - 1
        wanted = {"Range": f"bytes={len(image)}-{last}", "If-Range": f'"{release["sha256"]}"'}
        with session.get(release["url"], headers=wanted, stream=True, timeout=30) as answer:
            if answer.status_code != requests.codes.partial_content:
                raise LocalCloudError(f"The API answered {answer.status_code}, not 206.", answer.text[:200])
            cut = requests_made % 3 == 2
            cuts += cut
            image += answer.raw.read(CHUNK_BYTES // 3 if cut else CHUNK_BYTES)
    console.print(f"  {len(image)} bytes in {requests_made} requests, {cuts} of them cut", soft_wrap=True)
    if hashlib.sha256(image).hexdigest() != release["sha256"]:
        raise LocalCloudError("The downloaded image has another SHA-256 than was announced.", "That must never happen.")
    (build / "downloaded.bin").write_bytes(image)
    (build / "downloaded.sig").write_bytes(base64.b64decode(release["signature"]))
    console.print(f"  SHA-256 {release['sha256']}: as announced", soft_wrap=True)
    shell(cloud, build, "openssl dgst -sha256 -verify public.pem -signature downloaded.sig downloaded.bin")


def update_devices(cloud: LocalCloud, build: Path) -> None:
    """Let devices that run the firmware's own update code update themselves: listed, not listed, and late."""
    listed, late, bystander = "AA:BB:CC:00:00:03", "AA:BB:CC:00:00:04", "AA:BB:CC:00:00:05"
    headline("Devices that run the firmware's update code: one is listed, one is not, one is switched on afterwards")
    try:
        program = build_ota_device(build / "ota_device.log")
    except LocalCloudError as error:
        console.print(f"  left out: {error}", markup=False, soft_wrap=True)
        return

    def device(mac: str) -> SimulatedDevice:
        return SimulatedDevice(
            program, cloud, build, mac=mac, product="mxdbg", trusted_key=build / "public.pem", version="1.0.0"
        )

    with device(listed) as first, device(bystander) as other:
        for switched_on in (first, other):
            switched_on.wait_for_event("checked_in")
        (build / "devices.json").write_text(json.dumps([listed, late]))
        for command in sign(cloud, build, "mxdbg.bin", "1.1.0", "For two devices", "--target devices.json"):
            shell(cloud, build, command)
        first.wait_for_event("installed", WAIT_SECONDS)
        with device(late) as second:
            second.wait_for_event("installed", WAIT_SECONDS)
            for mac, seen in ((listed, first), (late, second), (bystander, other)):
                states = [event["state"] for event in seen.events if event["event"] == "status"]
                said = ", ".join(dict.fromkeys(states)) or "nothing"
                console.print(f"  {mac} runs {seen.running_version} and said: {said}", markup=False, soft_wrap=True)
            if (first.running_version, second.running_version, other.running_version) != ("1.1.0", "1.1.0", "1.0.0"):
                raise LocalCloudError("A device does not run what it should.", "See above.")


def tampered_drop(cloud: LocalCloud, build: Path) -> None:
    """Drop an image that was changed after it was signed, and see it rejected, and the devices told nothing."""
    headline("A tampered drop: one bit of the image is changed after it was signed")
    sha256 = hashlib.sha256((build / "mxdbg.bin").read_bytes()).hexdigest()
    image = build / "tampered.bin"
    shutil.copyfile(build / "mxdbg.bin", image)
    commands = sign(cloud, build, image.name, "1.0.1", "Never to be seen")
    content = bytearray(image.read_bytes())
    content[len(content) // 2] ^= 1
    image.write_bytes(content)
    with cloud.subscriber(MACS[0], FLEET_TOPICS) as subscriber:
        retained = hear(subscriber, MACS[0], sha256)
        for command in commands:
            shell(cloud, build, command)
        print_stages(follow(cloud, "rejected", lambda states: "AnnounceRejection" in states))
        if subscriber.wait_for(len(retained) + 1, 1) != retained:
            raise LocalCloudError("A device was told of the tampered release.", "That must never happen.")
    s3 = cloud.client("s3")
    found = s3.list_objects_v2(Bucket=cloud.bucket, Prefix="rejected/").get("Contents", [])
    reasons = [item["Key"] for item in found if item["Key"].endswith("tampered.reason.json")]
    if len(reasons) != 1:
        raise LocalCloudError(
            f"Expected one tampered.reason.json under rejected/, found {reasons}.", "See the history."
        )
    reason = json.load(s3.get_object(Bucket=cloud.bucket, Key=reasons[0])["Body"])
    console.print(f"  s3://{cloud.bucket}/{reasons[0]}")
    for line in ("code", "message", "stage", "at"):
        console.print(f"    {line}: {reason[line]}", markup=False, soft_wrap=True)
    if reason["code"] != "image_sha256_mismatch":
        raise LocalCloudError(f"It was rejected as {reason['code']}, not as image_sha256_mismatch.", "See above.")


def sign(cloud: LocalCloud, build: Path, image: str, version: str, changelog: str, options: str = "") -> list[str]:
    """Sign an image.

    Returns:
        The `aws s3 cp` commands that `ota-sign` prints.
    """
    options = f'--key private.pem --product mxdbg --version {version} --changelog "{changelog}" {options}'.rstrip()
    output = shell(cloud, build, f"ota-sign sign {image} {options}")
    return [line for line in output.splitlines() if line.startswith("aws s3 cp ")]


def shell(cloud: LocalCloud, folder: Path, command: str) -> str:
    """Run a command as somebody would who has sourced the environment file.

    Returns:
        Its standard output.

    Raises:
        LocalCloudError: It fails.
    """
    console.print(f"  $ {command}", style="cyan", markup=False, soft_wrap=True)
    done = subprocess.run(
        ["sh", "-c", command],
        cwd=folder,
        env=cloud.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise LocalCloudError(f"`{command}` failed:\n{done.stdout}{done.stderr}", "See what it says.")
    return done.stdout


def follow(cloud: LocalCloud, what: str, done: Callable[[set[str]], bool]) -> list[dict[str, Any]]:
    """Wait until a new execution has gone through the state that says the outcome, showing where they are.

    Returns:
        That execution's history.
    """
    client = cloud.client("stepfunctions")
    begun = time.monotonic()
    with console.status("waiting for the pipeline") as status:
        while (waited := time.monotonic() - begun) < WAIT_SECONDS:
            for execution in cloud.executions():
                history = client.get_execution_history(executionArn=execution["executionArn"], maxResults=1000)[
                    "events"
                ]
                entered = [event["stateEnteredEventDetails"]["name"] for event in history if _enters(event)]
                if execution["status"] == "RUNNING" and entered:
                    status.update(f"waiting for the pipeline ({waited:.0f} s): {entered[-1]}")
                if execution["status"] == "SUCCEEDED" and done(set(entered)):
                    return list(history)
                if execution["status"] in {"FAILED", "TIMED_OUT", "ABORTED"}:
                    raise LocalCloudError(f"An execution has {execution['status']}: {history[-1]}", "See its history.")
            time.sleep(0.3)
    raise LocalCloudError(f"No drop was {what} within {WAIT_SECONDS:.0f} s.", "See the executions' history.")


def _enters(event: dict[str, Any]) -> bool:
    return "stateEnteredEventDetails" in event


def print_stages(history: list[dict[str, Any]]) -> None:
    """Print each stage's duration and outcome, from an execution's history."""
    entered: dict[str, datetime] = {}
    for event in history:
        if _enters(event):
            entered[event["stateEnteredEventDetails"]["name"]] = event["timestamp"]
        details = event.get("stateExitedEventDetails", {})
        name = details.get("name")
        if name not in STAGES:
            continue
        seconds = (event["timestamp"] - entered[name]).total_seconds()
        result = json.loads(details["output"]).get(STAGES[name] or "", {})
        text = ", ".join(f"{key} {result[key]}" for key in TELLING if key in result) or "done"
        console.print(f"  {seconds:5.2f} s  {name:<18} {text}", markup=False, soft_wrap=True)


def hear(subscriber: Subscriber, mac: str, sha256: str) -> list[Message]:
    """Wait for a device's notifications and check them.

    Raises:
        LocalCloudError: It did not hear exactly what a device has to hear of a fleet-wide release.
    """
    messages = subscriber.wait_for(len(FLEET_TOPICS), WAIT_SECONDS)
    topics = sorted(message.topic for message in messages)
    if topics != FLEET_TOPICS:
        raise LocalCloudError(f"{mac} heard on {topics}, not on the fleet's two topics.", "See the history above.")
    if any(message.json["sha256"] != sha256 for message in messages):
        raise LocalCloudError(f"{mac} heard of another image than the one that was dropped.", "See the history above.")
    return messages


def print_notification(message: Message) -> None:
    """Print a notification, without all of its long parts."""
    for key, value in message.json.items():
        text = value if isinstance(value, str) else json.dumps(value)
        console.print(f"    {key}: {text if len(text) <= 96 else text[:95] + '…'}", markup=False, soft_wrap=True)


def headline(text: str) -> None:
    """Print the title of a step."""
    console.print(f"\n[bold]{text}[/bold]", soft_wrap=True)


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        main()
    except LocalCloudError as error:
        sys.exit(f"\ndemo: {error}")
    except KeyboardInterrupt:
        console.print("\ndemo: interrupted; everything is stopped")
        sys.exit(130)
