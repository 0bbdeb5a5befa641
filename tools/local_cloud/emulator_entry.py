"""Run the AWS emulator, ministack, with fixes for where it falls short. Runs in the emulator's own environment.

Each fix says for which version of ministack it is. `tests/integration/test_emulator_fixes.py` fails when the installed
version no longer needs it.
"""

# ruff: noqa: ANN401 - what the emulator and asyncio take is passed on as it is

import asyncio
import hashlib
import hmac
import html
import json
import os
import random
import re
import secrets
import tempfile
import threading
import types
import uuid
import zipfile
from asyncio.base_events import BaseEventLoop
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, parse_qsl, quote, unquote

import yaml
from ministack import app
from ministack.core import iam_actions, iam_evaluator, lambda_runtime, responses, router, sigv4
from ministack.services import apigateway_v1, cognito, iot, rds, rds_data, s3, secretsmanager, sqs, stepfunctions
from ministack.services.cloudformation import provisioners

# ministack 1.5.33 serves MQTT on every interface, whatever BIND_HOST says.
_create_server = BaseEventLoop.create_server


async def _create_server_on_loopback(
    loop: Any, factory: Any, host: Any = None, port: Any = None, **options: Any
) -> Any:
    """Listen on loopback instead of on every interface."""
    address = "127.0.0.1" if host == "0.0.0.0" else host  # noqa: S104 - that is what it replaces # nosec B104
    return await _create_server(loop, factory, address, port, **options)


BaseEventLoop.create_server = _create_server_on_loopback  # type: ignore[assignment, method-assign]

# ministack 1.5.33 pauses reading until TLS begins, before asyncio has started to read. Debian 12's Python, 3.11.2,
# forgets such a pause, and the ClientHello is lost.
_accept_mqtt = iot._MtlsAcceptor.connection_made  # noqa: SLF001


def _accept_mqtt_once_it_is_read(acceptor: Any, transport: Any) -> None:
    """Let the emulator pause reading only after asyncio has started to read."""
    asyncio.get_running_loop().call_soon(_accept_mqtt, acceptor, transport)


iot._MtlsAcceptor.connection_made = _accept_mqtt_once_it_is_read  # noqa: SLF001

# ministack 1.5.33 takes root's calls with any signature, and those to S3 without one. It answers to every host name,
# and lets every web page read its answers.
_serve = app.app
_HOSTS = frozenset({"127.0.0.1", "localhost", "host.docker.internal"})  # this machine, and what containers call it
_ROOT_ACCESS_KEY_ID = "test"  # as in stack.py, which another Python runs
_SIGN_IN = frozenset(
    {
        ("GET", "/oauth2/authorize"),
        ("POST", "/login"),
        ("POST", "/oauth2/token"),
        ("POST", "/oauth2/revoke"),
        ("GET", "/logout"),
    }
)
_Answer = tuple[int, dict[str, str], bytes]


@dataclass(frozen=True, slots=True)
class _Request:
    """A request as it arrived; headers in lower case."""

    method: str
    path: str
    raw_path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes


def _refusal_of_name(headers: dict[str, str]) -> str | None:
    """Why the browser of a stranger's page may have sent this (DNS rebinding, cross-site requests); None if not."""
    host, origin = headers.get("host", ""), headers.get("origin")
    if host.split(":")[0] not in _HOSTS:
        return f"The host is {host!r}, expected one of {', '.join(sorted(_HOSTS))}: use the URL of .local/env."
    if origin not in {None, f"http://{host}"}:
        return f"The origin is {origin!r}, expected http://{host}: only the console's own page may ask."
    return None


def _api_method(request: _Request) -> tuple[str, str, str] | None:
    """The API Gateway's API, stage and path that a request is for."""
    called = app._parse_execute_api_url("", request.path)  # noqa: SLF001
    return called and (called[0], *app._resolve_stage_and_path(*called))  # noqa: SLF001


