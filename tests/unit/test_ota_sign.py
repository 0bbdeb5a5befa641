"""ota-sign, run as a person runs it, but in this process."""

import ast
import base64
import errno
import fcntl
import hashlib
import json
import os
import re
import shlex
import stat
import subprocess
import sys
import termios
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import boto3
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from moto import mock_aws
from ota_core.errors import RejectionCode
from ota_sign.cli import main
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey
from support import drops
from support.drops import make_drop, target_list
from support.esp_images import app_image, real_image, with_byte

KEY = drops.key()
PASSPHRASE = "correct horse"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty folder to work in, with a key pair and an image."""
    for name in ("OTA_SIGNING_KEY", "OTA_SIGNING_KEY_PASSPHRASE"):
        monkeypatch.delenv(name, raising=False)
    # boto3 keeps the credentials that an earlier test had.
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    monkeypatch.chdir(tmp_path)
    Path("private.pem").write_text(KEY.private_pem)
    Path("public.pem").write_text(KEY.public_pem)
    Path("app.bin").write_bytes(app_image())
    return tmp_path


@pytest.fixture
def ota_sign(place, capsys):
    def run(*arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main.main([str(argument) for argument in arguments], prog_name="ota-sign")
        said = capsys.readouterr()
        return SimpleNamespace(status=end.value.code, out=said.out, err=said.err)

    return run


@pytest.fixture
def sign(ota_sign):
    """Signs app.bin, which must succeed, and gives the payload."""

    def run(*arguments):
        done = ota_sign("sign", "app.bin", "--key", "private.pem", *arguments)
        assert done.status == 0, done.err
        return SimpleNamespace(**vars(done), **read_payload())

    return run


def read_payload(path="app.manifest.json"):
    return json.loads(base64.b64decode(json.loads(Path(path).read_bytes())["payload"]))


def contents():
    return {path.name: path.read_bytes() for path in Path().iterdir()}


def refused(done, code):
    assert done.status == 1
    assert re.fullmatch(rf"Error: .+[.?] \[{code}\]\n", done.err), done.err
    assert done.out == ""
    return True


def openssl(*arguments):
    return subprocess.run(["openssl", *arguments], check=True, capture_output=True).stdout


# --- keygen ---------------------------------------------------------------------------------------------------


def test_keygen_makes_an_rsa_3072_key_that_its_owner_alone_can_read(ota_sign):
    old_umask = os.umask(0)
    try:
        done = ota_sign("keygen", "new.pem")
    finally:
        os.umask(old_umask)
    assert done.status == 0
    assert stat.S_IMODE(Path("new.pem").stat().st_mode) == 0o600
    assert Path("new.pem").read_text().startswith("-----BEGIN PRIVATE KEY-----\n")
    key = serialization.load_pem_private_key(Path("new.pem").read_bytes(), None)
    assert key.key_size == 3072
    assert done.out.encode() == openssl("pkey", "-in", "new.pem", "-pubout")
    keyid = hashlib.sha256(openssl("pkey", "-in", "new.pem", "-pubout", "-outform", "DER")).hexdigest()
    assert f"keyid {keyid}\n" in done.err
    assert (
        f"aws ssm put-parameter --name /STACK/trusted-keys/{keyid} --type String --value file://public.pem" in done.err
    )


@pytest.mark.parametrize("bits", ["2048", "4096"])
def test_keygen_makes_the_size_that_is_asked_for(ota_sign, bits):
    assert ota_sign("keygen", "new.pem", "--bits", bits).status == 0
    assert serialization.load_pem_private_key(Path("new.pem").read_bytes(), None).key_size == int(bits)


def test_keygen_makes_no_weak_key(ota_sign):
    assert ota_sign("keygen", "new.pem", "--bits", "1024").status == 2
    assert not Path("new.pem").exists()


def test_keygen_writes_public_key_and_c_header(ota_sign):
    done = ota_sign("keygen", "new.pem", "--bits", "2048", "--public", "my keys.pem", "--header", "trusted.h")
    assert Path("my keys.pem").read_text() == done.out
    assert "--value 'file://my keys.pem'" in done.err
    keyid = re.search("keyid ([0-9a-f]{64})", done.err)[1]
    header = Path("trusted.h").read_text()
    declared = re.fullmatch(
        rf"#pragma once\n\n/\* .+ {keyid} \*/\nstatic const char OTA_TRUSTED_KEY_{keyid[:8]}\[\] =\n([^;]+);\n", header
    )
    assert ast.literal_eval(f"({declared[1]})") == done.out


@pytest.mark.parametrize("existing", ["new.pem", "new.pub", "new.h"])
@pytest.mark.parametrize("dangling", [False, True])
def test_keygen_overwrites_nothing_and_then_writes_nothing(ota_sign, existing, dangling):
    if dangling:
        Path(existing).symlink_to("nowhere")
    else:
        Path(existing).write_text("precious")
    before = sorted(Path().iterdir())
    assert refused(ota_sign("keygen", "new.pem", "--public", "new.pub", "--header", "new.h"), "file_exists")
    assert sorted(Path().iterdir()) == before
    assert dangling or Path(existing).read_text() == "precious"


def test_keygen_does_not_overwrite_its_own_private_key(ota_sign):
    assert refused(ota_sign("keygen", "new.pem", "--bits", "2048", "--public", "new.pem"), "file_exists")
    assert not Path("new.pem").exists()


def test_keygen_in_a_folder_that_is_not_there_is_refused(ota_sign):
    before = contents()
    assert refused(ota_sign("keygen", "nowhere/new.pem", "--bits", "2048"), "file_unwritable")
    assert refused(ota_sign("keygen", "new.pem", "--bits", "2048", "--header", "nowhere/key.h"), "file_unwritable")
    assert contents() == before


def test_keygen_encrypts_with_the_passphrase_of_the_environment(ota_sign, monkeypatch):
    monkeypatch.setenv("OTA_SIGNING_KEY_PASSPHRASE", PASSPHRASE)
    assert ota_sign("keygen", "new.pem", "--bits", "2048").status == 0
    assert Path("new.pem").read_text().startswith("-----BEGIN ENCRYPTED PRIVATE KEY-----\n")
    serialization.load_pem_private_key(Path("new.pem").read_bytes(), PASSPHRASE.encode())
    assert ota_sign("sign", "app.bin", "--key", "new.pem").status == 0


def test_keygen_without_a_terminal_cannot_ask(ota_sign):
    assert refused(ota_sign("keygen", "new.pem", "--passphrase"), "passphrase_missing")
    assert not Path("new.pem").exists()


# --- sign -----------------------------------------------------------------------------------------------------


def test_signed_release_says_what_image_and_options_say(sign):
    now = datetime.now(UTC).replace(microsecond=0)
    signed = sign()
    assert signed.schema == 1
    assert (signed.product, signed.version, signed.chip) == ("demo-sensor", "1.4.0", "esp32s3")
    assert now <= datetime.fromtimestamp(signed.sequence, UTC) <= datetime.now(UTC)
    assert now <= datetime.fromisoformat(signed.expires) - timedelta(days=30) <= datetime.now(UTC)
    assert (signed.changelog, signed.targets) == ("", "all")
    assert signed.firmware["size"] == 4096
    assert signed.firmware["sha256"] == hashlib.sha256(app_image()).hexdigest()
    assert not hasattr(signed, "allow_downgrade")

    signed = sign(
        *("--version", "2.0.0-rc.1", "--product", "pump", "--changelog", "Grüße", "--sequence", "7"),
        *("--expires", "90m", "--allow-downgrade"),
    )
    assert (signed.product, signed.version, signed.changelog) == ("pump", "2.0.0-rc.1", "Grüße")
    assert (signed.sequence, signed.allow_downgrade) == (7, True)
    assert abs(datetime.fromisoformat(signed.expires) - datetime.now(UTC) - timedelta(minutes=90)) < timedelta(
        minutes=1
    )
    assert signed.err.startswith("Warning: The image's own version is '1.4.0', the release's '2.0.0-rc.1'.\n")
    assert sign("--strict-app-version").strict_app_version


def test_signatures_are_those_of_dsse_and_openssl(sign):
    signed = sign()
    sealed = json.loads(Path("app.manifest.json").read_bytes())
    public = SSlibKey.from_crypto(KEY.public, KEY.keyid, "rsa-pkcs1v15-sha256")
    assert Envelope.from_dict(sealed).verify([public], 1) == {KEY.keyid: public}
    Path("signature").write_bytes(base64.b64decode(signed.firmware["signature"]))
    verified = openssl("dgst", "-sha256", "-verify", "public.pem", "-signature", "signature", "app.bin")
    assert verified == b"Verified OK\n"


def test_real_image_is_signed_and_verified(ota_sign, sign):
    Path("app.bin").write_bytes(real_image())
    signed = sign()
    assert (signed.product, signed.version, signed.chip) == ("mxdbg", "auto", "esp32s3")
    done = ota_sign("verify", "app.bin", "--key", "public.pem")
    assert (done.status, done.err) == (0, "")
    assert re.fullmatch(
        r"Good: mxdbg auto for esp32s3 to the whole fleet, sequence \d+, valid until \S+Z, by key [0-9a-f]{64}\.\n",
        done.out,
    )


@pytest.mark.parametrize(
    ("app_version", "version"),
    [("1.4.0", "1.4.0"), ("v1.4.0", "1.4.0"), ("v1.4.0-3-gdeadbee", "1.4.0-3-gdeadbee"), ("edeaadb-dirty", "auto")],
)
def test_version_defaults_to_the_images_own_where_it_is_semver(sign, app_version, version):
    Path("app.bin").write_bytes(app_image(version=app_version))
    signed = sign()
    assert signed.version == version
    assert "Warning" not in signed.err


def test_project_that_names_no_product_needs_the_option(ota_sign, sign):
    Path("app.bin").write_bytes(app_image(project_name="Demo_Sensor"))
    done = ota_sign("sign", "app.bin", "--key", "private.pem")
    assert refused(done, "product_unknown")
    assert "'Demo_Sensor'" in done.err
    assert "--product" in done.err
    assert sign("--product", "demo-sensor").product == "demo-sensor"


@pytest.mark.parametrize("folder", [".", "a folder", "it's", "$HOME `id`", 'quo"te', "-dash"])
def test_printed_commands_drop_the_manifest_last(place, ota_sign, folder):
    Path(folder).mkdir(exist_ok=True)
    image = Path(folder, "app v2.bin")
    image.write_bytes(app_image())
    Path("devices.json").write_text(json.dumps(target_list(101)))
    done = ota_sign("sign", "--key", "private.pem", "--target", "devices.json", "--", image)
    assert done.status == 0, done.err
    # The lines go through a shell whose aws prints what it is given.
    ran = subprocess.run(
        ["sh", "-eu", "-c", f'aws() {{ printf "%s\\n" "$@" ""; test -f "$3"; }}\n{done.out}'],
        env={"OTA_BUCKET": "bucket"},
        check=True,
        capture_output=True,
        text=True,
    )
    commands = [command.split("\n") for command in ran.stdout.split("\n\n") if command]
    source = f"./{folder}" if folder.startswith("-") else folder
    assert commands == [
        ["s3", "cp", str(Path(folder, f"app v2{end}")).replace(folder, source, 1), "s3://bucket/inbox/demo-sensor/"]
        if folder != "."
        else ["s3", "cp", f"app v2{end}", "s3://bucket/inbox/demo-sensor/"]
        for end in (".bin", ".targets.json", ".manifest.json")
    ]


def test_last_line_names_the_release_for_a_script(sign):
    signed = sign()
    payload = base64.b64decode(json.loads(Path("app.manifest.json").read_bytes())["payload"])
    assert signed.out.splitlines()[-1] == f"release_id={hashlib.sha256(payload).hexdigest()[:32]}"


def test_key_may_come_from_the_environment(ota_sign, monkeypatch):
    monkeypatch.setenv("OTA_SIGNING_KEY", "private.pem")
    assert ota_sign("sign", "app.bin").status == 0


@pytest.mark.parametrize(
    "made",
    [
        ["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072", "-out", "own.pem"],
        ["genpkey", "-algorithm", "RSA", "-aes256", "-pass", f"pass:{PASSPHRASE}", "-out", "own.pem"],
        ["genrsa", "-traditional", "-out", "own.pem", "2048"],
        ["genrsa", "-traditional", "-aes256", "-passout", f"pass:{PASSPHRASE}", "-out", "own.pem", "2048"],
    ],
    ids=["PKCS #8", "encrypted PKCS #8", "PKCS #1", "encrypted PKCS #1"],
)
def test_key_made_with_openssl_signs(ota_sign, monkeypatch, made):
    openssl(*made)
    # A key without a passphrase does not mind that one is set.
    monkeypatch.setenv("OTA_SIGNING_KEY_PASSPHRASE", PASSPHRASE)
    openssl("pkey", "-in", "own.pem", "-passin", f"pass:{PASSPHRASE}", "-pubout", "-out", "own.pub")
    assert ota_sign("sign", "app.bin", "--key", "own.pem").status == 0
    assert ota_sign("verify", "app.bin", "--key", "own.pub").status == 0


def test_changelog_may_come_from_a_file(sign, ota_sign):
    Path("news.md").write_bytes("- Füße\n- gewärmt\n".encode())
    assert sign("--changelog-file", "news.md").changelog == "- Füße\n- gewärmt"
    Path("news.md").write_bytes("🚀".encode() * 4096 + b"\r\n")
    done = ota_sign("sign", "app.bin", "--key", "private.pem", "--changelog-file", "news.md")
    assert refused(done, RejectionCode.NOTIFICATION_TOO_LARGE)
    Path("news.md").write_text("x" * 4097)
    done = ota_sign("sign", "app.bin", "--key", "private.pem", "--changelog-file", "news.md")
    assert refused(done, "manifest_malformed")
    assert "4097 characters; expected at most 4096" in done.err
    done = ota_sign("sign", "app.bin", "--key", "private.pem", "--changelog-file", "news.md", "--changelog", "x")
    assert done.status == 2


@pytest.mark.parametrize(
    "text", ["@private.pem", "@-", "-", "--key", "<private.pem", "file://private.pem", "fileb://app.bin", "$HOME", ""]
)
def test_changelog_is_the_text_itself_whatever_it_begins_with(sign, text):
    """A build server takes it from whoever wrote the commit."""
    assert sign("--changelog", text).changelog == text


PRIVATE_KEYS = {
    "PKCS #8": KEY.private_pem.encode,
    "encrypted": lambda: openssl("genpkey", "-algorithm", "RSA", "-aes256", "-pass", f"pass:{PASSPHRASE}"),
    "PKCS #1": lambda: openssl("genrsa", "-traditional", "2048"),
    "EC": lambda: openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout"),
    "OpenSSH": lambda: KEY.private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    ),
}


@pytest.mark.parametrize("kind", PRIVATE_KEYS)
def test_private_key_is_neither_signed_nor_repeated(ota_sign, monkeypatch, kind):
    pem = PRIVATE_KEYS[kind]().decode()
    Path("key").write_text(f"New:\n{pem}")
    before = contents()
    sign = ["sign", "app.bin", "--key", "private.pem"]

    def is_kept(done, code):
        assert not [line for line in pem.splitlines()[1:-1] if line[:40] in done.err]
        return refused(done, code) and contents() == before

    done = ota_sign(*sign, "--changelog-file", "key")
    assert is_kept(done, RejectionCode.MANIFEST_MALFORMED)
    for option in ("--changelog", "--changelog-file", "--product", "--version", "--expires", "--key", "--target-tag"):
        assert is_kept(ota_sign(*sign, option, pem), "private_key_given"), option
    for arguments in (["sign", pem], ["verify", "app.bin", "--key", pem], ["show", pem], ["keygen", pem], [pem]):
        assert is_kept(ota_sign(*arguments), "private_key_given"), arguments[0]
    monkeypatch.setenv("OTA_SIGNING_KEY", pem)
    assert is_kept(ota_sign("sign", "app.bin"), "private_key_given")


# --- sign: targets --------------------------------------------------------------------------------------------


def test_few_targets_stand_in_the_manifest_normalised(sign):
    Path("devices.json").write_text('{"devices": ["02-00-00-00-00-0b", "02000000000A", "02:00:00:00:00:0B"]}')
    signed = sign("--target", "devices.json")
    assert signed.targets == ["02:00:00:00:00:0A", "02:00:00:00:00:0B"]
    assert "to 2 devices" in signed.err
    assert not Path("app.targets.json").exists()
    Path("devices.json").write_text(json.dumps(target_list(100)))
    assert len(sign("--target", "devices.json").targets) == 100


def test_many_targets_go_into_a_file_one_a_line(sign, ota_sign):
    listed = target_list(150)
    Path("devices.json").write_text(json.dumps([mac.lower() for mac in reversed(listed)] + listed[:7]))
    signed = sign("--target", "devices.json")
    raw = Path("app.targets.json").read_bytes()
    assert json.loads(raw) == listed
    assert raw.decode().split("\n")[1:3] == [f'"{listed[0]}",', f'"{listed[1]}",']
    assert signed.targets == {"file_sha256": hashlib.sha256(raw).hexdigest(), "count": 150}
    assert ota_sign("verify", "app.bin", "--key", "public.pem").status == 0


def test_targets_file_of_an_earlier_signing_goes_when_it_is_no_longer_named(sign):
    Path("devices.json").write_text(json.dumps(target_list(150)))
    sign("--target", "devices.json")
    assert sign().targets == "all"
    assert not Path("app.targets.json").exists()


def test_targets_file_of_an_earlier_signing_is_replaced(sign):
    Path("devices.json").write_text(json.dumps(target_list(150)))
    sign("--target", "devices.json")
    Path("devices.json").write_text(json.dumps(target_list(151)))
    assert sign("--target", "devices.json").targets["count"] == 151
    assert len(json.loads(Path("app.targets.json").read_bytes())) == 151


@pytest.mark.parametrize("signed_before", [False, True])
def test_somebody_elses_targets_file_is_neither_replaced_nor_left_out(ota_sign, sign, signed_before):
    if signed_before:
        sign()
    Path("app.targets.json").write_text(json.dumps(target_list(3)))
    Path("devices.json").write_text(json.dumps(target_list(150)))
    before = contents()
    for options in ([], ["--target", "devices.json"]):
        done = ota_sign("sign", "app.bin", "--key", "private.pem", *options)
        assert refused(done, "targets_file_foreign")
        assert "--target" in done.err
    assert contents() == before


@pytest.mark.parametrize("count", [3, 150])
def test_signers_own_targets_file_stays_as_it_is(ota_sign, sign, count):
    raw = json.dumps({"devices": target_list(count)}, indent=4).encode()
    Path("app.targets.json").write_bytes(raw)
    signed = sign("--target", "app.targets.json")
    assert signed.targets == {"file_sha256": hashlib.sha256(raw).hexdigest(), "count": count}
    assert "app.targets.json" in signed.out
    assert Path("app.targets.json").read_bytes() == raw
    assert ota_sign("verify", "app.bin", "--key", "public.pem").status == 0


@pytest.mark.parametrize(
    ("listed", "code"),
    [
        ('["02:00:00:00:00:0G"]', RejectionCode.TARGET_MAC_INVALID),
        ("[]", RejectionCode.TARGETS_EMPTY),
        ("02:00:00:00:00:01", RejectionCode.TARGETS_MALFORMED),
        ('{"macs": []}', RejectionCode.TARGETS_MALFORMED),
    ],
)
def test_bad_target_list_is_refused(ota_sign, listed, code):
    Path("devices.json").write_text(listed)
    before = contents()
    assert refused(ota_sign("sign", "app.bin", "--key", "private.pem", "--target", "devices.json"), code)
    assert contents() == before


def test_tags_name_the_targets(ota_sign, sign):
    signed = sign("--target-tag", "site=berlin", "--target-tag", "beta")
    assert signed.targets == {"tags": ["beta", "site=berlin"]}
    assert "to devices tagged beta or site=berlin" in signed.err
    assert "targets.json" not in signed.out
    assert ota_sign("verify", "app.bin", "--key", "public.pem").status == 0


def test_bad_tag_is_refused(ota_sign):
    done = ota_sign("sign", "app.bin", "--key", "private.pem", "--target-tag", "Beta")
    assert refused(done, RejectionCode.TARGET_TAG_INVALID)


def test_tags_and_a_list_exclude_each_other(ota_sign):
    done = ota_sign("sign", "app.bin", "--key", "private.pem", "--target-tag", "beta", "--target", "devices.json")
    assert done.status == 2
    assert not Path("app.manifest.json").exists()


# --- sign: refusals -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "options", "code"),
    [
        (b"\x7fELF", [], RejectionCode.IMAGE_NOT_ESP),
        (b"", [], RejectionCode.IMAGE_NOT_ESP),
        (app_image(descriptor=False), [], RejectionCode.IMAGE_NOT_APP),
        (app_image(chip=3), [], RejectionCode.IMAGE_CHIP_UNKNOWN),
        (app_image()[:-1], [], RejectionCode.IMAGE_TRUNCATED),
        (app_image(hash_appended=False)[:-1] + b"\0", [], RejectionCode.IMAGE_CHECKSUM_WRONG),
        (with_byte(app_image(), 4, 1), [], RejectionCode.IMAGE_APPENDED_HASH_WRONG),
        (app_image(), ["--slot-size", "4095"], RejectionCode.IMAGE_TOO_LARGE),
        (bytes(0x1E0001), [], RejectionCode.IMAGE_TOO_LARGE),
        (app_image(), ["--version", "1.4"], RejectionCode.VERSION_INVALID),
        (app_image(), ["--version", "v1.4.0"], RejectionCode.VERSION_INVALID),
        (app_image(), ["--version", "1.5.0", "--strict-app-version"], RejectionCode.APP_VERSION_MISMATCH),
        (app_image(), ["--version", "auto", "--strict-app-version"], RejectionCode.MANIFEST_MALFORMED),
        (app_image(), ["--product", "Demo"], RejectionCode.MANIFEST_MALFORMED),
        (app_image(), ["--product", ""], RejectionCode.MANIFEST_MALFORMED),
        (app_image(), ["--changelog", "x" * 4097], RejectionCode.MANIFEST_MALFORMED),
        (app_image(), ["--changelog", "\udcff"], "text_not_utf8"),
        (app_image(), ["--product", "\udcff"], "text_not_utf8"),
    ],
)
def test_what_the_pipeline_would_refuse_is_not_signed(ota_sign, image, options, code):
    Path("app.bin").write_bytes(image)
    before = contents()
    assert refused(ota_sign("sign", "app.bin", "--key", "nobody asked for the key", *options), code)
    assert contents() == before


@pytest.mark.parametrize("name", ["app.elf", "app", ".bin", "app.BIN"])
def test_image_whose_name_the_inbox_does_not_take_is_refused(ota_sign, name):
    Path(name).write_bytes(app_image())
    assert refused(ota_sign("sign", name, "--key", "private.pem"), "image_misnamed")


@pytest.mark.parametrize("name", ["gerät.bin", "a..b.bin", "a\\b.bin"])
def test_image_whose_name_could_mislead_is_refused(ota_sign, name):
    Path(name).write_bytes(app_image())
    assert refused(ota_sign("sign", name, "--key", "private.pem"), RejectionCode.INBOX_KEY_INVALID)


@pytest.mark.parametrize("name", ["nowhere.bin", "folder.bin", "pipe.bin"])
def test_image_that_is_no_file_is_refused(ota_sign, name):
    Path("folder.bin").mkdir()
    os.mkfifo("pipe.bin")
    assert refused(ota_sign("sign", name, "--key", "private.pem"), "file_unreadable")
    assert refused(ota_sign("verify", name, "--key", "public.pem"), "file_unreadable")


def large_key():
    return openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:4104")


def elliptic_key():
    return openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")


@pytest.mark.parametrize(
    ("key", "code"),
    [
        (drops.key("small", 1024).private_pem.encode, "key_too_small"),
        (large_key, "key_too_large"),
        (elliptic_key, "key_unusable"),
        (KEY.public_pem.encode, "key_unusable"),
        (bytes, "key_unusable"),
        (lambda: b"\0" * 100_000, "file_too_large"),
        (lambda: KEY.private_pem.encode()[:900], "key_unusable"),
    ],
    ids=["1024 bits", "4104 bits", "elliptic curve", "public", "empty", "no key at all", "cut off"],
)
def test_key_that_cannot_sign_is_refused(ota_sign, key, code):
    Path("bad.pem").write_bytes(key())
    before = contents()
    assert refused(ota_sign("sign", "app.bin", "--key", "bad.pem"), code)
    assert contents() == before


def test_key_that_is_not_there_is_refused(ota_sign):
    done = ota_sign("sign", "app.bin", "--key", "nowhere.pem")
    assert refused(done, "file_unreadable")
    assert "nowhere.pem cannot be read: No such file or directory." in done.err
    assert refused(ota_sign("sign", "app.bin", "--key", "."), "file_unreadable")


def test_file_without_permission_is_refused(ota_sign, monkeypatch):
    def denied(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", "private.pem")

    monkeypatch.setattr(Path, "open", denied)
    assert refused(ota_sign("sign", "app.bin", "--key", "private.pem"), "file_unreadable")


def encrypt_key(path):
    encryption = serialization.BestAvailableEncryption(PASSPHRASE.encode())
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    Path(path).write_bytes(KEY.private.private_bytes(pem, pkcs8, encryption))


def test_wrong_passphrase_is_told_from_a_missing_one(ota_sign, monkeypatch):
    encrypt_key("locked.pem")
    done = ota_sign("sign", "app.bin", "--key", "locked.pem")
    assert refused(done, "passphrase_missing")
    assert "OTA_SIGNING_KEY_PASSPHRASE" in done.err
    monkeypatch.setenv("OTA_SIGNING_KEY_PASSPHRASE", "wrong")
    assert refused(ota_sign("sign", "app.bin", "--key", "locked.pem"), "passphrase_wrong")


@pytest.mark.parametrize("entered", [PASSPHRASE, "wrong"])
def test_passphrase_is_asked_for_on_a_terminal(place, entered):
    encrypt_key("locked.pem")
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", "from ota_sign.cli import main; main()", "sign", "app.bin", "--key", "locked.pem"],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
        start_new_session=True,
        # The prompt is read from the controlling terminal.
        preexec_fn=lambda: fcntl.ioctl(theirs, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - no threads here
    )
    os.close(theirs)
    asked = b""
    while b"Passphrase for locked.pem: " not in asked:
        asked += os.read(ours, 1000)
    os.write(ours, entered.encode() + b"\n")
    printed, _ = process.communicate(timeout=60)
    os.close(ours)
    assert PASSPHRASE.encode() not in asked
    if entered == PASSPHRASE:
        assert process.returncode == 0
        assert printed.startswith(b"aws s3 cp app.bin")
    else:
        assert (process.returncode, printed) == (1, b"")


@pytest.mark.parametrize(
    "options",
    [
        ["--expires", "30"],
        ["--expires", "0d"],
        ["--expires", "-1d"],
        ["--expires", "4000d"],
        ["--expires", "1w"],
        ["--expires", "١d"],
        ["--sequence", "0"],
        ["--sequence", "9007199254740992"],
        ["--slot-size", "big"],
        ["--slot-size", "0"],
        ["--slot-size", "-1"],
        ["--unknown"],
    ],
    ids=str,
)
def test_wrong_usage_ends_with_status_2(ota_sign, options):
    before = contents()
    done = ota_sign("sign", "app.bin", "--key", "private.pem", *options)
    assert done.status == 2
    assert done.err.startswith("Usage: ota-sign sign")
    assert contents() == before


# --- sign: interruptions --------------------------------------------------------------------------------------


class Interruption:
    """Stops the n-th write to the disk."""

    def __init__(self, monkeypatch, error, at):
        self.left = at

        def fsync(_):
            self.left -= 1
            if self.left == 0:
                raise error

        monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.parametrize("at", [1, 2])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()], ids=repr)
def test_interrupted_signing_leaves_everything_as_it_was(ota_sign, sign, monkeypatch, error, at):
    Path("devices.json").write_text(json.dumps(target_list(150)))
    sign("--target", "devices.json")
    Path("devices.json").write_text(json.dumps(target_list(151)))
    before = contents()
    Interruption(monkeypatch, error, at)
    done = ota_sign("sign", "app.bin", "--key", "private.pem", "--target", "devices.json")
    assert done.status == 1
    assert ("No space left on device. Nothing was changed. [file_unwritable]" in done.err) == isinstance(error, OSError)
    assert "Traceback" not in done.err
    assert contents() == before


@pytest.mark.parametrize("at", [1, 2, 3])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()], ids=repr)
def test_interrupted_keygen_leaves_no_file(ota_sign, monkeypatch, error, at):
    before = contents()
    Interruption(monkeypatch, error, at)
    done = ota_sign("keygen", "new.pem", "--bits", "2048", "--public", "new.pub", "--header", "new.h")
    assert done.status == 1
    assert contents() == before


def test_manifest_is_never_seen_half_written(sign):
    sign()
    first = Path("app.manifest.json").stat().st_ino
    sign()
    assert Path("app.manifest.json").stat().st_ino != first
    assert sorted(contents()) == ["app.bin", "app.manifest.json", "private.pem", "public.pem"]


def test_written_files_obey_the_umask(sign):
    old_umask = os.umask(0o027)
    try:
        sign()
    finally:
        os.umask(old_umask)
    assert stat.S_IMODE(Path("app.manifest.json").stat().st_mode) == 0o640


# --- sign: AWS KMS --------------------------------------------------------------------------------------------


@pytest.fixture
def kms(place, monkeypatch):
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    # moto takes a digest for a message; AWS KMS signs it as the digest that it is (API reference, Sign, MessageType).
    monkeypatch.setattr(
        "moto.kms.utils.RSAPrivateKey.sign",
        lambda self, digest, _: self.private_key.sign(digest, padding.PKCS1v15(), Prehashed(hashes.SHA256())),
    )
    with mock_aws():
        boto3.setup_default_session()
        yield boto3.client("kms")


def make_kms_key(kms, spec="RSA_3072", usage="SIGN_VERIFY"):
    return kms.create_key(KeySpec=spec, KeyUsage=usage)["KeyMetadata"]


@pytest.mark.parametrize("named", ["KeyId", "Arn", "alias"])
def test_kms_key_signs_an_image_larger_than_kms_takes_in_one_piece(ota_sign, kms, named):
    Path("app.bin").write_bytes(real_image())
    made = make_kms_key(kms)
    kms.create_alias(AliasName="alias/release", TargetKeyId=made["KeyId"])
    name = "alias/release" if named == "alias" else made[named]
    requests = []
    boto3.DEFAULT_SESSION.events.register("provide-client-params.kms.Sign", lambda params, **_: requests.append(params))
    done = ota_sign("sign", "app.bin", "--key", f"awskms:{name}")
    assert done.status == 0, done.err
    # Image and envelope, each as a digest.
    assert [(request["MessageType"], len(request["Message"])) for request in requests] == [("DIGEST", 32)] * 2
    assert {request["SigningAlgorithm"] for request in requests} == {"RSASSA_PKCS1_V1_5_SHA_256"}

    spki = kms.get_public_key(KeyId=made["KeyId"])["PublicKey"]
    Path("kms.der").write_bytes(spki)
    openssl("pkey", "-pubin", "-inform", "DER", "-in", "kms.der", "-out", "kms.pem")
    done = ota_sign("verify", "app.bin", "--key", "kms.pem")
    assert done.status == 0, done.err
    assert f"by key {hashlib.sha256(spki).hexdigest()}" in done.out


@pytest.mark.parametrize(
    ("spec", "usage"), [("RSA_2048", "ENCRYPT_DECRYPT"), ("ECC_NIST_P256", "SIGN_VERIFY")], ids=["encrypts", "elliptic"]
)
def test_kms_key_of_another_kind_is_refused(ota_sign, kms, spec, usage):
    before = contents()
    done = ota_sign("sign", "app.bin", "--key", f"awskms:{make_kms_key(kms, spec, usage)['KeyId']}")
    assert refused(done, "kms_failed")
    assert contents() == before


def test_kms_key_that_is_not_there_is_refused_in_one_line(ota_sign, kms):
    done = ota_sign("sign", "app.bin", "--key", "awskms:alias/nowhere")
    assert refused(done, "kms_failed")
    assert "alias/nowhere cannot be used: An error occurred (NotFoundException)" in done.err


def test_kms_that_refuses_to_sign_is_told_once(place):
    # In a process of its own: here pytest listens to the log. A disabled key still shows its public half.
    script = """
