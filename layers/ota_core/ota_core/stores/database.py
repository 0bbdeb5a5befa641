"""The connection to PostgreSQL: verified TLS, login by secret or IAM token, reused while warm, replaced when dead."""

from __future__ import annotations

import json
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import boto3
from pg8000.exceptions import InterfaceError
from pg8000.native import Connection, DatabaseError, PreparedStatement

from ota_core.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

_RDS_CERTIFICATES = Path(__file__).parent / "certificates" / "rds-global-bundle.pem"
# Longer than any of the project's statements takes, except the COPY of a million targets, which streams.
_SOCKET_TIMEOUT_SECONDS = 60.0
# SQLSTATE (https://www.postgresql.org/docs/current/errcodes-appendix.html). Class 57P: the server is shutting down,
# crashed or not ready; 0A000: a migration changed what a prepared statement selects.
_NEEDS_NEW_CONNECTION = ("57P01", "57P02", "57P03", "0A000")
# Classes: connection exception, insufficient resources (too many connections), operator intervention.
_OUTAGES = ("08", "53", "57")

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class DatabaseSettings:
    """Where the database is and how to log in.

    Attributes:
        database_secret_arn: a Secrets Manager secret with `username` and `password`; empty: log in as
            `database_user` with an IAM token.
        database_ca_pem: certificates to trust instead of Amazon RDS's.
    """

    database_host: str
    database_port: int
    database_name: str
    database_secret_arn: str = ""
    database_user: str = ""
    database_ca_pem: str = ""


def is_outage(error: Exception) -> bool:
    """Whether the database was unreachable or could not serve, as opposed to refusing a statement."""
    if isinstance(error, DatabaseError):
        return str(error.args[0].get("C")).startswith(_OUTAGES)
    return isinstance(error, (InterfaceError, OSError))


class _Connection(Connection):  # type: ignore[misc] # pg8000 ships no type information
    """Prepares each statement once.

    Parsing one in pg8000 and planning it in the server cost more than running most of our statements.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:  # noqa: ANN401 - pg8000's own
        super().__init__(*args, **settings)
        # pg8000 writes a statement in several pieces. Nagle's algorithm (RFC 896) holds the last of them back until the
        # server acknowledges the first, which it delays: 40 ms on Linux.
        self._usock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._prepared: dict[str, PreparedStatement] = {}

    def run(self, sql: str, stream: Any = None, **parameters: Any) -> Any:  # noqa: ANN401 - as pg8000 has it
        if stream is not None or not parameters:
            return super().run(sql, stream=stream, **parameters)
        if sql not in self._prepared:
            self._prepared[sql] = self.prepare(sql)
        rows = self._prepared[sql].run(**parameters)
        self._context = self._prepared[sql]._context  # noqa: SLF001 - what `columns` reads
        return rows


class Database:
    """One connection, kept for as long as it lives."""

    def __init__(
        self,
        settings: DatabaseSettings,
        *,
        on_failure: Callable[[Exception], None],
        timeout_seconds: float = _SOCKET_TIMEOUT_SECONDS,
    ) -> None:
        """Construct without connecting.

        Args:
            settings: where the database is and how to log in.
            on_failure: called with every error of the database, however the caller handles it.
            timeout_seconds: how long to wait for the server to accept a connection or to answer.
        """
        self._settings = settings
        self._on_failure = on_failure
        self._timeout_seconds = timeout_seconds
        self._connection: _Connection | None = None
        self._tls = _tls_context(settings)
        self._credentials = _secret_login(settings) if settings.database_secret_arn else _iam_login(settings)

    def transaction(self, work: Callable[[Connection], _Result]) -> _Result:
        """Run `work` in a transaction.

        A connection that died while the function slept is replaced and `work` runs once more; nothing of the first
        run was committed, unless the connection broke during the commit itself: `work` must be safe to repeat.
        """
        return self._attempt(lambda connection: self._in_transaction(connection, work))

    def statement(self, sql: str, **parameters: Any) -> list[list[Any]]:  # noqa: ANN401 - whatever columns hold
        """Run one statement as its own transaction, with the same retry as `transaction`, in one round trip."""
        return self._attempt(lambda connection: self._alone(connection, sql, parameters))

    def _attempt(self, work: Callable[[_Connection], _Result]) -> _Result:
        try:
            return self._on_connection(work)
        except (DatabaseError, InterfaceError, OSError) as error:
            self._on_failure(error)
            raise

    def _on_connection(self, work: Callable[[_Connection], _Result]) -> _Result:
        if self._connection is not None:
            try:
                return work(self._connection)
            except (InterfaceError, OSError):
                pass
            except DatabaseError as error:
                if error.args[0].get("C") not in _NEEDS_NEW_CONNECTION:
                    raise
        self._connection = self._connect()
        return work(self._connection)

    def _alone(self, connection: _Connection, sql: str, parameters: dict[str, Any]) -> list[list[Any]]:
        try:
            rows: list[list[Any]] = connection.run(sql, **parameters)
        except (InterfaceError, OSError):
            self._connection = None
            raise
        return rows

    def _in_transaction(self, connection: _Connection, work: Callable[[Connection], _Result]) -> _Result:
        try:
            connection.run("BEGIN")
            result = work(connection)
            connection.run("COMMIT")
        except BaseException:
            self._roll_back(connection)
            raise
        return result

    def _roll_back(self, connection: _Connection) -> None:
        try:
            connection.run("ROLLBACK")
        except (InterfaceError, DatabaseError, OSError):
            self._connection = None

    def _connect(self) -> _Connection:
        user, password = self._credentials()
        return _Connection(
            user,
            host=self._settings.database_host,
            port=self._settings.database_port,
            database=self._settings.database_name,
            password=password,
            ssl_context=self._tls,
            timeout=self._timeout_seconds,
            application_name="esp32-ota",
        )


def _tls_context(settings: DatabaseSettings) -> ssl.SSLContext:
    if settings.database_ca_pem:
        return ssl.create_default_context(cadata=settings.database_ca_pem)
    return ssl.create_default_context(cafile=str(_RDS_CERTIFICATES))


def _secret_login(settings: DatabaseSettings) -> Callable[[], tuple[str, str]]:
    client = boto3.client("secretsmanager")

    def credentials() -> tuple[str, str]:
        # Read for every new connection, so that a rotated password is found.
        secret = json.loads(client.get_secret_value(SecretId=settings.database_secret_arn)["SecretString"])
        return secret["username"], secret["password"]

    return credentials


def _iam_login(settings: DatabaseSettings) -> Callable[[], tuple[str, str]]:
    if not settings.database_user:
        raise ConfigurationError(
            "setting_missing", "Neither DATABASE_SECRET_ARN nor DATABASE_USER is set; set one of them to log in."
        )
    client = boto3.client("rds")

    def credentials() -> tuple[str, str]:
        # Signed here, without a call to a service, so it works in a VPC without internet.
        token = client.generate_db_auth_token(
            DBHostname=settings.database_host, Port=settings.database_port, DBUsername=settings.database_user
        )
        return settings.database_user, token

    return credentials