def _needs_signature(request: _Request) -> bool:
    """Whether AWS would demand a signature, too."""
    if called := _api_method(request):
        api, stage, path = called
        return bool(app._execute_api_authorization_type(api, stage, request.method, path) == "AWS_IAM")  # noqa: SLF001
    if (request.method, request.path) in _SIGN_IN:
        return False
    pool, keys, rest = request.path[1:].partition("/.well-known/jwks.json")
    if request.method == "GET" and keys and not rest and cognito._get_pool_unscoped(pool) is not None:  # noqa: SLF001
        return False  # API Gateway looks up the public keys of the tokens.
    if request.method == "PUT" and request.path.startswith("/_ministack/cfn-response/"):
        return False  # For a custom resource's answer, S3's presigned URL; here it has a random token.
    plain = (request.method, request.path, request.query) == ("POST", "/", {}) and "x-amz-target" not in request.headers
    form = parse_qs(request.body.decode("latin-1")) if plain else {}
    is_trade = form.get("Action") == ["AssumeRoleWithWebIdentity"]
    return not (is_trade and _is_genuine(form.get("WebIdentityToken", [""])[0]))


def _is_genuine(token: str) -> bool:
    """Whether a build server's token was made with this start's secret: the emulator checks no token's signature."""
    signed, _, signature = token.rpartition(".")
    expected = hmac.new(os.environ["AWS_SECRET_ACCESS_KEY"].encode(), signed.encode(), "sha256").hexdigest()
    return hmac.compare_digest(signature.encode(), expected.encode())


def _read_signature(request: _Request) -> Any:
    """The signature that a request brings, in its headers or its query, or what is wrong with it."""
    fail = iam_evaluator.AuthError
    authorization = request.headers.get("authorization", "")
    presigned = not authorization
    if not authorization.startswith("AWS4-HMAC-SHA256 ") and "X-Amz-Signature" not in request.query:
        return fail("MissingAuthenticationToken", "Missing Authentication Token")
    signature = (
        sigv4.parse_query_signature(request.query) if presigned else sigv4.parse_header_signature(request.headers)
    )
    if isinstance(signature, tuple):
        return fail(*signature)
    # The emulator reads for itself who calls: it must read what is checked here.
    if router.extract_access_key_id(request.headers, request.query) != signature.access_key_id or signature.region_set:
        return fail("IncompleteSignature", "The request names two access keys.")
    signed = set(signature.signed_headers.split(";"))
    if unsigned := [name for name in ("host", *request.headers) if name not in signed and _must_be_signed(name)]:
        return fail("SignatureDoesNotMatch", f"There were headers present which were not signed: {', '.join(unsigned)}")
    if failure := _time_failure(request, signature) if presigned else sigv4.request_time_failure(signature):
        return fail(*failure)
    return signature


def _signature_failure(request: _Request) -> Any:
    """Check a request's signature as AWS does; the error, or None."""
    fail = iam_evaluator.AuthError
    signature = _read_signature(request)
    if isinstance(signature, fail):
        return signature
    presigned = "authorization" not in request.headers
    token = request.query.get("X-Amz-Security-Token", [""])[0]
    account = responses._account_from_sts_session(signature.access_key_id) or responses.get_account_id()  # noqa: SLF001
    credential = iam_evaluator.resolve_credential(
        signature.access_key_id, account, token if presigned else request.headers.get("x-amz-security-token", "")
    )
    if isinstance(credential, iam_evaluator.CredentialResolutionError):
        return fail(credential.code, credential.message)
    failure = sigv4.header_signature_failure(
        signature,
        credential.secret_access_key,
        request.method,
        request.raw_path,
        request.query,
        request.headers,
        request.body,
        presigned=presigned,
    )
    is_own_route = request.path.startswith(("/_ministack/", "/_localstack/"))
    if is_own_route and signature.access_key_id != _ROOT_ACCESS_KEY_ID:
        return fail("AccessDenied", "Only root may use the emulator's own routes.")
    if failure or not _is_of_the_body(request, signature.service):
        return fail(*(failure or ("SignatureDoesNotMatch", sigv4.SIGNATURE_MISMATCH)))
    return None


def _must_be_signed(name: str) -> bool:
    return name == "host" or name.startswith("x-amz-")


def _time_failure(request: _Request, signature: Any) -> tuple[str, str] | None:
    """Why a presigned request is too early or too late."""
    try:
        late = sigv4.presigned_request_is_expired(signature.amz_date, request.query["X-Amz-Expires"][0])
    except (ValueError, KeyError):
        late = True
    return ("AccessDenied", "Request has expired") if late else None


