"""The command line of ota-sign."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
from ota_core.errors import OtaError
from ota_core.formats import strict_json
from ota_core.formats.envelope import MAX_ENVELOPE_BYTES, envelope_too_large, keyid_of, parse
from ota_core.formats.esp_image import DEFAULT_SLOT_BYTES, check_fits_slot
from ota_core.formats.manifest import MAX_CHANGELOG_CHARS, MAX_SEQUENCE, contains_private_key
from ota_core.formats.rfc3339 import format_time
from ota_core.formats.rollout_plan import Rollout, parse_rollout
from ota_core.formats.targets import (
    MAX_TARGETS_FILE_BYTES,
    AllDevices,
    Targets,
    check_targets_file_size,
    parse_target_tags,
)

from . import drop, files, signing_keys
from .errors import SigningError

_KEY_VARIABLE = "OTA_SIGNING_KEY"
_PASSPHRASE_VARIABLE = "OTA_SIGNING_KEY_PASSPHRASE"  # noqa: S105 - the name of one # nosec B105
_MAX_EXPIRY = timedelta(days=3650)
_FILE = click.Path(path_type=Path)
_MAX_ROLLOUT_BYTES = 64 * 1024


class _Commands(click.Group):
    """Turns an error into one line for a person, with its code, and exit status 1."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # Messages repeat what they complain about, and build servers keep them in logs.
        if any(map(contains_private_key, [*args, os.environ.get(_KEY_VARIABLE, "")])):
            raise click.ClickException(
                f"An argument or {_KEY_VARIABLE} contains a private key; expected the name of the file that has it. "
                "Replace the key if others can read this command line. [private_key_given]"
            )
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except OtaError as error:
            raise click.ClickException(f"{error.message} [{error.code}]") from error


def _duration(value: str) -> timedelta:
    """A time span such as 90m, 12h or 30d."""
    match = re.fullmatch(r"(\d{1,7})([mhd])", value, re.ASCII)
    if match is None:
        raise click.BadParameter(f"{value!r} is not a time span; expected a number and m, h or d, such as 30d.")
    span = timedelta(minutes=int(match[1]) * {"m": 1, "h": 60, "d": 24 * 60}[match[2]])
    if not timedelta() < span <= _MAX_EXPIRY:
        raise click.BadParameter(f"{value!r} is out of range; expected 1m to {_MAX_EXPIRY.days}d.")
    return span


def _byte_count(value: str) -> int:
    """A number of bytes, decimal or with 0x, as in partition tables."""
    if re.fullmatch(r"0[xX][0-9a-fA-F]{1,8}|[1-9]\d{0,9}", value, re.ASCII) is None:
        raise click.BadParameter(f"{value!r} is not a number of bytes; expected one such as 1966080 or 0x1E0000.")
    return int(value, 0)


_slot_size = click.option(
    "--slot-size",
    type=_byte_count,
    metavar="BYTES",
    default=f"0x{DEFAULT_SLOT_BYTES:X}",
    show_default=True,
    help="Size of the device's OTA slot; a larger image is refused.",
)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def main() -> None:
    """Sign ESP32 firmware for over-the-air releases.

    \b
    Once:         ota-sign keygen private.pem --public public.pem
    Each release: ota-sign sign app.bin --key private.pem --changelog "What is new"
                  then run the `aws s3 cp` lines that it prints.

    A command that fails says why in one line, with a stable code in brackets, writes nothing, and exits with
    status 1 (2 for wrong usage).
    """  # noqa: D301 - click needs a real backspace before text that it must not wrap


