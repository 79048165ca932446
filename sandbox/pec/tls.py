"""A certificate of the sandbox's own, and the authority that vouches for it: made for one run, then forgotten."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

DAYS = 30
"""Days for which a certificate holds."""


@dataclass(frozen=True)
class Certificate:
    """A certificate with its key, all as PEM.

    :param ca: certificate of the authority, for those who are to trust it; its key is gone.
    :param cert: certificate of the server.
    :param key: private key of the server, not encrypted.
    """

    ca: bytes
    cert: bytes
    key: bytes = field(repr=False)


def make_certificate(names: Sequence[str], addresses: Iterable[str] = ()) -> Certificate:
    """Make an authority, and a certificate of a server that goes by these names and IP addresses.

    The authority's key exists only while this function runs, and the authority may vouch for these names and addresses
    only: who imports it into a browser lets nobody else in.

    :param names: host names, the first of which is also its common name; at least one.
    :raises ValueError: if there is no name, or an address is none.
    """
    if not names:
        raise ValueError("no name")
    ips = [ipaddress.ip_address(address) for address in addresses]
    now = datetime.now(UTC)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "pec-homolog"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"Homologação {now:%Y-%m-%d %H:%M}"),
        ]
    )
    ca = (
        _builder(ca_name, ca_name, ca_key, ca_key, now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(
            x509.NameConstraints(
                [*map(x509.DNSName, names), *(x509.IPAddress(ipaddress.ip_network(ip)) for ip in ips)], None
            ),
            critical=True,
        )
        .sign(ca_key, hashes.SHA256())
    )
    common_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    cert = (
        _builder(common_name, ca_name, key, ca_key, now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([*map(x509.DNSName, names), *map(x509.IPAddress, ips)]), critical=False
        )
        .sign(ca_key, hashes.SHA256())
    )
    return Certificate(
        ca=ca.public_bytes(serialization.Encoding.PEM),
        cert=cert.public_bytes(serialization.Encoding.PEM),
        key=key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    )


def fingerprint(pem: bytes) -> str:
    """SHA-256 of a certificate as browsers show it: ``AB:CD:…``, 32 pairs."""
    return x509.load_pem_x509_certificate(pem).fingerprint(hashes.SHA256()).hex(":").upper()


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    ca_key: ec.EllipticCurvePrivateKey,
    now: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))  # clocks differ
        .not_valid_after(now + timedelta(days=DAYS))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
