"""Show a release end to end: sign, drop, notify devices; then waves, a release that stops itself, a tampered drop.

Everything happens on this machine, in a local cloud of its own that is stopped at the end, however the demo ends.
"""

import argparse
import base64
import contextlib
import hashlib
import itertools
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
from local_cloud import LocalCloud, LocalCloudError, Message, Subscriber, example_image, running
from local_cloud.signature import Signature
from local_cloud.simulated_device import SimulatedDevice, build_ota_device
from ota_core.formats.envelope import payload_of
from ota_core.formats.release_id import release_id_of
from ota_core.rules.rollout import in_cohort
from rich.console import Console

PROJECT = Path(__file__).resolve().parents[1]
MACS = ["AA:BB:CC:00:00:01", "AA:BB:CC:00:00:02"]
LISTED, LATE, BYSTANDER = "AA:BB:CC:00:00:03", "AA:BB:CC:00:00:04", "AA:BB:CC:00:00:05"
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
WAVES = [20, 50, 100]
ROLLOUT = {
    "waves": [{"percent": percent, "soak": "3s"} for percent in WAVES],
    # Two devices are enough to decide here. However slow the machine is, none counts as silent.
    "abort": {"failed_percent": 20, "silent_percent": 100, "min_devices": 2, "report_timeout": "1m"},
}

Device = Callable[[str], SimulatedDevice]

console = Console(highlight=False)


def main(*, has_devices: bool) -> None:
    """Run the demonstration.

    Args:
        has_devices: build the firmware's update code and let devices update by it.

    Raises:
        LocalCloudError: Something was not as it should be.
    """
    begun = time.monotonic()

    def progress(what: str) -> None:
        console.print(f"  [dim]{time.monotonic() - begun:5.1f} s[/dim]  {what}")

    headline("A local cloud: AWS emulator with IAM checking on, PostgreSQL over TLS, the real template")
    with running(PROJECT / ".local-demo", progress) as cloud, tempfile.TemporaryDirectory() as folder:
        build = Path(folder)
        (build / "mxdbg.bin").write_bytes(example_image())
        make_key(cloud, build)
        release(cloud, build)
        download(cloud, build)
        if has_devices:
            device = make_devices(cloud, build)
            update_devices(cloud, build, device)
            roll_out(cloud, build, device)
        tampered_drop(cloud, build)
        headline("Stopping everything")
    seen = "All of it was seen" if has_devices else "All but the devices was seen"
    console.print(f"\n[bold green]{seen}, in {time.monotonic() - begun:.0f} s.[/bold green]")


def make_key(cloud: LocalCloud, build: Path) -> None:
    """Create a signing key and let the stack trust it, with the command that `ota-sign` prints."""
    headline("A signing key that the stack trusts")
    shell(cloud, build, "ota-sign keygen private.pem --public public.pem >keygen.out 2>keygen.err")
    trust = next(line for line in (build / "keygen.err").read_text().splitlines() if "put-parameter" in line)
    shell(cloud, build, trust.strip().replace("/STACK/", "/ota/"))


def release(cloud: LocalCloud, build: Path) -> None:
    """Sign the image, drop it, and see what the pipeline did and what the devices received."""
    headline("Signing a real image")
    commands = sign(cloud, build, "mxdbg.bin", "1.0.0", "Shows a release end to end")

    headline(f"Two devices subscribe over mutual TLS: {', '.join(MACS)}")
    with cloud.subscriber(MACS[0], FLEET_TOPICS) as first, cloud.subscriber(MACS[1], FLEET_TOPICS) as second:
        headline("Dropping it into the inbox")
        for command in commands:
            shell(cloud, build, command)
        history = follow(cloud, "published", lambda states: "AnnounceRelease" in states)
        headline("What each stage did")
        print_stages(history)
        headline("What the devices received")
        sha256 = hashlib.sha256((build / "mxdbg.bin").read_bytes()).hexdigest()
        for mac, subscriber in zip(MACS, (first, second), strict=True):
            messages = hear(subscriber, mac, sha256)
            console.print(
                f"  {mac} on {' and '.join(message.topic for message in messages)}", markup=False, soft_wrap=True
            )
        print_notification(messages[0])


