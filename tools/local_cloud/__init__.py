"""The local cloud: an AWS emulator and PostgreSQL on loopback, with the real stack deployed.

Test equipment: it starts servers and deploys, and does no step of the pipeline. Its state is one folder; what the
servers hold is lost when they stop.
"""

from .cloud import DEVICE_MAC, LocalCloud, example_image, is_running, running, start, stop
from .devices import DeviceIdentity, Message, Subscriber
from .errors import LocalCloudError

__all__ = [
    "DEVICE_MAC",
    "DeviceIdentity",
    "LocalCloud",
    "LocalCloudError",
    "Message",
    "Subscriber",
    "example_image",
    "is_running",
    "running",
    "start",
    "stop",
]
