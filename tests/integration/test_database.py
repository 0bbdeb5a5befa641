"""The connection to PostgreSQL, when something is wrong with it."""

import dataclasses
import socket

import pytest
from ota_core.runtime.log_line import log_database_failure
from ota_core.stores.database import Database
from pg8000.exceptions import InterfaceError
from pg8000.native import DatabaseError
from support.observed import read_log


def failures(capsys):
    return [line for line in read_log(capsys.readouterr().out)[1] if line["message"] == "database failed"]


def test_error_of_the_database_is_logged_once_with_what_it_said(connect, capsys):
    with pytest.raises(DatabaseError):
        connect().transaction(lambda connection: connection.run("SELECT 1 / 0"))
    [line] = failures(capsys)
    assert (line["level"], line["error"]) == ("WARNING", "DatabaseError")
    assert "division by zero" in line["why"]


def test_server_that_cannot_be_reached_is_logged(connect, capsys):
    nobody_there = dataclasses.replace(connect()._settings, database_port=1)
    with pytest.raises(InterfaceError):
        Database(nobody_there, on_failure=log_database_failure, timeout_seconds=5).transaction(lambda _: None)
    [line] = failures(capsys)
    assert line["error"] == "InterfaceError"


def test_connection_that_died_and_was_replaced_is_no_failure(connect, capsys):
    database = connect()
    [[process]] = database.transaction(lambda connection: connection.run("SELECT pg_backend_pid()"))
    connect().transaction(lambda connection: connection.run("SELECT pg_terminate_backend(:p)", p=process))
    [[other]] = database.transaction(lambda connection: connection.run("SELECT pg_backend_pid()"))
    assert other != process
    assert failures(capsys) == []


def test_what_work_raises_itself_is_no_failure_of_the_database(connect, capsys):
    def work(_):
        raise KeyError

    with pytest.raises(KeyError):
        connect().transaction(work)
    assert failures(capsys) == []


def test_statement_alone_is_committed_and_runs_again_on_a_new_connection(connect):
    database, other = connect(), connect()
    process = "SELECT pg_backend_pid() WHERE :x = 1"
    [[first]] = database.statement(process, x=1)
    other.transaction(lambda connection: connection.run("SELECT pg_terminate_backend(:p)", p=first))
    assert database.statement(process, x=1) != [[first]]
    other.transaction(lambda connection: connection.run("CREATE TABLE committed (a int)"))
    database.statement("INSERT INTO committed VALUES (:a) RETURNING a", a=1)
    assert other.statement("SELECT a FROM committed WHERE a = :a", a=1) == [[1]]


def test_statement_of_several_packets_is_sent_without_waiting_for_the_server(connect):
    database = connect()
    assert database.statement("SELECT length(:text)", text="x" * 20_000) == [[20_000]]
    assert database._connection._usock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_columns_are_those_of_the_statement_that_ran_last(connect):
    """Prepared or not. The connection sets pg8000's private `_context` for that."""

    def work(connection):
        for sql, parameters in 2 * [("SELECT 1 AS plain", {}), ("SELECT CAST(:x AS int) AS prepared", {"x": 1})]:
            connection.run(sql, **parameters)
            yield [column["name"] for column in connection.columns]

    assert connect().transaction(lambda connection: list(work(connection))) == 2 * [["plain"], ["prepared"]]


def test_statement_that_the_database_refuses_leaves_a_connection_that_serves(connect):
    database = connect()
    for _ in range(2):
        with pytest.raises(DatabaseError):
            database.statement("SELECT 1 / CAST(:zero AS int)", zero=0)
    assert database.statement("SELECT 1 / CAST(:one AS int)", one=1) == [[1]]


def test_statement_that_was_prepared_before_a_migration_still_runs_after_it(connect):
    database, migration = connect(), connect()
    migration.transaction(lambda connection: connection.run("CREATE TABLE migrated (a int)"))
    selects = "SELECT * FROM migrated WHERE :x = 1"
    assert database.statement(selects, x=1) == []
    migration.transaction(lambda connection: connection.run("ALTER TABLE migrated ADD COLUMN b int"))
    migration.transaction(lambda connection: connection.run("INSERT INTO migrated VALUES (1, 2)"))
    assert database.statement(selects, x=1) == [[1, 2]]
