"""The schema's history: every migration is recorded with its checksum, and one that was edited is refused."""

import dataclasses
import hashlib
import shutil

import pytest
from ota_core.errors import OtaError
from support.functions import PROJECT, load_handler

MIGRATIONS = PROJECT / "functions" / "migrate_database" / "migrations"


@pytest.fixture
def session(postgresql):
    """A session in a database with nothing in it."""
    with_its_server = postgresql.connect()
    with_its_server.run("DROP DATABASE IF EXISTS history")
    with_its_server.run("CREATE DATABASE history")
    with_its_server.close()
    connection = dataclasses.replace(postgresql, name="history").connect()
    yield connection
    connection.close()


@pytest.fixture
def folder(tmp_path):
    """A copy of the migrations, to be changed by the test."""
    return shutil.copytree(MIGRATIONS, tmp_path / "migrations")


@pytest.fixture
def migrate(session, folder, monkeypatch):
    """Runs the migrations that are in the folder, as the function does."""
    handler = load_handler("migrate_database", monkeypatch)

    def run():
        handler.MIGRATIONS = sorted(folder.glob("*.sql"))
        session.run("BEGIN")
        try:
            applied = handler.migrate(session)
        except BaseException:
            session.run("ROLLBACK")
            raise
        session.run("COMMIT")
        return applied

    return run


def recorded(session):
    return dict(session.run("SELECT name, sha256 FROM schema_migrations"))


def files(folder):
    """What `sha256sum` says of the folder."""
    found = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.glob("*.sql")}
    assert found
    return found


def has_table(session, name):
    [[found]] = session.run("SELECT to_regclass(:name) IS NOT NULL", name=name)
    return found


def test_every_migration_is_recorded_with_the_checksum_of_its_file_and_applied_once(session, folder, migrate):
    assert migrate() == sorted(files(folder))
    assert recorded(session) == files(folder)
    assert migrate() == []
    assert recorded(session) == files(folder)


def test_database_from_before_the_checksums_gets_them_on_the_next_run(session, folder, migrate):
    migrate()
    session.run("ALTER TABLE schema_migrations DROP COLUMN sha256")
    assert migrate() == []
    assert recorded(session) == files(folder)


def test_edited_migration_is_refused_and_nothing_is_applied(session, folder, migrate):
    migrate()
    before = recorded(session)
    edited = folder / "0003_rollouts.sql"
    edited.write_text(edited.read_text() + "CREATE TABLE edited ();\n")
    (folder / "9999_next.sql").write_text("CREATE TABLE next ();\n")
    with pytest.raises(OtaError, match="Restore these files") as caught:
        migrate()
    assert caught.value.code == "migration_edited"
    assert f"0003_rollouts.sql (SHA-256 {files(folder)[edited.name]}; expected {before[edited.name]})" in str(
        caught.value
    )
    assert "0002_devices.sql" not in str(caught.value)
    assert recorded(session) == before
    assert not has_table(session, "next")

    edited.write_bytes((MIGRATIONS / edited.name).read_bytes())
    assert migrate() == ["9999_next.sql"]
    assert has_table(session, "next")


def test_answer_about_many_edited_migrations_is_short_enough_for_cloudformation(folder, migrate):
    for number in range(8000, 8100):
        (folder / f"{number}_small.sql").write_text("SELECT 1;\n")
    migrate()
    edited = list(folder.glob("*.sql"))
    for file in edited:
        file.write_text("SELECT 2;\n")
    with pytest.raises(OtaError, match=f"and {len(edited) - 5} more") as caught:
        migrate()
    assert len(str(caught.value)) < 2048


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.replace(b"\n", b"\r\n"),
        lambda content: content.replace(b"\n", b"  \t\n"),
        lambda content: content.rstrip(b"\n"),
        lambda content: content + b"\n\n",
    ],
    ids=["CRLF", "trailing blanks", "no newline at the end", "more newlines at the end"],
)
def test_line_endings_and_trailing_blanks_are_no_edit(session, folder, migrate, change):
    migrate()
    before = recorded(session)
    for file in folder.glob("*.sql"):
        content = change(file.read_bytes())
        assert content != file.read_bytes()
        file.write_bytes(content)
    assert migrate() == []
    assert recorded(session) == before


def test_older_version_leaves_a_newer_database_as_it_is(session, folder, migrate, caplog):
    """A failed deployment is rolled back by running the version before it, which has to answer CloudFormation."""
    newer = folder / "9999_next.sql"
    newer.write_text("CREATE TABLE next ();\n")
    migrate()
    before = recorded(session)
    newer.unlink()
    assert migrate() == []
    assert recorded(session) == before
    assert has_table(session, "next")
    [warning] = [record for record in caplog.records if record.levelname == "WARNING"]
    assert warning.unknown == ["9999_next.sql"]


def test_renamed_migration_is_refused_and_nothing_is_applied(session, folder, migrate):
    (folder / "9998_next.sql").write_text("CREATE TABLE IF NOT EXISTS next ();\n")
    migrate()
    before = recorded(session)
    (folder / "9998_next.sql").rename(folder / "9999_next.sql")
    with pytest.raises(OtaError, match=r"has the migration 9998_next\.sql.+lacks 9999_next\.sql") as caught:
        migrate()
    assert caught.value.code == "migration_renamed"
    assert recorded(session) == before


def test_devices_of_before_speak_for_the_lines_that_they_reported_about(session, folder, migrate):
    later = [file for file in sorted(folder.glob("*.sql")) if file.name >= "0009"]
    contents = [file.read_bytes() for file in later]
    for file in later:
        file.unlink()
    migrate()
    session.run(
        "INSERT INTO products (product) VALUES ('lamp'), ('lock');"
        "INSERT INTO releases (release_id, manifest_sha256, product, version, sequence, chip, changelog, envelope,"
        " keyid, image_key, image_version_id, image_size, image_sha256, image_signature, allow_downgrade, warnings,"
        " execution_arn, expires_at) SELECT product, product, product, '1.0.0', 1, 'esp32', '', '', '', '', '', 1, '',"
        " '', false, '[]', '', now() FROM products;"
        "INSERT INTO devices (mac, product) VALUES ('02:00:00:00:00:01', 'lamp'), ('02:00:00:00:00:02', 'lamp'),"
        " ('02:00:00:00:00:03', 'lamp')"
    )
    for mac, product, day in (("01", "lamp", 1), ("02", "lamp", 1), ("02", "lock", 2)):
        session.run(
            "INSERT INTO device_history (mac, release, state, reported_at, last_reported_at)"
            " SELECT CAST(:mac AS macaddr), id, 'installed', CAST(:at AS timestamptz), CAST(:at AS timestamptz)"
            " FROM releases WHERE product = :product",
            mac=f"02:00:00:00:00:{mac}",
            at=f"2026-06-0{day}T00:00:00Z",
            product=product,
        )
    for file, content in zip(later, contents, strict=True):
        file.write_bytes(content)
    migrate()
    assert session.run(
        "SELECT product, chip, proven_product, proven_chip, CAST(proven_since AS text) FROM devices ORDER BY mac"
    ) == [
        ["lamp", "esp32", "lamp", "esp32", "-infinity"],
        ["lock", "esp32", "lock", "esp32", "2026-06-02 00:00:00+00"],
        ["lamp", None, None, None, "-infinity"],
    ]