@main.command()
@click.argument("private_pem", type=_FILE)
@click.option(
    "--bits", type=click.Choice(["2048", "3072", "4096"]), default="3072", show_default=True, help="Key size."
)
@click.option("--public", "public_file", type=_FILE, help="Also write the public key (PEM) to this file.")
@click.option("--header", type=_FILE, help="Also write the public key as a C header, for firmware that will trust it.")
@click.option(
    "--passphrase",
    "ask",
    is_flag=True,
    help=f"Ask for a passphrase to encrypt the private key with. If {_PASSPHRASE_VARIABLE} is set, its value is used.",
)
def keygen(private_pem: Path, bits: str, public_file: Path | None, header: Path | None, ask: bool) -> None:
    """Create an RSA key pair for signing.

    Writes the private key to PRIVATE_PEM (PKCS #8, readable only by you) and prints the public key. No file is ever
    overwritten. Keep the private key off the devices and out of the repository, and keep a copy: firmware only
    accepts releases by keys it was built with.

    Keys from elsewhere work too: RSA of 2048 to 4096 bits in PEM, as `openssl genpkey` creates, or a key in AWS KMS.
    """
    files.check_absent([path for path in (private_pem, public_file, header) if path])
    passphrase = _new_passphrase(private_pem, ask=ask)
    key = signing_keys.generate(int(bits))
    public_key = key.public_key()
    public = signing_keys.public_pem(public_key)
    new = [files.NewFile(private_pem, signing_keys.private_pem(key, passphrase), mode=0o600)]
    if public_file:
        new.append(files.NewFile(public_file, public))
    if header:
        new.append(files.NewFile(header, signing_keys.c_header(public_key)))
    files.create(new)

    click.echo(public, nl=False)
    keyid = keyid_of(public_key)
    value = shlex.quote(f"file://{public_file or 'public.pem'}")
    click.echo(f"keyid {keyid}", err=True)
    if not public_file:
        click.echo("Save the public key above as public.pem.", err=True)
    click.echo("To let a stack accept releases by this key (STACK is its name):", err=True)
    click.echo(
        f"  aws ssm put-parameter --name /STACK/trusted-keys/{keyid} --type String --value {value}",
        err=True,
    )


@main.command()
@click.argument("image", type=_FILE)
@click.option(
    "--key",
    envvar=_KEY_VARIABLE,
    show_envvar=True,
    required=True,
    metavar="PEM|awskms:ID",
    help="Private key: a PEM file, or awskms: and the id, ARN or alias (awskms:alias/release) of a KMS key. "
    f"The passphrase of an encrypted file comes from {_PASSPHRASE_VARIABLE}, or you are asked for it.",
)
@click.option(
    "--version", help="SemVer, or auto for the next patch.  [default: the image's own if it is SemVer, else auto]"
)
@click.option("--changelog", metavar="TEXT", help="What is new, for people to read. At most 4096 characters.")
@click.option("--changelog-file", type=_FILE, help="Read the changelog from this file (UTF-8).")
@click.option(
    "--target",
    type=_FILE,
    help='JSON list of MACs, or {"devices": [...]}.  [default: the whole fleet of the product]',
)
@click.option(
    "--target-tag",
    "target_tags",
    multiple=True,
    metavar="TAG",
    help="Devices that have this tag (beta, site=berlin) when the release is published; may be given several times.",
)
@click.option(
    "--rollout",
    "rollout_file",
    type=_FILE,
    help="JSON file with the waves of a staged rollout.  [default: all devices at once]",
)
@click.option("--product", help="Product line.  [default: the image's project name]")
@click.option(
    "--expires",
    type=_duration,
    metavar="TIME",
    default="30d",
    show_default=True,
    help="How long the manifest is valid (m, h or d).",
)
@click.option(
    "--sequence",
    type=click.IntRange(1, MAX_SEQUENCE),
    help="Must be higher than the product's last one.  [default: seconds since 1970]",
)
@click.option("--allow-downgrade", is_flag=True, help="Allow a version lower than the latest.")
@click.option("--strict-app-version", is_flag=True, help="Refuse an image whose own version is not --version.")
@_slot_size
def sign(  # noqa: PLR0913, PLR0917 - one for each option
    image: Path,
    key: str,
    version: str | None,
    changelog: str | None,
    changelog_file: Path | None,
    target: Path | None,
    target_tags: tuple[str, ...],
    rollout_file: Path | None,
    product: str | None,
    expires: timedelta,
    sequence: int | None,
    allow_downgrade: bool,
    strict_app_version: bool,
    slot_size: int,
) -> None:
    """Sign IMAGE (<name>.bin) for release.

    Writes <name>.manifest.json beside the image, and <name>.targets.json when --target lists more than 100 devices.
    Prints the commands that drop them into the inbox (OTA_BUCKET is the stack's bucket), and last release_id=ID, by
    which status/ shows whether a result is this release's. The image must pass the pipeline's own checks before it is
    signed. Only the pipeline knows what was released before, so only it checks sequence and version against that.
    """
    if target is not None and target_tags:
        raise click.UsageError("--target and --target-tag cannot be combined.")
    if changelog is not None and changelog_file is not None:
        raise click.UsageError("--changelog and --changelog-file cannot be combined.")
    now = datetime.now(UTC)
    paths = drop.DropPaths.of(image)
    check_fits_slot(files.size_of(image), slot_size)
    content = files.read(image, slot_size)
    targets, targets_file, is_new = _read_target(target, target_tags, paths)
    manifest = drop.describe(
        content,
        targets,
        drop.ReleaseOptions(
            product=product,
            version=version,
            sequence=sequence or int(now.timestamp()),
            expires=now.replace(microsecond=0) + expires,
            changelog=_read_changelog(changelog_file) if changelog_file else changelog or "",
            allow_downgrade=allow_downgrade,
            strict_app_version=strict_app_version,
            rollout=_read_rollout(rollout_file) if rollout_file else None,
        ),
    )
    folder = drop.inbox_folder(manifest.product, image.name)
    signing_key = signing_keys.load_signing_key(key, lambda: _passphrase(key))
    envelope = drop.sign(manifest, content, signing_key)
    keyid = keyid_of(signing_key.public_key)
    trusted = {keyid: signing_key.public_key}
    checked = drop.check(envelope, content, targets_file, trusted.get, now=now, slot_bytes=slot_size)

    written = [files.NewFile(paths.manifest, envelope)]
    if targets_file is not None and is_new:
        written.insert(0, files.NewFile(paths.targets, targets_file))
    files.replace(written, remove=paths.targets if targets_file is None else None)

    for warning in checked.warnings:
        click.echo(f"Warning: {warning}", err=True)
    click.echo(f"Signed {_summary(checked)}. To release it:", err=True)
    dropped = [paths.image, *([] if targets_file is None else [paths.targets]), paths.manifest]
    for path in dropped:
        # A name that begins with a dash would be taken for an option.
        source = f"./{path}" if str(path).startswith("-") else str(path)
        click.echo(f'aws s3 cp {shlex.quote(source)} "s3://$OTA_BUCKET/{folder}"')
    click.echo(f"release_id={checked.release_id}")


