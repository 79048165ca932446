"""The certificate of a sandbox: who may trust it, and for what."""

from __future__ import annotations

import hashlib
import ssl
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from sandbox.pec.tls import DAYS, Certificate, fingerprint, make_certificate

_NAMES = ("central.homolog", "source.homolog")


@pytest.fixture(scope="module")
def made() -> Certificate:
    return make_certificate(_NAMES, ["127.0.0.1", "192.0.2.7"])


def _verify(made: Certificate, name: str, ca: bytes | None = None) -> None:
    store = Store([x509.load_pem_x509_certificate(ca or made.ca)])
    verifier = PolicyBuilder().store(store).build_server_verifier(x509.DNSName(name))
    verifier.verify(x509.load_pem_x509_certificate(made.cert), [])


def test_it_holds_for_its_names_and_with_its_authority_only(made: Certificate) -> None:
    for name in _NAMES:
        _verify(made, name)
    with pytest.raises(VerificationError):
        _verify(made, "elsewhere.homolog")
    with pytest.raises(VerificationError):
        _verify(made, _NAMES[0], make_certificate(_NAMES).ca)


def test_what_is_in_it(made: Certificate) -> None:
    cert, ca = x509.load_pem_x509_certificate(made.cert), x509.load_pem_x509_certificate(made.ca)
    names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == list(_NAMES)
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "192.0.2.7"]
    usage = cert.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert not cert.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    allowed = ca.extensions.get_extension_for_class(x509.NameConstraints).value.permitted_subtrees
    assert allowed
    assert [str(one.value) for one in allowed] == [*_NAMES, "127.0.0.1/32", "192.0.2.7/32"]
    now = datetime.now(UTC)
    for one in (cert, ca):
        assert now - timedelta(hours=2) < one.not_valid_before_utc < now - timedelta(minutes=50)
        assert now + timedelta(days=DAYS - 1) < one.not_valid_after_utc < now + timedelta(days=DAYS + 1)
    another = x509.load_pem_x509_certificate(make_certificate(_NAMES).ca)
    assert len({cert.serial_number, ca.serial_number, another.serial_number}) == 3


def test_the_key_is_the_servers_and_the_authoritys_is_gone(made: Certificate) -> None:
    key = serialization.load_pem_private_key(made.key, password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.curve.name == "secp256r1"
    assert key.public_key() == x509.load_pem_x509_certificate(made.cert).public_key()
    assert key.public_key() != x509.load_pem_x509_certificate(made.ca).public_key()
    assert b"PRIVATE" not in made.ca + made.cert
    assert "PRIVATE" not in repr(made)


def test_the_fingerprint_is_the_one_that_browsers_show(made: Certificate) -> None:
    found = fingerprint(made.ca)
    assert len(found) == 95
    der = ssl.PEM_cert_to_DER_cert(made.ca.decode())
    assert found.replace(":", "").lower() == hashlib.sha256(der).hexdigest()


def test_nothing_for_nobody() -> None:
    with pytest.raises(ValueError, match="name"):
        make_certificate([])
    with pytest.raises(ValueError, match="not-an-address"):
        make_certificate(["central.homolog"], ["not-an-address"])
