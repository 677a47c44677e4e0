"""Certificates for servers and clients on this machine."""

import datetime as dt
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from tidegate.stack.ports import LOOPBACK

ADDRESS = x509.IPAddress(ipaddress.ip_address(LOOPBACK))
LOCALHOST = x509.DNSName("localhost")


def certificate(
    folder: Path, name: str = "node", issuer: tuple[Path, Path] | None = None, *names: x509.GeneralName
) -> tuple[Path, Path]:
    """PEM files of a certificate for ``names`` (this machine, if none are given), and of its key.

    Without an ``issuer``, which is such a pair as well, it signs itself and may sign others.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    authority, signing_key = subject, key
    if issuer is not None:
        authority = x509.load_pem_x509_certificate(issuer[0].read_bytes()).subject
        signing_key = load_pem_private_key(issuer[1].read_bytes(), None)
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(authority)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names or [LOCALHOST, ADDRESS]), critical=False)
        # by which an issuer is told from others of its name (RFC 5280, section 4.2.1)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signing_key.public_key()), critical=False)
        .sign(signing_key, hashes.SHA256())
    )
    paths = folder / f"{name}.crt", folder / f"{name}.key"
    paths[0].write_bytes(made.public_bytes(Encoding.PEM))
    paths[1].touch(mode=0o600)  # Postgres asks for it
    paths[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return paths