@main.command(short_help="Check an image with the files that were signed for it.")
@click.argument("image", type=_FILE)
@click.option(
    "--key",
    "keys",
    type=_FILE,
    multiple=True,
    required=True,
    metavar="PEM",
    help="Public key (PEM) to trust; may be given several times.",
)
@_slot_size
def verify(image: Path, keys: tuple[Path, ...], slot_size: int) -> None:
    """Check IMAGE (<name>.bin) with its <name>.manifest.json and <name>.targets.json.

    Does offline what the pipeline does: signature by a trusted key, expiry, size, SHA-256, the image's own signature
    and structure, chip, slot size, targets. Only the pipeline can tell whether sequence and version are higher than
    those released before.
    """
    paths = drop.DropPaths.of(image)
    trusted = {keyid_of(key): key for key in map(signing_keys.load_public_key, keys)}
    envelope = _read_envelope(paths.manifest)
    check_fits_slot(files.size_of(image), slot_size)
    content = files.read(image, slot_size)
    targets_file = None
    if paths.targets.exists():
        check_targets_file_size(files.size_of(paths.targets))
        targets_file = files.read(paths.targets, MAX_TARGETS_FILE_BYTES)
    checked = drop.check(envelope, content, targets_file, trusted.get, now=datetime.now(UTC), slot_bytes=slot_size)
    for warning in checked.warnings:
        click.echo(f"Warning: {warning}", err=True)
    click.echo(f"Good: {_summary(checked)}.")


