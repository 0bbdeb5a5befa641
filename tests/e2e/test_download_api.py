"""The download API as devices and people use it: over HTTP, from the deployed stack."""

import contextlib
import hashlib
import http.client
import json
import random
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import psutil
import pytest
import requests
from support.drops import key, make_drop
from support.esp_images import app_image

PROJECT = Path(__file__).resolve().parents[2]
PRODUCT = "e2e-download"
VERSION = "1.2.0+5"
CHUNK_BYTES = 64 * 1024
CLIENTS = 200
# As ApiConcurrency does on AWS; each takes half a second to start here, and 60 MB.
FUNCTIONS = 8
# What a function of 512 MB may take at most, with room for what the machine's Python takes more than Lambda's.
FUNCTION_BYTES = 256 * 1024 * 1024


@pytest.fixture(scope="module")
def release(cloud):
    """A released image of 1.9 MB and its address."""
    cloud.trust(key().public_pem.encode())
    drop = make_drop(
        product=PRODUCT,
        version=VERSION,
        image=app_image(size=1_900_000, version=VERSION, project_name=PRODUCT),
    )
    cloud.drop(f"{PRODUCT}/app", bin=drop.image, manifest=drop.manifest)
    base = cloud.environment["OTA_API_URL"]
    url = f"{base}/firmware/{PRODUCT}/1.2.0%2B5"
    headers = {"x-api-key": cloud.environment["OTA_API_KEY"]}
    wait_until(lambda: state_of(cloud, VERSION) == "published", 60)
    return SimpleNamespace(
        image=drop.image,
        etag=f'"{hashlib.sha256(drop.image).hexdigest()}"',
        url=url,
        base=base,
        headers=headers,
        release_id=drop.release_id,
        told=cloud.client("iot-data").get_retained_message(topic=f"/firmware_update/product/{PRODUCT}")["payload"],
    )


@pytest.fixture
def get(release):
    """GETs the image with more headers."""

    def send(url=release.url, method="GET", **headers):
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return requests.request(
            method, url, headers=release.headers | named, timeout=30, allow_redirects=False, stream=False
        )

    return send


def wait_until(condition, seconds):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.2)


def state_of(cloud, version):
    rows = sql(cloud, "SELECT state FROM releases WHERE product = :p AND version = :v", p=PRODUCT, v=version)
    return rows[0][0] if rows else None


def sql(cloud, statement, **parameters):
    with contextlib.closing(cloud.connect_database()) as connection:
        return connection.run(statement, **parameters)


def function_name(cloud, logical_id):
    stack = cloud.client("cloudformation")
    detail = stack.describe_stack_resource(StackName="ota", LogicalResourceId=logical_id)["StackResourceDetail"]
    return detail["PhysicalResourceId"]


@contextlib.contextmanager
def function_with(cloud, logical_id, **variables):
    """Deploys a function with variables of its environment changed, and puts them back."""
    functions = cloud.client("lambda")
    name = function_name(cloud, logical_id)
    before = functions.get_function_configuration(FunctionName=name)["Environment"]
    functions.update_function_configuration(
        FunctionName=name, Environment={"Variables": before["Variables"] | variables}
    )
    try:
        yield
    finally:
        functions.update_function_configuration(FunctionName=name, Environment=before)


def code_of(answer):
    assert answer.headers["Content-Type"] == "application/json"
    document = answer.json()
    assert document["code"]
    assert document["message"]
    assert "Traceback" not in answer.text
    return document["code"]


# --- the clients that people have -----------------------------------------------------------------------------------