def _is_of_the_body(request: _Request, service: str) -> bool:
    """Whether the hash that was signed is the body's; S3 lets the client leave the body unsigned."""
    claimed = request.headers.get("x-amz-content-sha256")
    if claimed is None:  # then the body's own went into the signature
        return True
    return claimed == hashlib.sha256(request.body).hexdigest() or (
        service == "s3" and claimed == sigv4.UNSIGNED_PAYLOAD
    )


def _refused(request: _Request, failure: Any) -> _Answer:
    """A failed authentication in the words of the service."""
    if called := _api_method(request):
        answer = apigateway_v1.authentication_error_response(*called[:2], failure, request.headers, request.query)
        if answer is not None:
            return answer  # type: ignore[no-any-return]
    service = router.detect_service(request.method, request.path, request.headers, request.query)
    return app._credential_failure(service, "", str(uuid.uuid4()), failure, request.headers)  # type: ignore[no-any-return] # noqa: SLF001


def _read_headers(scope: Any) -> dict[str, str]:
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), sigv4.decode_header_value(raw_value)
        headers[name] = f"{headers[name]},{value}" if name in headers else value
    return headers


async def _read_body(receive: Callable[[], Awaitable[Any]]) -> bytes | None:
    """The whole body; None if the client went away."""
    parts, more = [], True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


async def _serve_who_signs(scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Any]) -> None:
    """Let a request pass that AWS would take, and that no stranger's web page sent."""
    if scope["type"] == "lifespan":
        await _serve(scope, receive, send)
        return
    if scope["type"] == "websocket":  # nothing here uses them
        await receive()
        await send({"type": "websocket.close", "code": 1008})
        return
    headers = _read_headers(scope)
    if reason := _refusal_of_name(headers):
        answer = json.dumps({"message": reason}).encode()
        await app._send_response(send, 403, {"Content-Type": "application/json"}, answer)  # noqa: SLF001
        return
    body = await _read_body(receive)
    if body is None:
        return
    query = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    raw_path = (scope.get("raw_path") or quote(scope["path"]).encode()).decode("latin-1")
    request = _Request(scope["method"], scope["path"], raw_path, query, headers, body)
    if failure := _signature_failure(request) if _needs_signature(request) else None:
        await app._send_response(send, *_refused(request, failure))  # noqa: SLF001
        return
    whole = [{"type": "http.request", "body": request.body, "more_body": False}]

    async def receive_again() -> Any:
        return whole.pop() if whole else await receive()

    async def send_to_own_page_only(message: Any) -> None:
        """Nobody else may read it: the console is of the same origin."""
        if message["type"] == "http.response.start":
            kept = [header for header in message["headers"] if not header[0].lower().startswith(b"access-control-")]
            message = {**message, "headers": kept}
        await send(message)

    await _serve(scope, receive_again, send_to_own_page_only)


app.app = _serve_who_signs
apigateway_v1._AUTHENTICATION_GATEWAY_ERRORS["MissingAuthenticationToken"] = (  # noqa: SLF001
    "MISSING_AUTHENTICATION_TOKEN",
    "MissingAuthenticationTokenException",
)

# ministack 1.5.33 makes the credentials of a function's role from their names, so that anyone can make them.
_credentials_key = secrets.token_bytes(32)
lambda_runtime.hashlib = types.SimpleNamespace(sha256=lambda names: hmac.new(_credentials_key, names, "sha256"))

# ministack 1.5.33 leaves the groups out of tokens that a refresh token brings.
_fake_token = cognito._fake_token  # noqa: SLF001


def _token_with_groups(sub: str, pool_id: str, *arguments: Any, **options: Any) -> Any:
    """Say the user's groups in a token that a refresh token brings too, as Cognito does."""
    pool = cognito._get_pool_unscoped(pool_id) or {}  # noqa: SLF001
    user = pool.get("_users", {}).get(options.get("username", ""), {})
    return _fake_token(sub, pool_id, *arguments, **{"groups": user.get("_groups", [])} | options)


cognito._fake_token = _token_with_groups  # noqa: SLF001

# ministack 1.5.33 has no token revocation endpoint, only the API call RevokeToken.
_handle_cognito_body_request = app._handle_cognito_body_request  # noqa: SLF001


