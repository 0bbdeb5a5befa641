"""The statements of database.yaml's custom resource give its user what the functions need, and no more."""

import dataclasses

import pg8000.native
import pytest
from support.database_user import load_database_user

# As what database.yaml calls ota, which is the owner here.
USER = "ota_of_aurora"


@pytest.fixture
def owner(postgresql):
    """A session of the owner of a new database, where the role exists that Amazon RDS brings along."""
    connection = postgresql.connect()
    connection.run("DROP DATABASE IF EXISTS aurora")
    connection.run("CREATE DATABASE aurora")
    for role in ("rds_iam", USER):
        connection.run(f"DROP ROLE IF EXISTS {role}")
    connection.run("CREATE ROLE rds_iam")
    connection.close()
    session = dataclasses.replace(postgresql, name="aurora").connect()
    yield session
    session.close()


@pytest.fixture
def statements(monkeypatch):
    return [statement.replace(" ota", f" {USER}") for statement in load_database_user(monkeypatch).STATEMENTS]


def run_all(owner, statements):
    for statement in statements:
        owner.run(statement)


def test_user_may_log_in_by_token_only_and_make_the_schema(owner, statements, postgresql, migrate):
    run_all(owner, statements)
    [(takes_tokens, may_log_in)] = owner.run(
        "SELECT pg_has_role(:user, 'rds_iam', 'member'), (SELECT rolcanlogin FROM pg_roles WHERE rolname = :user)",
        user=USER,
    )
    assert takes_tokens is may_log_in is True
    # Only so can he log in here, where nobody checks tokens.
    owner.run(f"ALTER ROLE {USER} PASSWORD 'for the test'")
    user = dataclasses.replace(postgresql, name="aurora", user=USER, password="for the test").connect()
    assert migrate(user)
    assert user.run("SELECT count(*) FROM releases") == [[0]]
    with pytest.raises(pg8000.native.DatabaseError, match="permission denied"):
        user.run("CREATE ROLE another")
    user.close()


def test_owner_acts_as_the_user_when_he_means_to_and_inherits_nothing(owner, statements):
    run_all(owner, statements)
    owner.run(f"DO $$ BEGIN SET LOCAL ROLE {USER}; CREATE TABLE probe (); END $$")
    assert owner.run("SELECT tableowner FROM pg_tables WHERE tablename = 'probe'") == [[USER]]
    # What Amazon RDS goes by: who inherits rds_iam logs in by token only.
    assert owner.run("SELECT pg_has_role(:user, 'rds_iam', 'usage')", user=USER) == [[True]]
    assert owner.run("SELECT pg_has_role(current_user, :user, 'usage')", user=USER) == [[False]]


def test_statements_bear_being_repeated(owner, statements):
    run_all(owner, statements)
    run_all(owner, statements)