def test_curl_gets_the_very_bytes_of_a_range(release, tmp_path):
    chunk = tmp_path / "chunk"
    key_header = f"x-api-key: {release.headers['x-api-key']}"
    status = subprocess.run(
        [
            *("curl", "-sS", "-H", key_header, "-H", "Range: bytes=65536-131071"),
            *("-o", chunk, "-w", "%{http_code}", release.url),
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert status == "206"
    assert chunk.read_bytes() == release.image[65536:131072]


@pytest.mark.parametrize("client", ["curl", "wget"])
def test_clients_resume_where_they_stopped(release, tmp_path, client):
    file = tmp_path / "app.bin"
    file.write_bytes(release.image[:700_001])
    key_header = f"x-api-key: {release.headers['x-api-key']}"
    command = {
        "curl": ["curl", "-sS", "--fail", "-C", "-", "-H", key_header, "-o", file, release.url],
        "wget": ["wget", "-q", "-c", "--header", key_header, "-O", file, release.url],
    }[client]
    subprocess.run(command, check=True)
    assert file.read_bytes() == release.image


def test_requests_gets_the_whole_image(get, release):
    answer = get()
    assert answer.status_code == 200
    assert answer.content == release.image
    assert answer.headers["ETag"] == release.etag
    assert answer.headers["Accept-Ranges"] == "bytes"


def test_download_that_is_cut_again_and_again_gives_the_image(get, release):
    draw = random.Random(1)  # noqa: S311 - where the link breaks need not be secret
    got = b""
    while len(got) < len(release.image):
        answer = get(Range=f"bytes={len(got)}-{len(got) + CHUNK_BYTES - 1}", If_Range=release.etag)
        assert answer.status_code == 206
        got += answer.content[: draw.randrange(CHUNK_BYTES // 2, CHUNK_BYTES + 1)]
    assert got == release.image


# --- what HTTP says -------------------------------------------------------------------------------------------------


def test_head_tells_the_size_and_sends_nothing(get, release):
    answer = get(method="HEAD", Range="bytes=0-0")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["Content-Length"] == str(len(release.image))
    assert answer.headers["ETag"] == release.etag


def test_ranges_and_conditions_over_the_wire(get, release):
    size = len(release.image)
    answer = get(Range="bytes=-100")
    assert (answer.status_code, answer.content) == (206, release.image[-100:])
    assert answer.headers["Content-Range"] == f"bytes {size - 100}-{size - 1}/{size}"
    several = get(Range="bytes=0-9,20-29")
    assert (several.status_code, several.content) == (206, release.image[:10])
    assert get(Range="bytes=9-1").status_code == 200
    assert get(Range="bytes=5-", If_Range='"another"').content == release.image
    modified = get(Range="bytes=0-0").headers["Last-Modified"]
    assert get(Range="bytes=0-9", If_Range=modified).status_code == 206
    unchanged = get(If_None_Match=release.etag)
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert (code_of(get(If_Match='"another"')), get(If_Match=release.etag).status_code) == ("precondition_failed", 200)
    beyond = get(Range=f"bytes={size}-")
    assert (beyond.status_code, code_of(beyond)) == (416, "range_not_satisfiable")
    assert beyond.headers["Content-Range"] == f"bytes */{size}"


def test_request_without_accept_is_refused_rather_than_answered_in_base64(release):
    address = urlsplit(release.url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=30)
    connection.request("GET", address.path, headers=release.headers)
    answer = connection.getresponse()
    assert (answer.status, json.load(answer)["code"]) == (406, "accept_missing")


def test_redirected_download_is_byte_exact_for_ranges_too(cloud, get, release):
    with function_with(cloud, "DeliverFirmwareFunction", DOWNLOAD_MODE="redirect"):
        answer = get()
    assert (answer.status_code, answer.content) == (307, b"")
    where = answer.headers["Location"]
    assert requests.get(where, timeout=30).content == release.image
    part = requests.get(where, headers={"Range": "bytes=65536-131071"}, timeout=30)
    assert (part.status_code, part.content) == (206, release.image[65536:131072])
    # It opens one object version to whoever has it, and nothing else, for a minute.
    [version_id] = parse_qs(urlsplit(where).query)["versionId"]
    for changed in (
        where.replace("/releases/", "/inbox/"),
        where.replace(version_id, "null"),
        where.replace(f"versionId={version_id}", ""),
        where.replace("X-Amz-Expires=60", "X-Amz-Expires=600"),
    ):
        assert changed != where
        assert requests.get(changed, timeout=30).status_code == 403


# --- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("api_key", [None, "", "wrong"])
@pytest.mark.parametrize("path", [f"/firmware/{PRODUCT}/1.2.0%2B5", "/devices/AA:BB:CC:DD:EE:FF/update?product=p"])
def test_nobody_gets_anything_without_a_key(release, api_key, path):
    headers = {} if api_key is None else {"x-api-key": api_key}
    answer = requests.get(release.base + path, headers=headers, timeout=30)
    assert (answer.status_code, code_of(answer)) == (403, "api_key_invalid")


@pytest.mark.parametrize(
    "path",
    [
        "/firmware/never/1.0.0",
        f"/firmware/{PRODUCT}/9.9.9",
        f"/firmware/{PRODUCT}/1.2.0",  # build metadata tells versions apart
        f"/firmware/{PRODUCT}",
        "/firmware/../../etc/passwd",
        "/firmware/..%2f..%2fetc/1.0.0",
        f"/firmware/{PRODUCT}/..%2f..%2f1.2.0",
        f"/firmware/{PRODUCT}/%2e%2e",
        f"/firmware/{PRODUCT}/1.2.0%00",
        f"/firmware/{PRODUCT}/%F0%9F%9A%80",
        f"/firmware/%C3%A9/{VERSION}",
        f"/firmware/{PRODUCT}/1.2.0%252B5%252F..",
        f"/firmware/{PRODUCT}/{'9' * 2000}.0.0",
        f"/firmware/{PRODUCT}/' OR 1=1 --",
        "/releases/",
        "/",
    ],
)
def test_paths_that_lead_nowhere_are_not_found(release, path):
    session = requests.Session()
    request = requests.Request("GET", release.base, headers=release.headers).prepare()
    request.url = release.base + path.replace(" ", "%20")  # as it is: nothing is normalised away
    answer = session.send(request, timeout=30)
    assert answer.status_code == 404
    code_of(answer)


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/devices/AA:BB:CC:DD:EE/update?product=p", "mac_invalid"),
        ("/devices/..%20/update?product=p", "mac_invalid"),
        ("/devices/%F0%9F%9A%80/update?product=p", "mac_invalid"),
        ("/devices/AA:BB:CC:DD:EE:FF/update", "product_invalid"),
        ("/devices/AA:BB:CC:DD:EE:FF/update?product=../x", "product_invalid"),
        ("/devices/AA:BB:CC:DD:EE:FF/update?product=p&version=", "version_invalid"),
        ("/devices/AA:BB:CC:DD:EE:FF/update?product=p&version=1%00", "version_invalid"),
    ],
)
def test_check_in_that_makes_no_sense_is_a_bad_request(get, release, path, code):
    answer = get(release.base + path)
    assert (answer.status_code, code_of(answer)) == (400, code)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_other_methods_are_not_found(get, method):
    assert code_of(get(method=method)) == "not_found"


def test_outage_of_the_database_is_a_503_that_says_when_to_return(cloud, get, release):
    for function, path in (
        ("DeliverFirmwareFunction", f"/firmware/{PRODUCT}/1.2.0%2B5"),
        ("CheckForUpdateFunction", f"/devices/AA:BB:CC:DD:EE:FF/update?product={PRODUCT}"),
    ):
        with function_with(cloud, function, DATABASE_PORT="1"):
            answer = get(release.base + path)
        assert (answer.status_code, code_of(answer)) == (503, "temporarily_unavailable")
        assert int(answer.headers["Retry-After"]) > 0


# --- withdrawal and check-in ----------------------------------------------------------------------------------------


def test_withdrawn_release_is_gone_within_seconds(cloud, get, release):
    drop = make_drop(product=PRODUCT, version="1.3.0", image=app_image(size=70_000, version="1.3.0"))
    cloud.drop(f"{PRODUCT}/withdrawn", bin=drop.image, manifest=drop.manifest)
    url = f"{release.base}/firmware/{PRODUCT}/1.3.0"
    wait_until(lambda: state_of(cloud, "1.3.0") == "published", 60)
    assert get(url).content == drop.image
    withdraw = "UPDATE releases SET state = 'withdrawn', withdrawn_because = 'it is bad' WHERE release_id = :id"
    sql(cloud, withdraw, id=drop.release_id)
    wait_until(lambda: get(url).status_code == 410, 20)
    assert code_of(get(url)) == "release_withdrawn"
    assert get(url, method="HEAD").status_code == 410


def test_device_that_was_off_gets_what_mqtt_told_the_others(cloud, get, release):
    asked = f"{release.base}/devices/02-e2-e0-00-00-01/update?product={PRODUCT}"
    answer = get(f"{asked}&version=1.0.0")
    assert answer.status_code == 200
    assert answer.content == release.told
    assert answer.json()["release_id"] == release.release_id
    assert get(answer.json()["url"]).content == release.image

    assert get(f"{asked}&version=1.2.0%2B5").status_code == 204
    assert get(f"{asked}&version=v1.2.1").status_code == 204
    assert get(f"{asked}&version=arduino-esp32%20v3.1.0").status_code == 200
    [(recorded, version)] = sql(
        cloud, "SELECT product, running_version FROM devices WHERE mac = CAST('02:e2:e0:00:00:01' AS macaddr)"
    )
    # Once a minute.
    assert (recorded, version) == (PRODUCT, "1.0.0")


# --- many at once ---------------------------------------------------------------------------------------------------


class DownloadingClient(threading.Thread):
    """Downloads in chunks over one connection, and waits longer and longer when it is turned away, as devices do."""

    def __init__(self, release, number):
        super().__init__(daemon=True)
        self._release = release
        self._draw = random.Random(number)  # noqa: S311 - jitter need not be secret
        self.statuses = Counter()
        self.digest = None

    def run(self):
        address = urlsplit(self._release.url)
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=120)
        headers = self._release.headers | {"Accept": "application/octet-stream", "If-Match": self._release.etag}
        digest, size, got, wait = hashlib.sha256(), len(self._release.image), 0, 0.25
        while got < size:
            wanted = f"bytes={got}-{got + CHUNK_BYTES - 1}"
            connection.request("GET", address.path, headers=headers | {"Range": wanted})
            answer = connection.getresponse()
            content = answer.read()
            self.statuses[answer.status] += 1
            if answer.status == 206:
                digest.update(content)
                got += len(content)
                wait = 0.25
            elif answer.status in {429, 502, 503, 504}:
                time.sleep(self._draw.uniform(0.05, wait))
                wait = min(2 * wait, 4)
            else:
                return
        self.digest = digest.hexdigest()


class MemoryWatch(threading.Thread):
    """Watches the memory of the processes that run a function of a cloud."""

    def __init__(self, cloud, function):
        super().__init__(daemon=True)
        self._marks = (str(cloud.state), function)
        self._stopped = threading.Event()
        self.most = 0
        self.processes = 0

    def run(self):
        while not self._stopped.wait(0.5):
            sizes = []
            for process in psutil.process_iter(["cmdline"]):
                with contextlib.suppress(psutil.Error):
                    command = " ".join(process.info["cmdline"] or [])
                    if all(mark in command for mark in self._marks):
                        sizes.append(process.memory_info().rss)
            self.processes = max(self.processes, len(sizes))
            self.most = max(self.most, *sizes, 0)

    def stop(self):
        self._stopped.set()
        self.join()


def test_two_hundred_clients_at_once_all_get_the_image(cloud, release, capsys):
    functions = cloud.client("lambda")
    name = function_name(cloud, "DeliverFirmwareFunction")
    functions.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=FUNCTIONS)
    memory = MemoryWatch(cloud, name)
    clients = [DownloadingClient(release, number) for number in range(CLIENTS)]
    memory.start()
    began = time.monotonic()
    try:
        for client in clients:
            client.start()
        for client in clients:
            client.join(180)
    finally:
        memory.stop()
        functions.delete_function_concurrency(FunctionName=name)
    seconds = time.monotonic() - began
    statuses = sum((client.statuses for client in clients), Counter())
    with capsys.disabled():
        print(  # noqa: T201 - figures for the record
            f"\n{CLIENTS} clients, {len(release.image)} bytes each in {CHUNK_BYTES // 1024} KiB chunks: "
            f"{seconds:.0f} s, {statuses[206] / seconds:.0f} chunks/s, statuses {dict(statuses)}; "
            f"{memory.processes} functions, at most {memory.most / 2**20:.0f} MiB each"
        )
    assert [client.digest for client in clients] == [release.etag.strip('"')] * CLIENTS
    assert set(statuses) <= {206, 429}
    assert 0 < memory.most < FUNCTION_BYTES


# --- the definition -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("configuration", [[], ["--config-file", PROJECT / "tests" / "e2e" / "schemathesis.toml"]])
def test_schemathesis_finds_no_failure(release, tmp_path, configuration):
    done = subprocess.run(
        [
            *("schemathesis", *configuration, "run", PROJECT / "api" / "openapi.yaml", "--url", release.base),
            *("-H", f"x-api-key: {release.headers['x-api-key']}", "--phases", "examples,coverage,fuzzing"),
            # A REST API of API Gateway knows no 405: what has no method is not found.
            *("--checks", "all", "--exclude-checks", "unsupported_method"),
            *("--max-examples", "50", "--seed", "1", "--workers", "2", "--continue-on-failure"),
        ],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    assert "Tested: 3" in done.stdout