import boto3, moto
from ota_sign.cli import main
with moto.mock_aws():
    kms = boto3.client("kms")
    key_id = kms.create_key(KeySpec="RSA_2048", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["KeyId"]
    def refuse(**_):
        answer = {"Error": {"Code": "DisabledException", "Message": "is disabled"}}
        raise kms.exceptions.DisabledException(answer, "Sign")
    boto3.setup_default_session()
    boto3.DEFAULT_SESSION.events.register("provide-client-params.kms.Sign", refuse)
    main(["sign", "app.bin", "--key", f"awskms:{key_id}"])
"""
    ran = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"AWS_DEFAULT_REGION": "eu-central-1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused(SimpleNamespace(status=ran.returncode, out=ran.stdout, err=ran.stderr), "kms_failed")
    assert "DisabledException" in ran.stderr


def test_kms_without_credentials_is_refused_with_what_it_needs(ota_sign, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "nowhere")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "nowhere")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    done = ota_sign("sign", "app.bin", "--key", "awskms:alias/release")
    assert refused(done, "kms_failed")
    assert "Unable to locate credentials" in done.err
    assert "kms:Sign" in done.err
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    assert "You must specify a region" in ota_sign("sign", "app.bin", "--key", "awskms:alias/release").err


def test_kms_without_boto3_says_what_to_install(ota_sign, monkeypatch):
    monkeypatch.setitem(sys.modules, "botocore.exceptions", None)
    done = ota_sign("sign", "app.bin", "--key", "awskms:alias/release")
    assert refused(done, "kms_failed")
    assert "pip install boto3" in done.err


# --- verify ---------------------------------------------------------------------------------------------------


def write_drop(drop):
    for name, content in drop.members("app").items():
        Path(name).write_bytes(content)


def test_verify_accepts_any_of_the_trusted_keys(ota_sign):
    write_drop(make_drop(signer=drops.key("new")))
    Path("new.pem").write_text(drops.key("new").public_pem)
    assert ota_sign("verify", "app.bin", "--key", "public.pem", "--key", "new.pem").status == 0
    assert refused(ota_sign("verify", "app.bin", "--key", "public.pem"), RejectionCode.KEY_UNKNOWN)


def test_verify_finds_every_tampering(ota_sign):
    good = make_drop(targets_file=json.dumps(target_list(3)).encode())
    write_drop(good)
    assert ota_sign("verify", "app.bin", "--key", "public.pem").status == 0
    for name, code in (
        ("app.bin", RejectionCode.IMAGE_SHA256_MISMATCH),
        ("app.targets.json", RejectionCode.TARGETS_FILE_CHANGED),
    ):
        write_drop(good)
        content = Path(name).read_bytes()
        Path(name).write_bytes(with_byte(content, 30, content[30] ^ 1))
        assert refused(ota_sign("verify", "app.bin", "--key", "public.pem"), code)
    write_drop(good)
    Path("app.targets.json").unlink()
    assert refused(ota_sign("verify", "app.bin", "--key", "public.pem"), RejectionCode.TARGETS_FILE_MISSING)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"expires": "2020-01-01T00:00:00Z"}, RejectionCode.MANIFEST_EXPIRED),
        ({"chip": "esp32"}, RejectionCode.IMAGE_WRONG_CHIP),
        ({"schema": 2}, RejectionCode.SCHEMA_UNSUPPORTED),
        ({"targets": []}, RejectionCode.TARGETS_EMPTY),
        ({"signer": drops.key("small", 1024)}, RejectionCode.KEY_TOO_SMALL),
    ],
    ids=str,
)
def test_verify_refuses_what_the_pipeline_refuses(ota_sign, changes, code):
    write_drop(make_drop(**changes))
    Path("public.pem").write_text(changes.get("signer", KEY).public_pem)
    assert refused(ota_sign("verify", "app.bin", "--key", "public.pem"), code)


def test_verify_warns_of_another_version_in_the_image(ota_sign):
    write_drop(make_drop(image=app_image(version="v5.5.1")))
    done = ota_sign("verify", "app.bin", "--key", "public.pem")
    assert done.status == 0
    assert done.err == "Warning: The image's own version is 'v5.5.1', the release's '1.4.0'.\n"


def test_verify_needs_a_manifest_and_a_public_key(ota_sign):
    done = ota_sign("verify", "app.bin", "--key", "public.pem")
    assert refused(done, "file_unreadable")
    assert "app.manifest.json" in done.err
    Path("app.manifest.json").write_bytes(b" " * (1024 * 1024 + 1))
    assert refused(ota_sign("verify", "app.bin", "--key", "public.pem"), RejectionCode.ENVELOPE_TOO_LARGE)
    assert refused(ota_sign("verify", "app.bin", "--key", "app.bin"), "key_unusable")
    assert refused(ota_sign("verify", "app.bin", "--key", "private.pem"), "key_unusable")
    Path("elliptic.pem").write_bytes(elliptic_key())
    openssl("pkey", "-in", "elliptic.pem", "-pubout", "-out", "elliptic.pub")
    assert refused(ota_sign("verify", "app.bin", "--key", "elliptic.pub"), "key_unusable")
    assert ota_sign("verify", "app.bin").status == 2


# --- show -----------------------------------------------------------------------------------------------------


def test_show_prints_the_payload_and_says_that_it_verified_nothing(ota_sign):
    drop = make_drop()
    sealed = json.loads(drop.manifest)
    sealed["signatures"][0]["sig"] = ""
    Path("app.manifest.json").write_text(json.dumps(sealed))
    done = ota_sign("show", "app.manifest.json")
    assert done.status == 0
    assert json.loads(done.out) == json.loads(base64.b64decode(sealed["payload"]))
    assert done.err == (
        f"signed by key {KEY.keyid}\nNot verified: `ota-sign verify IMAGE --key public.pem` does that.\n"
    )


def test_show_lets_no_manifest_steer_the_terminal(ota_sign):
    evil = "\x1b[2J\x9b31m\u202e\u2066ok"
    sealed = json.loads(drops.seal(json.dumps({"changelog": evil}, ensure_ascii=False).encode()))
    sealed["signatures"] = [{"keyid": evil, "sig": ""}, {"sig": ""}]
    Path("app.manifest.json").write_text(json.dumps(sealed))
    done = ota_sign("show", "app.manifest.json")
    assert done.status == 0
    assert all(char.isprintable() or char == "\n" for char in done.out + done.err)
    assert "ok" in done.out
    assert "(none named)" in done.err


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", RejectionCode.ENVELOPE_NOT_JSON),
        (b"{}", RejectionCode.ENVELOPE_MALFORMED),
        (drops.seal(b"no JSON", KEY), "manifest_malformed"),
        (b" " * (1024 * 1024 + 1), RejectionCode.ENVELOPE_TOO_LARGE),
    ],
    ids=["empty", "no envelope", "payload no JSON", "too large"],
)
def test_show_of_something_else_is_refused(ota_sign, raw, code):
    Path("app.manifest.json").write_bytes(raw)
    assert refused(ota_sign("show", "app.manifest.json"), code)


# --- the whole ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [[], ["keygen"], ["sign"], ["verify"], ["show"]])
def test_help_is_there(ota_sign, command):
    done = ota_sign(*command, "--help")
    assert done.status == 0
    assert done.out.startswith(shlex.join(["Usage:", "ota-sign", *command]))


def test_no_command_waits_for_libraries_that_it_does_not_use():
    slow = ["boto3", "botocore", "securesystemslib"]
    code = f"import sys, ota_sign.cli; sys.exit(bool(set({slow}) & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_rollout_is_signed_as_it_was_planned(sign):
    plan = {"waves": [{"percent": 5, "soak": "2h"}, {"percent": 100}], "abort": {"min_devices": 3}}
    Path("rollout.json").write_text(json.dumps(plan))
    rollout = sign("--rollout", "rollout.json").rollout
    assert [wave["percent"] for wave in rollout["waves"]] == [5, 100]
    assert rollout["waves"][0]["soak"] == "7200s"
    assert rollout["abort"]["min_devices"] == 3


@pytest.mark.parametrize(
    ("content", "code"), [("{", "rollout_not_json"), (json.dumps({"waves": [{"percent": 50}]}), "rollout_invalid")]
)
def test_rollout_that_makes_no_sense_is_not_signed(ota_sign, content, code):
    Path("rollout.json").write_text(content)
    assert refused(ota_sign("sign", "app.bin", "--key", "private.pem", "--rollout", "rollout.json"), code)
