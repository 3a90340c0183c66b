"""A Google service account for tests: an RSA key, an Airflow connection, the token endpoint.

A local server of a Google service answers ``POST /token`` with `grant`, and every other request
only if `admits` is true. So google-auth logs in to it as it logs in to Google.
"""

import json
import secrets
from functools import cache
from typing import Any
from urllib.parse import parse_qs

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import jwt

EMAIL = "airflow@shop-prod.iam.gserviceaccount.com"
_TOKEN = f"ya29.{secrets.token_urlsafe(24)}"


@cache
def _key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def identity(port: int) -> dict[str, str]:
    """The key file of the service account; tokens come from ``http://127.0.0.1:<port>/token``."""
    pem = _key().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return {
        "type": "service_account",
        "project_id": "shop-prod",
        "private_key_id": "1",
        "private_key": pem.decode(),
        "client_email": EMAIL,
        "client_id": "1",
        "token_uri": f"http://127.0.0.1:{port}/token",
    }


def connection(port: int) -> str:
    """The key file as the value of ``AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT``."""
    return json.dumps(
        {"conn_type": "google_cloud_platform", "extra": {"keyfile_dict": identity(port)}}
    )


def grant(body: bytes) -> tuple[int, dict[str, Any]]:
    """The answer to ``POST /token``: a token if our key signed the body, else status 400."""
    form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
    public = (
        _key()
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    try:
        claims = jwt.decode(form["assertion"], certs=public)  # type: ignore[no-untyped-call]
    except (KeyError, ValueError) as error:
        return 400, {
            "error": "invalid_grant",
            "error_description": f"Invalid JWT Signature: {error}",
        }
    if (
        form.get("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer"
        or claims["iss"] != EMAIL
    ):
        return 400, {"error": "invalid_grant", "error_description": "Not a valid email or user ID."}
    return 200, {"access_token": _TOKEN, "expires_in": 3599, "token_type": "Bearer"}


def admits(authorization: str | None) -> bool:
    """Whether an Authorization header has the token of `grant`."""
    return authorization == f"Bearer {_TOKEN}"