async def _handle_cognito_body_request_or_revocation(
    method: str, path: str, headers: Any, body: bytes, query: Any
) -> Any:
    """Revoke a refresh token as Cognito does for a client without a secret.

    https://docs.aws.amazon.com/cognito/latest/developerguide/revocation-endpoint.html
    """
    if (method, path) != ("POST", "/oauth2/revoke"):
        return await _handle_cognito_body_request(method, path, headers, body, query)
    form = dict(parse_qsl(body.decode()))
    token = form.get("token", "")
    granted = cognito._refresh_tokens.get(token)  # noqa: SLF001
    _, _, client = cognito._find_pool_by_client_id(form.get("client_id", ""))  # noqa: SLF001
    if client is None or (granted and granted["client_id"] != client["ClientId"]):
        return cognito._oauth2_error("invalid_client", "Invalid client", status=401)  # noqa: SLF001
    if not token or not client.get("EnableTokenRevocation", True):
        return cognito._oauth2_error("invalid_request", "No token, or revocation is disabled")  # noqa: SLF001
    if not granted and cognito._token_claims(token).get("token_use") in {"access", "id"}:  # noqa: SLF001
        return cognito._oauth2_error("unsupported_token_type", "Not a refresh token")  # noqa: SLF001
    cognito._revoke_token({"Token": token})  # noqa: SLF001
    return 200, {}, b""


app._handle_cognito_body_request = _handle_cognito_body_request_or_revocation  # noqa: SLF001

# ministack 1.5.33 forgets the parsed policies of all but 1,024 devices, and parses one for every message of the others.
iot._parsed_iot_policy = lru_cache(maxsize=None)(iot._parsed_iot_policy.__wrapped__)  # noqa: SLF001

# ministack 1.5.33 compares the topic of every message with the filters of all subscriptions. With thousands of devices
# it does little else.
_broker_publish = iot.broker_publish
_published_topic: ContextVar[str | None] = ContextVar("published topic", default=None)


class _Subscriptions(dict[str, set[Any]]):
    """The MQTT broker's subscriptions by filter, of which a publication meets only those that its topic can match."""

    def __init__(self) -> None:
        super().__init__()
        self._wildcards: dict[str, set[Any]] = {}

    def setdefault(self, topic_filter: str, default: set[Any]) -> set[Any]:
        found = super().setdefault(topic_filter, default)
        if "+" in topic_filter or "#" in topic_filter:
            self._wildcards[topic_filter] = found
        return found

    def pop(self, topic_filter: str, default: Any = None) -> Any:
        self._wildcards.pop(topic_filter, None)
        return super().pop(topic_filter, default)

    def clear(self) -> None:
        self._wildcards.clear()
        super().clear()

    def values(self) -> Any:
        topic = _published_topic.get()
        if topic is None:
            return super().values()
        exact = {topic: self[topic]} if topic in self else {}
        return {**self._wildcards, **exact}.values()


async def _publish_to_those_who_may_match(account_id: str, region: str, topic: str, *rest: Any, **options: Any) -> None:
    token = _published_topic.set(iot._scoped_topic(account_id, region, topic))  # noqa: SLF001
    try:
        await _broker_publish(account_id, region, topic, *rest, **options)
    finally:
        _published_topic.reset(token)


iot._subscriptions = _Subscriptions()  # noqa: SLF001
iot.broker_publish = _publish_to_those_who_may_match

# ministack 1.5.33 replays retained messages when a session is resumed, and before the CONNACK, at which a client that
# keeps to MQTT 3.1.1 section 3.1.4 gives up.
_broker_subscribe = iot.broker_subscribe
_filters: dict[str, str] = {}  # of the MQTT subscriptions


async def _subscribe_without_replay(*arguments: Any, **options: Any) -> Any:
    """Replay retained messages to a SUBSCRIBE only (MQTT 3.1.1 section 3.3.1.3).

    A SUBSCRIBE says how to handle retained messages, a resumption does not.
    """
    subscription: str = await _broker_subscribe(
        *arguments, **{"retain_handling": iot.RETAIN_HANDLING_SEND_NEVER} | options
    )
    _filters[subscription] = iot._scoped_topic(*arguments[:3])  # noqa: SLF001
    return subscription


iot.broker_subscribe = _subscribe_without_replay


# ministack 1.5.33 looks through all subscriptions, of which there may be thousands, to end one.
async def _unsubscribe(subscription: str) -> None:
    """End a subscription without looking at those to other filters."""
    async with iot._broker_lock:  # noqa: SLF001
        topic_filter = _filters.pop(subscription, "")
        subscribers = iot._subscriptions.get(topic_filter, set())  # noqa: SLF001
        subscribers -= {subscriber for subscriber in subscribers if subscriber.subscription_id == subscription}
        if not subscribers:
            iot._subscriptions.pop(topic_filter, None)  # noqa: SLF001