def download(cloud: LocalCloud, build: Path) -> None:
    """Download the image in chunks as a device does, over a link that keeps breaking, and verify it.

    Raises:
        LocalCloudError: What arrived is not what was signed.
    """
    headline(f"Downloading it in chunks of {CHUNK_BYTES // 1024} KiB, over a link that breaks in the middle of some")
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
        raise LocalCloudError(
            "The downloaded image does not have the SHA-256 that was announced.", "That must never happen."
        )
    (build / "downloaded.bin").write_bytes(image)
    (build / "downloaded.sig").write_bytes(base64.b64decode(release["signature"]))
    console.print(f"  SHA-256 {release['sha256']}: as announced", soft_wrap=True)
    shell(cloud, build, "openssl dgst -sha256 -verify public.pem -signature downloaded.sig downloaded.bin")


def make_devices(cloud: LocalCloud, build: Path) -> Device:
    """Build the firmware's own update code for this machine.

    Returns:
        A function that makes a device from a MAC; it runs 1.0.0, and 1.3.0 fails its self-test.
    """
    headline("Building the firmware's update code for this machine")
    program = build_ota_device(build / "ota_device.log")

    def device(mac: str) -> SimulatedDevice:
        return SimulatedDevice(
            program,
            cloud,
            build,
            mac=mac,
            product="mxdbg",
            trusted_key=build / "public.pem",
            version="1.0.0",
            fail_self_test="1.3.0",
        )

    return device


def update_devices(cloud: LocalCloud, build: Path, device: Device) -> None:
    """Let devices update themselves: listed, not listed, and late.

    Raises:
        LocalCloudError: One does not run what it should.
    """
    headline("Devices that run this code: one is listed, one is not, one is switched on later")
    with device(LISTED) as first, device(BYSTANDER) as other:
        for switched_on in (first, other):
            switched_on.wait_for_event("checked_in")
        (build / "devices.json").write_text(json.dumps([LISTED, LATE]))
        for command in sign(cloud, build, "mxdbg.bin", "1.1.0", "For two devices", "--target devices.json"):
            shell(cloud, build, command)
        release_id = first.wait_for_event("installed", WAIT_SECONDS)["release_id"]
        with device(LATE) as second:
            second.wait_for(lambda event: is_status(event, release_id, "installed"), WAIT_SECONDS)
            for seen in (first, second, other):
                print_device(seen, release_id)
            if (first.running_version, second.running_version, other.running_version) != ("1.1.0", "1.1.0", "1.0.0"):
                raise LocalCloudError("A device does not run what it should.", "See above.")


def roll_out(cloud: LocalCloud, build: Path, device: Device) -> None:
    """Let a good release go through its waves, and a bad one stop itself after the first.

    Raises:
        LocalCloudError: A device runs, or was told, what it should not.
    """
    headline(f"Signing two releases for the whole fleet, in waves of {', '.join(map(str, WAVES))} %")
    (build / "rollout.json").write_text(json.dumps(ROLLOUT))
    drop_good, good = sign_rollout(cloud, build, "good.bin", "1.2.0", "Works")
    time.sleep(1)  # A sequence is the second of signing.
    drop_bad, bad = sign_rollout(cloud, build, "bad.bin", "1.3.0", "Fails its self-test")
    fleet = choose_fleet(good, bad)
    headline(f"{len(fleet)} devices are switched on, some for each wave (chance decides a device's wave)")
    with contextlib.ExitStack() as power:
        devices = {mac: power.enter_context(device(mac)) for mac in fleet}
        for seen in devices.values():
            seen.wait_for_event("checked_in", WAIT_SECONDS)
        headline("1.2.0: each wave starts when the one before has installed it")
        for command in drop_good:
            shell(cloud, build, command)
        watch(cloud, good, "published")
        for mac, wave in fleet.items():
            devices[mac].wait_for(lambda event: is_status(event, good, "installed"), WAIT_SECONDS)
            print_device(devices[mac], good, f"wave {wave}: ")
        headline("1.3.0: the first wave's devices roll back to 1.2.0, and no other device ever starts it")
        for command in drop_bad:
            shell(cloud, build, command)
        withdrawn = watch(cloud, bad, "withdrawn")
        follow(cloud, "withdrawn", lambda states: "AnnounceWithdrawal" in states)
        first = {mac for mac in fleet if in_cohort(bad, mac, WAVES[0])}
        for mac in first:
            devices[mac].wait_for(lambda event: is_status(event, bad, "rolled_back"), WAIT_SECONDS)
        for mac in sorted(fleet, key=lambda mac: mac not in first):
            print_device(devices[mac], bad, "wave 1: " if mac in first else "        ")
        told = {mac for mac, seen in devices.items() if any(is_status(event, bad) for event in seen.events)}
        if told != first or {seen.running_version for seen in devices.values()} != {"1.2.0"}:
            raise LocalCloudError("A device runs, or started, what it should not.", "See above.")
    if withdrawn["waves_published"] != 1:
        raise LocalCloudError("The release was not withdrawn after its first wave.", "See above.")
    refuse_download(cloud, "1.3.0")


