"""The statements of docs/operations.md do to the database what the page says."""

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "operations.md"


def statements(product):
    """Those of the chapter on deleting a product."""
    chapter = PAGE.read_text().split("### A product\n", 1)[1].split("\n### ", 1)[0]
    return [sql.replace("PRODUCT", product) for sql in re.findall(r'^sql "(.+)"$', chapter, re.MULTILINE)]


def test_product_is_deleted_and_its_last_sequence_remembered(database, insert_release):
    for product, mac in (("deleted", "02:0D:00:00:00:01"), ("kept", "02:0D:00:00:00:02")):
        release = insert_release(product=product)

        def report(connection, product=product, mac=mac, release=release):
            connection.run("UPDATE products SET last_sequence = 7 WHERE product = :product", product=product)
            connection.run("INSERT INTO devices (mac, product) VALUES (:mac, :product)", mac=mac, product=product)
            connection.run("INSERT INTO device_tags (tag, mac) VALUES ('beta', :mac)", mac=mac)
            connection.run(
                "INSERT INTO device_states (release, mac, state) VALUES (:release, :mac, 'installed')",
                release=release["id"],
                mac=mac,
            )

        database.transaction(report)
    assert len(statements("deleted")) == 3

    def delete(connection):
        for statement in statements("deleted"):
            # As the page's `sql` sends it; the role is the one that the tests have.
            connection.run(f"DO $$ BEGIN SET LOCAL ROLE ota; {statement}; END $$")

    database.transaction(delete)

    def look(connection):
        return {
            "releases": connection.run("SELECT product FROM releases WHERE product IN ('deleted', 'kept')"),
            "devices": connection.run("SELECT product FROM devices WHERE product IN ('deleted', 'kept')"),
            "tags": connection.run("SELECT mac FROM device_tags WHERE mac::text LIKE '02:0d:%'"),
            "states": connection.run("SELECT mac FROM device_states WHERE mac::text LIKE '02:0d:%'"),
            "sequences": connection.run(
                "SELECT product, last_sequence FROM products WHERE product IN ('deleted', 'kept') ORDER BY product"
            ),
        }

    assert database.transaction(look) == {
        "releases": [["kept"]],
        "devices": [["kept"]],
        "tags": [["02:0d:00:00:00:02"]],
        "states": [["02:0d:00:00:00:02"]],
        "sequences": [["deleted", 7], ["kept", 7]],
    }