iot.broker_unsubscribe = _unsubscribe

# ministack 1.5.33 lets CloudFormation make a database cluster without the secret that RDS is to manage.
_create_database_cluster = provisioners._rds_db_cluster_create  # noqa: SLF001


def _create_database_cluster_with_its_secret(logical_id: str, properties: Any, stack: str) -> Any:
    """Make the secret of a cluster whose password RDS is to manage, as the emulator's own CreateDBCluster does."""
    cluster_id, attributes = _create_database_cluster(logical_id, properties, stack)
    if properties.get("ManageMasterUserPassword") in {True, "true"}:
        login = json.dumps({"username": properties["MasterUsername"], "password": "managed"})  # nosec B105
        secret = secretsmanager.create_secret_in_process(f"rds!{cluster_id}", login)
        rds._clusters[cluster_id]["MasterUserSecret"] = {"SecretArn": secret, "SecretStatus": "active"}  # noqa: SLF001
        attributes["MasterUserSecret.SecretArn"] = secret
    return cluster_id, attributes


provisioners._RESOURCE_HANDLERS["AWS::RDS::DBCluster"]["create"] = _create_database_cluster_with_its_secret  # noqa: SLF001

# ministack 1.5.33 knows only MySQL's statements where there is no database behind a cluster.
_execute_without_database = rds_data._stub_execute  # noqa: SLF001


def _execute_statement_of_postgresql(resource_arn: str, sql: str) -> Any:
    """Take statements in PostgreSQL's dialect too."""
    if sql.startswith(("DO ", "GRANT ")):
        return rds_data._stub_success()  # noqa: SLF001
    return _execute_without_database(resource_arn, sql)


rds_data._stub_execute = _execute_statement_of_postgresql  # noqa: SLF001

# ministack 1.5.33 ignores Range in a request for an object version.
_get_object = s3._get_object  # noqa: SLF001


def _get_object_with_range(bucket: str, key: str, headers: Any, query: Any = None) -> Any:
    """Honour Range in a request that names an object version too, as S3 does."""
    status, found, body = _get_object(bucket, key, headers, query)
    if status != 200 or "range" not in headers or "versionId" not in (query or {}):
        return status, found, body
    part = s3._parse_range(headers["range"], len(body))  # noqa: SLF001
    if part is None:
        return s3._error("InvalidRange", "The requested range is not satisfiable", 416, f"/{bucket}/{key}")  # noqa: SLF001
    first, last = part
    # The checksums are of the whole.
    kept = {name: value for name, value in found.items() if not name.lower().startswith("x-amz-checksum-")}
    length = {"Content-Length": str(last - first + 1), "Content-Range": f"bytes {first}-{last}/{len(body)}"}
    return 206, kept | length, body[first : last + 1]


s3._get_object = _get_object_with_range  # noqa: SLF001

# ministack 1.5.33 copies an object out of an archive that nobody has restored.
_copy_object = s3._copy_object  # noqa: SLF001


def _copy_object_unless_archived(bucket: str, key: str, headers: Any) -> Any:
    """Refuse to copy an archived object, as S3 does."""
    path, _, version = headers.get("x-amz-copy-source", "").lstrip("/").partition("?versionId=")
    source_bucket, _, source_key = unquote(path).partition("/")
    status, _, body = _get_object(source_bucket, source_key, {}, {"versionId": [version]} if version else {})
    if status == 403 and b"<Code>InvalidObjectState<" in body:
        return s3._error("ObjectNotInActiveTierError", "The source object is archived.", 403, f"/{bucket}/{key}")  # noqa: SLF001
    return _copy_object(bucket, key, headers)


s3._copy_object = _copy_object_unless_archived  # noqa: SLF001

# ministack 1.5.33 ignores EncodingType=url in ListObjectVersions, without which XML cannot list a key that has a
# control character.
_list_object_versions = s3._list_object_versions  # noqa: SLF001


