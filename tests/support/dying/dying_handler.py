"""A layer of the tests' own: runs a function's handler, and lets its process die just before or after a chosen call.

Calls are those to S3 and other services through botocore, each message to IoT, and each statement to PostgreSQL. They
are counted for each release and function over all invocations, so that a release's calls have numbers. The folder that
`DYING_FOLDER` names has a plan for each release, as `tests/e2e/test_crash_sweep.py` writes it.
"""

import contextlib
import functools
import importlib
import json
import os
from pathlib import Path

from botocore.httpsession import URLLib3Session
from ota_core.runtime import device_notifier
from ota_core.stores import database

FOLDER = Path(os.environ["DYING_FOLDER"])
STAGE = os.environ["DYING_STAGE"]
# Made once for each connection, so a function that is warm already makes none.
UNCOUNTED = ("secretsmanager.GetSecretValue",)

_plan = None


def lambda_handler(event, context):
    """Run the function's own handler with the plan of the release that the event is about."""
    global _plan  # noqa: PLW0603 - a Lambda worker handles one event at a time
    text = json.dumps(event)
    plans = [json.loads(path.read_text()) for path in FOLDER.glob("*.plan.json")]
    _plan = next((plan for plan in plans if plan["product"] in text or plan["release_id"] in text), None)
    return _own_handler(event, context)


def _call(name, make):
    if _plan is None or name in UNCOUNTED:
        return make()
    number = _count(name)
    is_chosen = (_plan["stage"], _plan["call"]) == (STAGE, number)
    if is_chosen and _plan["moment"] == "before":
        _die()
    answer = make()
    if is_chosen and _plan["moment"] == "after":
        _die()
    return answer


def _count(name):
    """The number of this call, from 1."""
    file = os.open(FOLDER / f"{_plan['product']}.{STAGE}.calls", os.O_CREAT | os.O_APPEND | os.O_RDWR)
    os.write(file, f"{name[:60]:<63}\n".encode())
    number = os.lseek(file, 0, os.SEEK_CUR) // 64
    os.close(file)
    return number


def _die():
    with contextlib.suppress(FileExistsError):
        (FOLDER / f"{_plan['product']}.died").touch(exist_ok=False)
        os._exit(1)


def _counted(method, name_of):
    @functools.wraps(method)
    def call(self, *arguments, **options):
        return _call(name_of(*arguments), lambda: method(self, *arguments, **options))

    return call


def _service_call(request):
    target = request.headers.get("X-Amz-Target", b"").decode()
    return target or f"{request.method} /{request.url.split('/', 3)[-1]}"


URLLib3Session.send = _counted(URLLib3Session.send, _service_call)
device_notifier._Connection.exchange = _counted(
    device_notifier._Connection.exchange, lambda head, _: head.split(b"?")[0].decode()
)
database._Connection.run = _counted(database._Connection.run, lambda sql: " ".join(sql.split()))

_own_handler = importlib.import_module("handler").lambda_handler
