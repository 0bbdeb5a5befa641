"""OperateReleases: what operators see of releases and devices, and what they do to them.

The function that invokes this one has checked that the caller may make the request, and passes on the secret by which
both know that it came through the API.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext
from ota_core.formats import strict_json
from ota_core.formats.device_status import DeviceState
from ota_core.formats.manifest import is_product
from ota_core.formats.release_id import is_release_id
from ota_core.formats.targets import is_tag, normalise_mac
from ota_core.http.api_gateway import RequestRefused, answer, answer_json, path_parameter, query_parameter
from ota_core.http.operator_identity import came_through_api, not_through_api
from ota_core.http.operator_requests import page_limit, page_position, refuse_unknown_query
from ota_core.rules.operator_actions import Action, ActionRefused
from ota_core.rules.release_state import ReleaseState
from ota_core.runtime.aws_errors import is_aws_error
from ota_core.runtime.environment import read_environment
from ota_core.runtime.log_line import log_database_failure
from ota_core.stores.database import Database, DatabaseSettings, is_outage
from ota_core.stores.operator_commands import OperatorCommands
from ota_core.stores.operator_queries import FAILING_DEVICES, OperatorQueries, UnknownDevice, UnknownRelease

if TYPE_CHECKING:
    from ota_core.formats import contracts
    from ota_core.stores.interfaces import Commands, Queries

MAX_TAGS = 50
# What `state` may ask for in the list of a release's devices.
DEVICE_STATES = (*DeviceState, FAILING_DEVICES)


@dataclass(frozen=True, slots=True)
class Settings:
    """See the template for each variable."""

    api_secret: str


SETTINGS = read_environment(Settings)
DATABASE = Database(read_environment(DatabaseSettings), on_failure=log_database_failure, timeout_seconds=20)
QUERIES: Queries = OperatorQueries(DATABASE)
COMMANDS: Commands = OperatorCommands(DATABASE)
logger = Logger()


@logger.inject_lambda_context
def lambda_handler(event: contracts.OperatorRequest, context: LambdaContext) -> contracts.OperatorAnswer:
    """Answer the request of the operator `event["caller"]`."""
    return answer(event, route, logger, is_outage, is_aws_error)


def route(event: contracts.OperatorRequest) -> contracts.OperatorAnswer:
    """Answer the request by its method and path."""
    if not came_through_api(event, SETTINGS.api_secret):
        raise not_through_api()
    work, parameters = ROUTES.get((event["httpMethod"], event["resource"]), (None, ()))
    if work is None:
        raise RequestRefused(404, "not_found", "There is no such path with this method.")
    refuse_unknown_query(event, parameters)
    try:
        return work(event)
    except UnknownRelease as error:
        raise RequestRefused(404, "release_unknown", f"There is no release {error}.") from error
    except UnknownDevice as error:
        raise RequestRefused(
            404, "device_unknown", f"Unknown device {error}: it has never reported and has no tags."
        ) from error


def list_releases(event: contracts.OperatorRequest) -> contracts.ApiAnswer:
    """`GET /releases`, newest first."""
    product = query_parameter(event, "product")
    if product is not None and not is_product(product):
        raise RequestRefused(
            400,
            "product_invalid",
            f"{product!r:.80} is not a valid product name; expected a-z, 0-9 and -, at most 63 characters.",
        )
    return _answer(
        QUERIES.list_releases(
            product=product,
            state=_one_of(event, "state", tuple(ReleaseState)),
            before=page_position(event, "releases", _row_id),
            limit=page_limit(event),
        )
    )


def describe_release(event: contracts.OperatorRequest) -> contracts.ApiAnswer:
    """`GET /releases/{release_id}`."""
    return _answer(QUERIES.describe_release(_release_id(event)))


def describe_timeline(event: contracts.OperatorRequest) -> contracts.ApiAnswer:
    """`GET /releases/{release_id}/timeline`."""
    return _answer(QUERIES.describe_timeline(_release_id(event)))


def list_devices(event: contracts.OperatorRequest) -> contracts.ApiAnswer:
    """`GET /releases/{release_id}/devices`, by MAC."""
    return _answer(
        QUERIES.list_devices(
            _release_id(event),
            state=_one_of(event, "state", DEVICE_STATES),
            after=page_position(event, "devices", normalise_mac),
            limit=page_limit(event),
        )
    )


def act(event: contracts.OperatorRequest) -> contracts.OperatorAnswer:
    """`POST /releases/{release_id}/actions`."""
    body = _body(event)
    try:
        action = Action(str(body.get("action")))
    except ValueError as error:
        raise RequestRefused(
            400, "action_invalid", f"{body.get('action')!r:.60} is not an action; expected one of {', '.join(Action)}."
        ) from error
    wave = body.get("wave")
    if (action is Action.PROMOTE) != (type(wave) is int):
        raise RequestRefused(
            400,
            "wave_invalid",
            "To promote, and only then, give the number of the next wave: "
            '{"action": "promote", "wave": 2}. Repeating the request then promotes only once.',
        )
    release_id = _release_id(event)
    try:
        release, wake = COMMANDS.act(release_id, action, wave=wave, caller=event["caller"])
    except ActionRefused as why:
        raise RequestRefused(409, "action_not_allowed", f"Cannot {action}: {why}.", state=why.state) from why
    logger.info("acted", extra={"action": action, "release_id": release_id, "caller": event["caller"]})
    answered = _answer(release)
    return {**answered, "wake": wake} if wake else answered


def describe_device(event: contracts.OperatorRequest) -> contracts.ApiAnswer:
    """`GET /devices/{mac}`, with its history, newest first."""
    before = page_position(event, "history", _reported)
    return _answer(QUERIES.describe_device(_mac(event), before=before, limit=page_limit(event)))


def replace_tags(event: contracts.OperatorRequest) -> contracts.ApiAnswer:
    """`PUT /devices/{mac}/tags`."""
    mac = _mac(event)
    tags = _body(event).get("tags")
    if not isinstance(tags, list) or not all(isinstance(tag, str) and is_tag(tag) for tag in tags):
        raise RequestRefused(
            400,
            "tags_invalid",
            'The tags are not valid; expected {"tags": ["beta", "site=berlin"]}, each of a-z, 0-9, _ . = - and at most'
            " 63 characters long.",
        )
    if len(set(tags)) > MAX_TAGS:
        raise RequestRefused(400, "tags_invalid", f"{len(set(tags))} tags are too many; a device can have {MAX_TAGS}.")
    return _answer(COMMANDS.replace_tags(mac, sorted(set(tags)), caller=event["caller"]))


# What answers a method and path, and the query parameters that it takes.
ROUTES: dict[
    tuple[str, str], tuple[Callable[[contracts.OperatorRequest], contracts.OperatorAnswer], tuple[str, ...]]
] = {
    ("GET", "/releases"): (list_releases, ("product", "state", "limit", "after")),
    ("GET", "/releases/{release_id}"): (describe_release, ()),
    ("GET", "/releases/{release_id}/timeline"): (describe_timeline, ()),
    ("GET", "/releases/{release_id}/devices"): (list_devices, ("state", "limit", "after")),
    ("POST", "/releases/{release_id}/actions"): (act, ()),
    ("GET", "/devices/{mac}"): (describe_device, ("limit", "after")),
    ("PUT", "/devices/{mac}/tags"): (replace_tags, ()),
}


def _answer(document: Mapping[str, Any]) -> contracts.ApiAnswer:
    return answer_json(200, json.dumps(document, ensure_ascii=False).encode(), {"Cache-Control": "no-store"})


def _mac(event: contracts.OperatorRequest) -> str:
    text = path_parameter(event, "mac")
    mac = normalise_mac(text)
    if mac is None:
        raise RequestRefused(
            400, "mac_invalid", f"{text!r:.60} is not a MAC address; expected one such as AA:BB:CC:DD:EE:FF."
        )
    return mac


def _release_id(event: contracts.OperatorRequest) -> str:
    release_id = path_parameter(event, "release_id")
    if not is_release_id(release_id):
        raise RequestRefused(404, "release_unknown", f"{release_id!r:.60} is not a release id; expected 32 hex digits.")
    return release_id


def _one_of(event: contracts.OperatorRequest, name: str, allowed: tuple[str, ...]) -> str | None:
    value = query_parameter(event, name)
    if value is not None and value not in allowed:
        raise RequestRefused(
            400, f"{name}_invalid", f"{value!r:.60} is not a valid {name}; expected one of {', '.join(allowed)}."
        )
    return value


def _reported(moment: str, row: int) -> tuple[datetime, int] | None:
    at, row_id = datetime.fromisoformat(moment), _row_id(row)
    return None if at.tzinfo is None or row_id is None else (at.astimezone(UTC), row_id)


def _row_id(value: object) -> int | None:
    return value if type(value) is int and 0 <= value < 2**63 else None


def _body(event: contracts.OperatorRequest) -> dict[str, Any]:
    raw = event.get("body") or ""
    try:
        document = strict_json.loads(base64.b64decode(raw) if event.get("isBase64Encoded") else raw.encode())
    except ValueError as error:
        raise RequestRefused(400, "body_not_json", f"The body is not JSON ({error}).") from error
    if not isinstance(document, dict):
        raise RequestRefused(400, "body_not_json", "The body is not a JSON object.")
    return document
