"""The fakes, the protocols and the stores that they stand for have the same methods, parameter by parameter."""

import inspect
import typing

import pytest
from ota_core.runtime.device_notifier import DeviceNotifier
from ota_core.stages.publication import Notifier
from ota_core.stores import interfaces
from ota_core.stores.check_in_store import CheckInStore
from ota_core.stores.database import Database
from ota_core.stores.delivery_store import DeliveryStore
from ota_core.stores.image_store import ImageStore
from ota_core.stores.operator_commands import OperatorCommands
from ota_core.stores.operator_queries import OperatorQueries
from ota_core.stores.release_store import ReleaseStore
from ota_core.stores.rollout_store import RolloutStore
from ota_core.stores.status_store import StatusStore
from ota_core.stores.wave_store import WaveStore
from support import fakes

IMPLEMENTATIONS = {
    Notifier: (DeviceNotifier, fakes.FakeNotifier),
    interfaces.CheckIns: (CheckInStore, fakes.FakeCheckIns),
    interfaces.Commands: (OperatorCommands, fakes.FakeCommands),
    interfaces.Deliveries: (DeliveryStore, fakes.FakeDeliveries),
    interfaces.Images: (ImageStore, fakes.FakeImages),
    interfaces.Queries: (OperatorQueries, fakes.FakeQueries),
    interfaces.Releases: (ReleaseStore, fakes.FakeReleases),
    interfaces.Rollouts: (RolloutStore, fakes.FakeRollouts),
    interfaces.Statuses: (StatusStore, fakes.FakeStatuses),
    interfaces.Transactions: (Database, fakes.FakeTransactions),
    interfaces.Waves: (WaveStore, fakes.FakeWaves),
}


def methods(kind):
    """The public methods, with their whole signatures."""
    return {
        name: inspect.signature(method)
        for name, method in inspect.getmembers(kind, inspect.isfunction)
        if not name.startswith("_")
    }


def test_every_protocol_and_every_fake_is_compared():
    protocols = {kind for kind in vars(interfaces).values() if getattr(kind, "_is_protocol", False)}
    assert set(IMPLEMENTATIONS) == (protocols - {typing.Protocol}) | {Notifier}
    assert {fake for _, fake in IMPLEMENTATIONS.values()} == {
        kind for name, kind in vars(fakes).items() if name.startswith("Fake")
    }


@pytest.mark.parametrize("protocol", IMPLEMENTATIONS, ids=lambda protocol: protocol.__name__)
def test_store_and_fake_have_the_methods_of_the_protocol(protocol):
    expected = methods(protocol)
    store, fake = IMPLEMENTATIONS[protocol]
    assert expected
    assert methods(store) == expected
    assert {name: signature for name, signature in methods(fake).items() if name in expected} == expected
    assert expected.keys() <= vars(fake).keys(), "implemented, not inherited from the protocol"