def refuse_download(cloud: LocalCloud, version: str) -> None:
    """See that a withdrawn version can no longer be downloaded.

    Raises:
        LocalCloudError: It still can.
    """
    url = f"{cloud.environment['OTA_API_URL']}/firmware/mxdbg/{version}"
    deadline = time.monotonic() + WAIT_SECONDS
    with console.status("waiting for the download API, which caches what it looked up for 15 s"):
        while time.monotonic() < deadline:
            answer = requests.head(url, headers={"x-api-key": cloud.environment["OTA_API_KEY"]}, timeout=30)
            if answer.status_code == requests.codes.gone:
                console.print(f"  a download of {version} now returns {answer.status_code}", soft_wrap=True)
                return
            time.sleep(0.5)
    raise LocalCloudError(f"A download of {version} returns {answer.status_code}, not 410.", "See above.")


def sign_rollout(cloud: LocalCloud, build: Path, image: str, version: str, changelog: str) -> tuple[list[str], str]:
    """Sign a copy of the image for a rollout.

    Returns:
        The commands that drop it, and the release's id.
    """
    shutil.copyfile(build / "mxdbg.bin", build / image)
    commands = sign(cloud, build, image, version, changelog, "--rollout rollout.json")
    manifest = (build / image).with_suffix(".manifest.json")
    return commands, release_id_of(payload_of(manifest.read_text()))


def choose_fleet(good: str, bad: str) -> dict[str, int]:
    """Find devices for each wave of both releases: chance decides where a device stands in a release's order.

    Returns:
        By MAC, the wave of the good release that the device is in; the first waves' devices first.
    """

    def wave_of(mac: str) -> int:
        return next(number for number, percent in enumerate(WAVES, 1) if in_cohort(good, mac, percent))

    fleet = {mac: wave_of(mac) for mac in (LISTED, LATE, BYSTANDER)}
    wanted = [(1, True), (1, False), (2, True), (2, False), (3, False)]
    for number in itertools.count():
        mac = f"AA:BB:CC:01:{number >> 8:02X}:{number & 255:02X}"
        place = (wave_of(mac), in_cohort(bad, mac, WAVES[0]))
        if place in wanted:
            wanted.remove(place)
            fleet[mac] = place[0]
        if not wanted:
            break
    return dict(sorted(fleet.items(), key=lambda found: found[1]))


