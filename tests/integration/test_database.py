"""The connection to PostgreSQL, when something is wrong with it."""

import dataclasses

import pytest
from ota_core.database import Database
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
        Database(nobody_there, timeout_seconds=5).transaction(lambda _: None)
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
