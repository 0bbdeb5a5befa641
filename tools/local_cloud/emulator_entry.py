"""Run the AWS emulator, with every listener on loopback. Runs in the emulator's own environment."""

# ruff: noqa: ANN401 - what asyncio takes is passed on as it is

from asyncio.base_events import BaseEventLoop
from typing import Any

from ministack.app import main

_create_server = BaseEventLoop.create_server


async def _create_server_on_loopback(
    loop: Any, factory: Any, host: Any = None, port: Any = None, **options: Any
) -> Any:
    """Replace the wildcard address, on which the emulator serves MQTT whatever its BIND_HOST says."""
    address = "127.0.0.1" if host == "0.0.0.0" else host  # noqa: S104 - that is what it replaces
    return await _create_server(loop, factory, address, port, **options)


BaseEventLoop.create_server = _create_server_on_loopback  # type: ignore[assignment, method-assign]

if __name__ == "__main__":
    main()