def watch(cloud: LocalCloud, release_id: str, end: str) -> dict[str, Any]:
    """Show each decision about a release, from the operators' API, until its rollout is over.

    Returns:
        What operators see of it then.

    Raises:
        LocalCloudError: It ends differently, or not at all.
    """
    operator = requests.Session()
    environment = cloud.environment
    operator.auth = Signature(environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"])
    shown = 0
    deadline = time.monotonic() + len(WAVES) * WAIT_SECONDS
    with console.status("waiting for the devices"):
        while time.monotonic() < deadline:
            answer = operator.get(f"{environment['OTA_OPERATOR_API_URL']}/releases/{release_id}", timeout=30)
            # It is unknown until it is registered.
            release: dict[str, Any] = answer.json() if answer.ok else {"state": "unknown", "decisions": []}
            decisions = release["decisions"][::-1]
            for decision in decisions[shown:]:
                print_decision(decision, since=decisions[0])
            shown = len(decisions)
            if release["state"] == end:
                return release
            if release["state"] in ("published", "withdrawn"):
                raise LocalCloudError(f"The release is {release['state']}, not {end}.", "See above.")
            time.sleep(0.3)
    raise LocalCloudError(f"The release was not {end} in time.", "See above.")


def print_decision(decision: dict[str, Any], since: dict[str, Any]) -> None:
    """Print one decision about a rollout, and the numbers behind it."""
    seconds = (_moment(decision) - _moment(since)).total_seconds()
    numbers = decision["numbers"]
    text = {
        "publish": "wave {wave} goes out, to {percent:g} % of the fleet",
        "wait": "{ended} of {expected} notified devices have finished: {installed} installed, {failed} failed",
        "complete": "every wave went out and was watched: {installed} installed, {failed} failed",
        "abort": "stopped because {why}",
    }[decision["step"]]
    console.print(f"  {seconds:5.0f} s  {text.format(**numbers | decision)}", markup=False, soft_wrap=True)


def _moment(decision: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(decision["decided_at"])


def print_device(device: SimulatedDevice, release_id: str, before: str = "") -> None:
    """Print what a device runs, and what it said about a release."""
    states = [event["state"] for event in device.events if is_status(event, release_id)]
    said = ", ".join(dict.fromkeys(states)) or "nothing"
    console.print(
        f"  {before}{device.mac} runs {device.running_version} and said: {said}", markup=False, soft_wrap=True
    )


def is_status(event: dict[str, Any], release_id: str, state: str | None = None) -> bool:
    """Whether a device's event is a status of this release, and in this state."""
    return (
        event["event"] == "status" and event["release_id"] == release_id and (state is None or event["state"] == state)
    )


def tampered_drop(cloud: LocalCloud, build: Path) -> None:
    """Drop an image that was changed after signing, and see it rejected and no device notified."""
    headline("A tampered drop: one bit of the image is changed after signing")
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
            raise LocalCloudError("A device was notified of the tampered release.", "That must never happen.")
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
    """Run a command as you would after sourcing the environment file.

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
    """Wait until a new execution passes the state that shows the outcome, printing where they are.

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
        LocalCloudError: It did not receive exactly what a device should receive for a fleet-wide release.
    """
    messages = subscriber.wait_for(len(FLEET_TOPICS), WAIT_SECONDS)
    topics = sorted(message.topic for message in messages)
    if topics != FLEET_TOPICS:
        raise LocalCloudError(
            f"{mac} received messages on {topics}, not on the fleet's two topics.", "See the history above."
        )
    if any(message.json["sha256"] != sha256 for message in messages):
        raise LocalCloudError(f"{mac} was notified of another image than the dropped one.", "See the history above.")
    return messages


def print_notification(message: Message) -> None:
    """Print a notification, with its long parts cut."""
    for key, value in message.json.items():
        text = value if isinstance(value, str) else json.dumps(value)
        console.print(f"    {key}: {text if len(text) <= 96 else text[:95] + '…'}", markup=False, soft_wrap=True)


def headline(text: str) -> None:
    """Print the title of a step."""
    console.print(f"\n[bold]{text}[/bold]", soft_wrap=True)


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--without-devices", action="store_true", help="do without the firmware's toolchain")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        main(has_devices=not options.without_devices)
    except LocalCloudError as error:
        sys.exit(f"\ndemo: {error}")
    except KeyboardInterrupt:
        console.print("\ndemo: interrupted; everything is stopped")
        sys.exit(130)