@main.command(short_help="Print what a manifest says.")
@click.argument("manifest", type=_FILE)
def show(manifest: Path) -> None:
    """Print what MANIFEST (<name>.manifest.json) says, and whose signatures it claims.

    The signed JSON goes to standard output, the rest to standard error. Nothing is verified: use `ota-sign verify`.
    """
    payload, signatures = parse(_read_envelope(manifest))
    try:
        document = json.dumps(strict_json.loads(payload), ensure_ascii=False, indent=2)
    except ValueError as error:
        raise SigningError("manifest_malformed", f"The payload of {manifest} is not JSON ({error}).") from error
    click.echo(_printable(document))
    for keyid, _ in signatures:
        click.echo(f"signed by key {_printable(keyid) or '(none named)'}", err=True)
    click.echo("Not verified: `ota-sign verify IMAGE --key public.pem` does that.", err=True)


def _summary(checked: drop.CheckedDrop) -> str:
    manifest = checked.manifest
    return (
        f"{manifest.product} {manifest.version} for {manifest.chip} to {drop.whom(manifest.targets)}, "
        f"sequence {manifest.sequence}, valid until {format_time(manifest.expires)}, by key {checked.keyid}"
    )


def _read_target(
    target: Path | None, target_tags: tuple[str, ...], paths: drop.DropPaths
) -> tuple[Targets, bytes | None, bool]:
    """The targets, the content of the targets file if there will be one, and whether it has yet to be written."""
    if target is not None and target.absolute() == paths.targets.absolute():
        # The signer's own file is already in place and stays unchanged.
        raw = _read_target_file(target)
        return drop.name_targets_file(raw), raw, False
    drop.check_targets_path(paths)
    if target is None:
        return parse_target_tags(list(target_tags)) if target_tags else AllDevices(), None, False
    targets, written = drop.list_targets(_read_target_file(target))
    return targets, written, True


def _read_target_file(path: Path) -> bytes:
    check_targets_file_size(files.size_of(path))
    return files.read(path, MAX_TARGETS_FILE_BYTES)


def _read_rollout(path: Path) -> Rollout:
    try:
        document = strict_json.loads(files.read(path, _MAX_ROLLOUT_BYTES))
    except ValueError as error:
        raise SigningError(
            "rollout_not_json", f"{path} is not JSON ({error}). See docs/rollouts.md for an example."
        ) from error
    return parse_rollout(document)


def _read_envelope(path: Path) -> bytes:
    size = files.size_of(path)
    if size > MAX_ENVELOPE_BYTES:
        raise envelope_too_large(size)
    return files.read(path, MAX_ENVELOPE_BYTES)


def _read_changelog(path: Path) -> str:
    try:
        # At most four bytes per character, and a newline at the end.
        return files.read(path, 4 * MAX_CHANGELOG_CHARS + 2).decode().rstrip()
    except UnicodeDecodeError as error:
        raise SigningError("text_not_utf8", f"{path} is not UTF-8 text. Save it as UTF-8.") from error


def _passphrase(key: str) -> bytes:
    given = _passphrase_from_environment()
    if given:
        return given
    if not sys.stdin.isatty():
        raise SigningError(
            "passphrase_missing", f"{key} is encrypted. Set {_PASSPHRASE_VARIABLE}, or run ota-sign in a terminal."
        )
    entered: str = click.prompt(f"Passphrase for {key}", hide_input=True, err=True)
    return entered.encode()


def _new_passphrase(path: Path, *, ask: bool) -> bytes | None:
    given = _passphrase_from_environment()
    if given or not ask:
        return given
    if not sys.stdin.isatty():
        raise SigningError(
            "passphrase_missing", f"There is no terminal to ask for a passphrase. Set {_PASSPHRASE_VARIABLE}."
        )
    entered: str = click.prompt(f"New passphrase for {path}", hide_input=True, confirmation_prompt=True, err=True)
    return entered.encode()


def _passphrase_from_environment() -> bytes | None:
    given = os.environ.get(_PASSPHRASE_VARIABLE)
    return os.fsencode(given) if given else None


def _printable(text: str) -> str:
    """The text without characters that could control a terminal or are invisible, such as bidirectional ones."""
    return "".join(
        char if char.isprintable() or char == "\n" else char.encode("unicode_escape").decode() for char in text
    )
