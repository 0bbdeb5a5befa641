"""A device registers itself at the factory, by the stack's fleet provisioning template, and is one like any other.

Only devices of the list in the bucket can: the holder of a claim cannot invent devices.
"""

import json
import queue
import ssl
from pathlib import Path

import pytest
from botocore.exceptions import ClientError
from local_cloud import DeviceIdentity, Subscriber
from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

CREATE = "$aws/certificates/create/json"


class Factory:
    """An MQTT session with a claim; asks and waits for the answer. Use it as a context manager."""

    def __init__(self, cloud, claim, folder: Path) -> None:
        self._template = cloud.outputs["DeviceProvisioningTemplate"]
        certificate, key = folder / "claim.pem", folder / "claim.key"
        certificate.write_text(claim["certificatePem"])
        key.write_text(claim["keyPair"]["PrivateKey"])
        context = ssl.create_default_context(cafile=cloud.mqtt_ca)
        context.load_cert_chain(certificate, key)
        self._answers = queue.Queue()
        self._ready = queue.Queue()
        self._address = ("127.0.0.1", cloud.emulator.mqtt_port)
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="factory")
        self._client.tls_set_context(context)
        topics = [f"{topic}/{end}" for topic in (CREATE, self._provision) for end in ("accepted", "rejected")]
        self._client.on_connect = lambda client, *_: client.subscribe([(topic, 1) for topic in topics])
        self._client.on_subscribe = lambda *_: self._ready.put(None)
        self._client.on_message = lambda _client, _data, message: self._answers.put(message)

    @property
    def _provision(self):
        return f"$aws/provisioning-templates/{self._template}/provision/json"

    def __enter__(self):
        self._client.connect(*self._address)
        self._client.loop_start()
        self._ready.get(timeout=30)
        return self

    def __exit__(self, *_):
        self._client.disconnect()
        self._client.loop_stop()

    def _ask(self, topic, question):
        self._client.publish(topic, json.dumps(question), qos=1)
        answer = self._answers.get(timeout=30)
        return answer.topic.removeprefix(f"{topic}/"), json.loads(answer.payload)

    def register(self, mac):
        """How the registration ended, what the answer was, and the certificate that was made for it."""
        accepted, made = self._ask(CREATE, {})
        assert accepted == "accepted", made
        request = {"certificateOwnershipToken": made["certificateOwnershipToken"], "parameters": {"MAC": mac}}
        return *self._ask(self._provision, request), made


@pytest.fixture(scope="module", autouse=True)
def allow_list(cloud):
    """One device, and all whose MAC begins with 02:FA."""
    where = {"Bucket": cloud.bucket, "Key": "provisioning/allowed.txt"}
    cloud.client("s3").put_object(Body=b"# first batch\n02-fa-00\n24:6F:28:00:00:01\n", **where)
    yield
    cloud.client("s3").delete_object(**where)


@pytest.fixture
def factory(cloud, tmp_path):
    claim = cloud.client("iot").create_provisioning_claim(templateName=cloud.outputs["DeviceProvisioningTemplate"])
    with Factory(cloud, claim, tmp_path) as session:
        yield session


def test_device_that_was_registered_with_a_claim_connects_as_itself(cloud, factory, tmp_path):
    mac = "02:FA:00:00:00:01"
    ended, answer, made = factory.register(mac)
    assert (ended, answer.get("thingName")) == ("accepted", mac), answer
    device = DeviceIdentity(mac, tmp_path / "device.pem", tmp_path / "device.key")
    device.certificate.write_text(made["certificatePem"])
    device.key.write_text(made["privateKey"])
    topics = [f"/firmware_update/{mac}"]
    with Subscriber("127.0.0.1", cloud.emulator.mqtt_port, cloud.mqtt_ca, device, topics) as session:
        cloud.client("iot-data").publish(topic=f"/firmware_update/{mac}", qos=1, payload=b"{}")
        assert session.wait_for(1, 30)


def test_claim_cannot_invent_devices(cloud, factory):
    """Each of them would have a vote on rollouts."""
    for number in range(21):
        mac = f"02:FB:00:00:00:{number:02X}"
        assert factory.register(mac)[0] == "rejected"
        with pytest.raises(ClientError, match="ResourceNotFound"):
            cloud.client("iot").describe_thing(thingName=mac)


@pytest.mark.parametrize("spelling", ["24-6f-28-00-00-01", "246F28000001", "24:6f:28:00:00:01"])
def test_device_is_registered_under_the_name_that_it_connects_with(cloud, factory, spelling):
    ended, answer, _ = factory.register(spelling)
    assert (ended, answer.get("thingName")) == ("accepted", "24:6F:28:00:00:01"), answer
    [principal] = cloud.client("iot").list_thing_principals(thingName="24:6F:28:00:00:01")["principals"]
    cloud.client("iot").detach_thing_principal(thingName="24:6F:28:00:00:01", principal=principal)
    cloud.client("iot").delete_thing(thingName="24:6F:28:00:00:01")


@pytest.mark.parametrize("mac", ["FF:FF:FF:FF:FF:FF", "00:00:00:00:00:00", "03:FA:00:00:00:01", "02:FA:00:00:00", "x"])
def test_what_is_no_devices_mac_is_not_registered(factory, mac):
    assert factory.register(mac)[0] == "rejected"


def test_thing_that_was_made_by_hand_without_its_attribute_cannot_be_taken_over(cloud, factory):
    iot, mac = cloud.client("iot"), "02:FA:00:00:00:05"
    certificate = iot.create_keys_and_certificate(setAsActive=True)["certificateArn"]
    iot.create_thing(thingName=mac)
    iot.attach_thing_principal(thingName=mac, principal=certificate)
    assert factory.register(mac)[0] == "rejected"
    assert iot.list_thing_principals(thingName=mac)["principals"] == [certificate]


def test_registered_device_cannot_be_taken_over_with_a_claim(cloud, factory):
    by_claim, by_hand = "02:FA:00:00:00:02", "02:FA:00:00:00:03"
    assert factory.register(by_claim)[0] == "accepted"
    cloud.device(by_hand)
    for mac in (by_claim, by_hand):
        before = cloud.client("iot").list_thing_principals(thingName=mac)["principals"]
        ended, answer, _ = factory.register(mac)
        assert ended == "rejected", answer
        assert cloud.client("iot").list_thing_principals(thingName=mac)["principals"] == before
