"""`sam local invoke` against a running local cloud.

It runs a function in a container, as AWS would, and a container cannot reach this machine's loopback. So the local
cloud's ports are also opened at the address where containers find this machine, and nowhere else.
"""

import asyncio
import contextlib
import json
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import docker
import docker.errors
import yaml

from .cloud import PROJECT, LocalCloud
from .errors import LocalCloudError
from .stack import ARCHITECTURE, STACK_NAME, build_stack

# Docker's name for the machine; the local PostgreSQL's certificate includes it.
HOST_OF_CONTAINERS = "host.docker.internal"
# The template's default: the runtime that AWS would use, whatever Python runs here.
_RUNTIME = "python3.13"
_IP_FREEBIND = 15  # linux/in.h: some engines create the address only when the first container runs


@dataclass(frozen=True)
class SamLocal:
    """What `sam local invoke` needs to know about a local cloud.

    Attributes:
        template: the built template.
        settings: the functions' environment variables, as deployed except for the addresses.
        gateway: the address of this machine on the containers' network; None if the engine takes care of it.
    """

    template: Path
    settings: Path
    gateway: str | None

    @property
    def command(self) -> list[str]:
        """The command, to which you add an event (`--event FILE`) and a function's logical id."""
        known_host = ["--add-host", f"{HOST_OF_CONTAINERS}:{self.gateway}"] if self.gateway else []
        return [
            *("sam", "local", "invoke", "--template", str(self.template), "--env-vars", str(self.settings)),
            *known_host,
        ]


@contextlib.contextmanager
def reachable_from_containers(cloud: LocalCloud) -> Iterator[SamLocal]:
    """Build the stack as AWS runs it, and let containers reach the cloud while this is open.

    Raises:
        LocalCloudError: No container engine responds, or the stack does not build.
    """
    gateway = _gateway() if sys.platform == "linux" else None
    folder = cloud.state / "sam-local"
    build_stack(PROJECT, folder, cloud.state / "logs" / "sam-local.log", cloud.state / "run" / "sam.json", _RUNTIME)
    prepared = SamLocal(folder / "build" / "local.yaml", folder / "settings.json", gateway)
    prepared.template.write_text(_template_for_local_cloud(folder / "build" / "template.yaml"))
    prepared.settings.write_text(json.dumps(_settings(cloud), indent=2))
    with _forwarding(gateway, [cloud.emulator.port, cloud.database.port]) if gateway else contextlib.nullcontext():
        yield prepared


def _gateway() -> str:
    try:
        network = docker.from_env().networks.get("bridge")
    except docker.errors.DockerException as error:
        raise LocalCloudError(
            f"No container engine answers ({error}).", "Start Docker, or set DOCKER_HOST to another engine's socket."
        ) from error
    gateway: str = network.attrs["IPAM"]["Config"][0]["Gateway"]
    return gateway


def _template_for_local_cloud(built: Path) -> str:
    """The built template with this machine's architecture, and the variable that sam passes on only if declared."""
    template = yaml.safe_load(built.read_text())
    template["Parameters"]["Architecture"]["Default"] = ARCHITECTURE
    template["Globals"]["Function"]["Environment"]["Variables"]["AWS_ENDPOINT_URL"] = ""
    text: str = yaml.safe_dump(template)
    return text


def _settings(cloud: LocalCloud) -> dict[str, dict[str, str]]:
    """The variables of each deployed function, by its logical id."""
    functions = cloud.client("lambda")
    resources = cloud.client("cloudformation").describe_stack_resources(StackName=STACK_NAME)["StackResources"]
    settings = {}
    for resource in resources:
        if resource["ResourceType"] != "AWS::Lambda::Function":
            continue
        deployed = functions.get_function_configuration(FunctionName=resource["PhysicalResourceId"])
        variables = deployed["Environment"]["Variables"]
        variables["AWS_ENDPOINT_URL"] = f"http://{HOST_OF_CONTAINERS}:{cloud.emulator.port}"
        if "DATABASE_HOST" in variables:
            variables["DATABASE_HOST"] = HOST_OF_CONTAINERS
        settings[resource["LogicalResourceId"]] = variables
    return settings


@contextlib.contextmanager
def _forwarding(address: str, ports: list[int]) -> Iterator[None]:
    """Forward ports of an address to the same ports on loopback."""
    loop = asyncio.new_event_loop()
    servers = [loop.run_until_complete(_forward(address, port)) for port in ports]
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        for server in servers:
            loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


async def _forward(address: str, port: int) -> asyncio.Server:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
    listener.bind((address, port))

    async def connect(from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(_copy(from_client, to_server), _copy(from_server, to_client))

    return await asyncio.start_server(connect, sock=listener)


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while received := await source.read(65536):
            sink.write(received)
            await sink.drain()
    sink.close()