def _list_object_versions_encoded(bucket: str, query: Any) -> Any:
    """Honour EncodingType=url."""
    status, headers, body = _list_object_versions(bucket, query)
    if status != 200 or s3._qp(query, "encoding-type", "") != "url":  # noqa: SLF001
        return status, headers, body

    def encode(element: re.Match[str]) -> str:
        return f"<{element[1]}>{quote(html.unescape(element[2]))}</{element[1]}>"

    encoded = re.sub(r"<(Key|Prefix|Delimiter|KeyMarker|NextKeyMarker)>([^<]*)</\1>", encode, body.decode())
    end = "</ListVersionsResult>"
    return status, headers, encoded.replace(end, f"<EncodingType>url</EncodingType>{end}").encode()


s3._list_object_versions = _list_object_versions_encoded  # noqa: SLF001

# ministack 1.5.33 gives a REST API a random id, as AWS does; here its URL must be known before it is deployed.
_create_rest_api = apigateway_v1._create_rest_api  # noqa: SLF001


def _create_rest_api_under_its_name(description: Any) -> Any:
    """Let an API have its name for its id."""
    return _create_rest_api(
        {**description, "tags": {**description.get("tags", {}), "ms-custom-id": description["name"]}}
    )


apigateway_v1._create_rest_api = _create_rest_api_under_its_name  # noqa: SLF001

# ministack 1.5.33 ignores the gateway responses of an OpenAPI document.
_import_rest_api = apigateway_v1._import_rest_api  # noqa: SLF001


def _import_rest_api_with_gateway_responses(definition: Any, properties: Any = None) -> Any:
    """Import the gateway responses of an OpenAPI document too, as API Gateway does."""
    api_id = _import_rest_api(definition, properties)
    for response_type, response in definition.get("x-amazon-apigateway-gateway-responses", {}).items():
        apigateway_v1._put_gateway_response(api_id, response_type, response)  # noqa: SLF001
    return api_id


apigateway_v1._import_rest_api = _import_rest_api_with_gateway_responses  # noqa: SLF001

# ministack 1.5.33 lets anyone who may publish a message over HTTP also retain it.
_extract_iam_action = iam_actions.extract_iam_action


def _iam_action_of_retained_message(service: str, method: str, path: str, headers: Any, body: bytes, query: Any) -> Any:
    """Ask for iot:RetainPublish where a message is to be retained; AWS asks for iot:Publish as well."""
    action = _extract_iam_action(service, method, path, headers, body, query)
    return "iot:RetainPublish" if action == "iot:Publish" and "true" in (query or {}).get("retain", ()) else action


iam_actions.extract_iam_action = _iam_action_of_retained_message

# ministack 1.5.33 checks calls about a log stream against the ARN of its group alone.
_extract_resource_arn = iam_actions.extract_resource_arn


def _resource_arn_with_log_stream(service: str, method: str, path: str, headers: Any, body: bytes, *where: Any) -> str:
    """Name the stream in a log group, which policies on `<log group>:*` are about."""
    arn: str = _extract_resource_arn(service, method, path, headers, body, *where)
    if service != "logs" or not (stream := json.loads(body or b"{}").get("logStreamName")):
        return arn
    return f"{arn}:log-stream:{stream}"


iam_actions.extract_resource_arn = _resource_arn_with_log_stream

# ministack 1.5.33 does not know the condition key events:source.
_request_tag_context = iam_actions.request_tag_context


def _request_context_with_event_source(service: str, action: str, body: bytes, parameters: Any) -> Any:
    """Let a policy ask for the source of the events that PutEvents puts."""
    context = _request_tag_context(service, action, body, parameters)
    if action != "events:PutEvents":
        return context
    sources = {entry.get("Source") for entry in json.loads(body)["Entries"]}
    return {**context, "events:source": sources.pop() if len(sources) == 1 else sorted(sources)}


iam_actions.request_tag_context = _request_context_with_event_source

# ministack 1.5.33 does not know the condition keys of an object's storage class and of a customer's encryption key.
_s3_service_context = iam_actions.s3_service_context
_STORAGE_HEADERS = ("x-amz-storage-class", "x-amz-server-side-encryption-customer-algorithm")


def _s3_context_with_storage(action: str, query: Any, path: str = "", headers: Any = None) -> Any:
    """Let a policy ask how a write wants its object to be stored."""
    context = _s3_service_context(action, query, path, headers)
    if action != "s3:PutObject":
        return context
    return context | {f"s3:{name}": headers[name] for name in _STORAGE_HEADERS if name in (headers or {})}


iam_actions.s3_service_context = _s3_context_with_storage


