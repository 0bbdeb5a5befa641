"""gooseBit with a fleet: python goosebit_server.py PORT DEVICES IMAGE. Runs in its own environment.

It creates gooseBit's tables, fills them, and then serves like `python -m goosebit`, but on loopback.
"""

import asyncio
import sys
from pathlib import Path

import uvicorn
from goosebit import app
from goosebit.db.config import TORTOISE_CONF
from goosebit.db.models import Hardware, Rollout, Software
from tortoise import Tortoise


async def fill(devices, image):
    await Tortoise.init(config=TORTOISE_CONF)
    await Tortoise.generate_schemas()
    hardware = await Hardware.create(model="bench", revision="1")
    software = await Software.create(uri=image.as_uri(), size=image.stat().st_size, hash="0" * 40, version="1.0.1")
    await software.compatibility.add(hardware)
    await Rollout.create(name="bench", software=software)
    database = Tortoise.get_connection("default")
    # Half of them are up to date; the other half have an update to download.
    await database.execute_script(
        "INSERT INTO device (id, name, hardware_id, sw_version, feed, update_mode, last_state, force_update)"  # noqa: S608 - numbers
        f" SELECT 'device-' || n, '', {hardware.id}, CASE n % 2 WHEN 0 THEN '1.0.1' ELSE '1.0.0' END, 'default', 3, 5,"
        f" false FROM generate_series(0, {devices - 1}) AS n; ANALYZE"
    )
    await Tortoise.close_connections()


if __name__ == "__main__":
    asyncio.run(fill(int(sys.argv[2]), Path(sys.argv[3])))
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", access_log=False)
