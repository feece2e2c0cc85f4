"""Certificates of a server: whom they are trusted from, and what is said where they are not."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from servers.loopback import loopback

from kun_builder.engines.http import Server, open_session
from kun_builder.errors import FatalError, ModelError


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A file with a certificate for 127.0.0.1 that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "here")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = serialization.NoEncryption()
    file = tmp_path_factory.mktemp("trust") / "here.pem"
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
    file.write_bytes(made.public_bytes(pem) + secret)
    return file


async def asked(certificate):
    """One request to a server with this certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    async def answer(request):
        return web.json_response({"yes": 1})

    async with loopback(answer, context) as url, open_session() as session:
        return await Server(session, url).get("/x")


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_certificates_that_other_clients_are_told_of_are_trusted(certificate, monkeypatch, variable):
    """A company's own certificates are set up once, by the variables of the most common clients."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(FatalError, match="self-signed certificate") as caught:
        asyncio.run(asked(certificate))
    assert "SSL_CERT_FILE" in caught.value.hint
    monkeypatch.setenv(variable, str(certificate))
    assert asyncio.run(asked(certificate)) == {"yes": 1}


def test_a_file_without_certificates_is_told_with_its_variable(tmp_path, certificate, monkeypatch):
    """It is what the environment says, so that the cure is there."""
    (tmp_path / "empty.pem").write_text("nothing")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "empty.pem"))
    with pytest.raises(ModelError, match=r"REQUESTS_CA_BUNDLE: .*empty\.pem cannot be used"):
        asyncio.run(asked(certificate))