# ministack 1.5.33 unpacks a function's code and layers anew for each of its workers. A cold start takes seconds, for
# the thousands of files of a layer and for Python to compile them again.
class _ZipFileUnpackedOnce(zipfile.ZipFile):
    """Unpack a function's code or layer once for all its workers, which find links to it."""

    _unpacking = threading.Lock()

    def extractall(self, path: Any = None, members: Any = None, pwd: Any = None) -> None:
        with open(self.filename or "", "rb") as packed:  # noqa: PTH123
            digest = hashlib.file_digest(packed, "sha256").hexdigest()
        unpacked = Path(tempfile.gettempdir(), f"unpacked-{digest}")
        with self._unpacking:
            if not unpacked.exists():
                partial = unpacked.with_suffix(".partial")
                super().extractall(partial, members, pwd)
                partial.rename(unpacked)
        for entry in unpacked.iterdir():
            Path(path, entry.name).symlink_to(entry)


lambda_runtime.zipfile = types.SimpleNamespace(**{**vars(zipfile), "ZipFile": _ZipFileUnpackedOnce})

# ministack 1.5.33 reads the definition of a state machine only as JSON.
_state_machine_definition = provisioners._sfn_definition  # noqa: SLF001


def _state_machine_definition_as_json(properties: Any) -> str:
    """Translate a definition written in YAML, as CloudFormation does."""
    return json.dumps(yaml.safe_load(_state_machine_definition(properties)))


provisioners._sfn_definition = _state_machine_definition_as_json  # noqa: SLF001


# ministack 1.5.33 has no AWS::Logs::QueryDefinition.
def _save_query(logical_id: str, _properties: Any, stack_name: str) -> Any:
    """Take a query that a template saves for people; nothing here ever asks for it."""
    return f"{stack_name}-{logical_id}", {}


provisioners._RESOURCE_HANDLERS["AWS::Logs::QueryDefinition"] = {  # noqa: SLF001
    "create": _save_query,
    "update": lambda physical_id, *_: (physical_id, {}),
    "delete": lambda *_: None,
}

# ministack 1.5.33 ignores a retrier's MaxDelaySeconds and JitterStrategy, so that all that were throttled at once come
# back at once.
_find_matching_retrier = stepfunctions._find_matching_retrier  # noqa: SLF001


def _find_retrier_with_jitter(retriers: Any, error: Any, retry_counts: Any) -> Any:
    """Honour MaxDelaySeconds and JitterStrategy."""
    retrier, index = _find_matching_retrier(retriers, error, retry_counts)
    if retrier is None:
        return retrier, index
    delay = retrier.get("IntervalSeconds", 1) * retrier.get("BackoffRate", 2) ** retry_counts.get(index, 0)
    delay = min(delay, retrier.get("MaxDelaySeconds", delay))
    if retrier.get("JitterStrategy") == "FULL":
        delay = random.uniform(0, delay)  # noqa: S311 - no secret # nosec B311
    return {**retrier, "IntervalSeconds": delay, "BackoffRate": 1}, index


stepfunctions._find_matching_retrier = _find_retrier_with_jitter  # noqa: SLF001

# ministack 1.5.33 adds a message to a queue's list while another thread may replace the list, and loses it then.
_send_message = sqs._act_send_message  # noqa: SLF001


def _send_message_alone(request: Any, queue_url: str) -> Any:
    """Add to a queue's list under the lock under which other threads replace it."""
    with sqs._queues_lock:  # noqa: SLF001
        return _send_message(request, queue_url)


sqs._act_send_message = _send_message_alone  # noqa: SLF001
sqs._HANDLERS["SendMessage"] = _send_message_alone  # noqa: SLF001


# ministack 1.5.33 gives a function at most ten messages of a queue at once.
def _receive_batch(queue_url: str, size: int) -> Any:
    """Give a function batches as large as its event source mapping says."""
    with sqs._queues_lock:  # noqa: SLF001
        queue = sqs._get_q(queue_url)  # noqa: SLF001
        sqs._expire_retained(queue)  # noqa: SLF001
        sqs._dlq_sweep(queue)  # noqa: SLF001
        return sqs._collect_msgs(queue, size, int(queue["attributes"]["VisibilityTimeout"]))  # noqa: SLF001


sqs._receive_messages_for_esm = _receive_batch  # noqa: SLF001

if __name__ == "__main__":
    app.main()
