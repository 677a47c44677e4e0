"""A JWT is believed only where everything about it holds; groups give roles, and nothing else does."""

import asyncio
import base64
import hashlib
import hmac
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc import jwt
from joserfc.jwk import ECKey, Key, KeySet, OctKey, RSAKey
from pydantic import ValidationError

from control_plane.errors import ForbiddenError, UnauthenticatedError
from control_plane.oidc.claims import ALGORITHMS, LEEWAY_S, verified
from control_plane.oidc.people import People
from control_plane.oidc.provider import COOLDOWN_S, Provider, _keys_of
from control_plane.oidc_settings import GroupGrant, OidcSettings
from control_plane.settings import Settings

ISSUER, AUDIENCE, NOW_S = "https://login.example", "tidegate", 1_800_000_000
RSA = RSAKey.generate_key(2048, {"kid": "rsa"})
EC = ECKey.generate_key("P-256", {"kid": "ec"})
KEYS = KeySet([RSA, EC])
CLAIMS = {"iss": ISSUER, "aud": AUDIENCE, "sub": "8f3c", "iat": NOW_S, "exp": NOW_S + 300}


def signed(key: Key = RSA, alg: str = "RS256", kid: str | None = "rsa", **changes: Any) -> str:
    """A JWT of these claims; one that is ``None`` is left out."""
    claims = {name: value for name, value in (CLAIMS | changes).items() if value is not None}
    header = {"alg": alg} | ({} if kid is None else {"kid": kid})
    return jwt.encode(header, claims, key, algorithms=[alg])


def look_at(token: str, now_s: float = NOW_S) -> dict[str, Any]:
    return verified(token, KEYS, issuer=ISSUER, audience=AUDIENCE, now_s=now_s)


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def test_what_holds_is_believed() -> None:
    assert look_at(signed())["sub"] == "8f3c"
    assert look_at(signed(EC, "ES256", "ec"))["sub"] == "8f3c"
    assert look_at(signed(aud=["other", AUDIENCE]))["sub"] == "8f3c"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"iss": "https://login.example/"}, "another issuer"),
        ({"aud": "other"}, "another audience"),
        ({"aud": []}, "another audience"),
        ({"aud": None}, "lacks"),
        ({"iss": None}, "lacks"),
        ({"sub": None}, "lacks"),
        ({"sub": 7}, "sub does not hold"),
        ({"exp": None}, "lacks"),
        ({"iat": None}, "lacks"),
        ({"exp": "soon"}, "exp does not hold"),
        ({"exp": True}, "exp does not hold"),
        ({"exp": NOW_S - LEEWAY_S}, "has expired"),
        ({"iat": NOW_S + LEEWAY_S + 1}, "compare the clocks"),
        ({"nbf": NOW_S + LEEWAY_S + 1}, "not in force yet"),
    ],
)
def test_a_claim_that_does_not_hold_is_named(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UnauthenticatedError, match=words) as refused:
        look_at(signed(**changes))
    assert "8f3c" not in str(refused.value)


def test_clocks_may_differ_by_a_minute() -> None:
    assert look_at(signed(exp=NOW_S - LEEWAY_S + 1))
    assert look_at(signed(iat=NOW_S + LEEWAY_S, nbf=NOW_S + LEEWAY_S))


def test_an_exp_that_is_no_number_of_json_never_counts() -> None:
    for value in ("NaN", "Infinity", "1e999"):
        header, claims = part({"alg": "RS256", "kid": "rsa"}), json.dumps(CLAIMS).replace(str(NOW_S + 300), value)
        body = base64.urlsafe_b64encode(claims.encode()).decode().rstrip("=")
        signature = _rs256(f"{header}.{body}")
        with pytest.raises(UnauthenticatedError):
            look_at(f"{header}.{body}.{signature}")


def _rs256(signed_part: str) -> str:
    made = RSA.private_key.sign(signed_part.encode(), PKCS1v15(), SHA256())
    return base64.urlsafe_b64encode(made).decode().rstrip("=")


def test_nothing_unsigned_or_signed_by_what_is_public_is_believed() -> None:
    """``none`` in every spelling, and HMAC with the provider's public key as the secret (CVE-2015-9235)."""
    _, body, signature = signed().split(".")
    for alg in ("none", "None", "NONE", "nOnE", "", None, 7, "HS256", "HS512", "RSA1_5"):
        for end in ("", signature):
            with pytest.raises(UnauthenticatedError):
                look_at(f"{part({'alg': alg, 'kid': 'rsa'})}.{body}.{end}")
    pem = RSA.public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for secret in (pem, pem.strip(), json.dumps(RSA.as_dict(private=False)).encode()):
        head = f"{part({'alg': 'HS256', 'kid': 'rsa'})}.{body}"
        mac = base64.urlsafe_b64encode(hmac.new(secret, head.encode(), hashlib.sha256).digest()).decode().rstrip("=")
        with pytest.raises(UnauthenticatedError, match="algorithm"):
            look_at(f"{head}.{mac}")
    assert not [alg for alg in ALGORITHMS if alg.startswith(("HS", "none"))]


@pytest.mark.parametrize("crit", [None, 7, True, [], "kid", {"kid": 1}, ["b64"]])
def test_a_header_that_strangers_made_up_is_refused(crit: object) -> None:
    _, body, signature = signed().split(".")
    with pytest.raises(UnauthenticatedError):
        look_at(f"{part({'alg': 'RS256', 'kid': 'rsa', 'crit': crit})}.{body}.{signature}")


def test_another_key_or_a_changed_token_is_refused() -> None:
    strange = RSAKey.generate_key(2048, {"kid": "rsa"})
    head, body, signature = signed().split(".")
    changed = part(CLAIMS | {"sub": "root"})
    for token in (
        signed(strange),
        signed(kid="unknown"),
        signed(kid=None),  # which of two keys?
        signed(kid="ec"),
        signed(EC, "ES256", "rsa"),
        f"{head}.{changed}.{signature}",
        f"{head}.{body}.",
        f"{head}.{body}",
        f"{head}.{body}.{signature}.x",
        f"{part({'alg': 'RS256', 'kid': 'rsa', 'crit': ['x'], 'x': 1})}.{body}.{signature}",
        f"{part([1])}.{body}.{signature}",
        "eyJ..",
        "é.é.é",
        "eyJ" + "a" * 20_000,
    ):
        with pytest.raises(UnauthenticatedError):
            look_at(token)


def test_keys_of_other_uses_symmetric_and_short_ones_are_left_out() -> None:
    modulus = generate_private_key(65537, 1024).public_key().public_numbers().n.to_bytes(128)
    n = base64.urlsafe_b64encode(modulus).decode().rstrip("=")
    short = {"kty": "RSA", "kid": "short", "e": "AQAB", "n": n}
    good = RSA.as_dict(private=False)
    others = [
        short, {**EC.as_dict(private=False), "use": "enc"}, OctKey.generate_key(256).as_dict(private=True),
        {"kty": "AKP", "kid": "x"}, {"kty": "RSA"}, {"kty": "EC", "crv": "P-256", "x": 1, "y": 2}, "x", None,
    ]  # fmt: skip
    assert [key.kid for key in _keys_of({"keys": [*others, good]})] == ["rsa"]


async def test_strangers_keys_make_the_providers_be_read_once_in_a_while() -> None:
    """Whatever number of tokens name keys that nobody knows, and however many come at once."""
    now_s, asked = [0.0], []

    class Counted(Provider):
        async def _ask(self, method: str, url: str, **how: Any) -> tuple[int, bytes]:
            asked.append(url)
            await asyncio.sleep(0)
            found = {"issuer": ISSUER, "jwks_uri": f"{ISSUER}/keys"}
            return 200, json.dumps(KEYS.as_dict() if url.endswith("/keys") else found).encode()

    provider = Counted(OidcSettings(oidc_issuer=ISSUER, oidc_audience=AUDIENCE, oidc_grants=(SRE,)), lambda: now_s[0])  # type: ignore[arg-type]
    strange = [signed(RSAKey.generate_key(2048), kid=f"unknown-{number}") for number in range(3)]
    await asyncio.gather(*(provider.keys_for(token) for token in strange * 20))
    assert len(asked) == 2  # the discovery document and the keys
    now_s[0] += COOLDOWN_S - 0.1
    await provider.keys_for(strange[0])
    assert len(asked) == 2
    now_s[0] += 0.2
    for token in (*strange, signed()):
        await provider.keys_for(token)
    assert len(asked) == 4


# --- people -------------------------------------------------------------------------------------------------------


def people(*grants: dict[str, Any], claim: str = "groups") -> People:
    return People(ISSUER, claim, [GroupGrant(**grant) for grant in grants])


SRE = {"group": "sre", "role": "admin"}
EVERYBODY = {"group": "staff", "role": "viewer"}
ACME = {"group": "acme", "role": "operator", "client_prefixes": ("acme-",)}


def test_the_strongest_role_of_all_groups_counts_and_scoped_ones_beside_it() -> None:
    known = people(SRE, EVERYBODY, ACME)
    for groups, role, scoped in (
        (["staff", "sre"], "admin", 0),
        (["acme"], "scoped", 1),
        (["staff", "acme"], "viewer", 1),
    ):
        person = known.person({"sub": "8f3c", "groups": groups})
        principal = known.principal(person)
        assert principal is not None
        assert (principal.role, len(principal.grants), principal.id, principal.credential) == (role, scoped, "", "")


@pytest.mark.parametrize(
    ("claim", "claims"),
    [
        ("groups", {"groups": ["x", 7, "sre"]}),
        ("groups", {"groups": "sre"}),
        ("realm_access.roles", {"realm_access": {"roles": ["sre"]}}),
        ("https://example.com/groups", {"https://example.com/groups": ["sre"]}),
        ("repository", {"repository": "sre"}),
    ],
)
def test_where_groups_are_found(claim: str, claims: dict[str, Any]) -> None:
    assert people(SRE, claim=claim).person({"sub": "a", **claims}).groups == ("sre",)


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"groups": []},
        {"groups": ["SRE"]},
        {"groups": None},
        {"groups": {"sre": 1}},
        {"groups": ["x"]},
        {"groups": 7},
    ],
)
def test_without_a_group_that_has_a_role_there_is_no_access(claims: dict[str, Any]) -> None:
    with pytest.raises(ForbiddenError):
        people(SRE).person({"sub": "a", **claims})


def test_an_address_counts_only_where_the_provider_verified_it() -> None:
    known = people({"group": "anna@example.com", "role": "admin"}, claim="email")
    claims = {"sub": "a", "email": "anna@example.com"}
    assert known.person({**claims, "email_verified": True}).email == "anna@example.com"
    for unverified in ({}, {"email_verified": False}, {"email_verified": "true"}):
        with pytest.raises(ForbiddenError):
            known.person({**claims, **unverified})
    named = people(SRE).person({"sub": "a", "groups": "sre", "email": "root@example.com"})
    assert named.name == f"a <{ISSUER}#a>"
    forged = {"sub": "a", "groups": "sre", "email": "x> <evil", "email_verified": True}
    assert people(SRE).person(forged).name == f"a <{ISSUER}#a>"


def test_a_subject_that_would_spoil_the_audit_log_is_refused() -> None:
    for subject in ("", "a\nb", "x" * 256):
        with pytest.raises(ForbiddenError):
            people(SRE).person({"sub": subject, "groups": "sre"})


# --- settings -----------------------------------------------------------------------------------------------------

WHOLE = {
    "oidc_issuer": ISSUER, "oidc_client_id": "console", "oidc_audience": AUDIENCE, "public_url": "https://t.example",
    "oidc_grants": (SRE,),
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"oidc_issuer": None}, "TIDEGATE_OIDC_ISSUER is needed"),
        ({"oidc_issuer": "http://login.example"}, "must be an https"),
        ({"oidc_issuer": "https://login.example?x=1"}, "must be an https"),
        ({"oidc_client_id": None, "oidc_audience": None}, "CLIENT_ID, TIDEGATE_OIDC_AUDIENCE, or both"),
        ({"oidc_audience": "console"}, "must not be the console's client id"),
        ({"oidc_grants": ()}, "without it nobody has access"),
        ({"public_url": None}, "needs TIDEGATE_PUBLIC_URL"),
        ({"public_url": "http://t.example"}, "needs TIDEGATE_PUBLIC_URL"),
        ({"oidc_grants": ({"group": "x", "role": "admin", "plans": ("free",)},)}, "viewer and operator"),
        ({"oidc_grants": ({"group": "x", "role": "viewer", "client_prefixes": ("",)},)}, "pattern"),
        ({"oidc_grants": ({"group": "x", "role": "viewer", "plans": ("_",)},)}, "pattern"),
        ({"oidc_grants": ({"group": "x", "role": "root"},)}, "viewer"),
        ({"oidc_scopes": "email"}, "pattern"),
    ],
)
def test_settings_that_do_not_fit_together_are_named(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        OidcSettings(**(WHOLE | changes))  # type: ignore[arg-type]


def test_grants_come_from_the_environment_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_DATABASE_URL", "postgresql://a:b@localhost/x")
    monkeypatch.setenv("TIDEGATE_SIGNING_KEY_FILE", "/nowhere")
    for name, value in (("ISSUER", ISSUER), ("AUDIENCE", AUDIENCE), ("GRANTS", json.dumps([SRE, ACME]))):
        monkeypatch.setenv(f"TIDEGATE_OIDC_{name}", value)
    settings = Settings()
    assert [grant.group for grant in settings.oidc_grants] == ["sre", "acme"]
    assert settings.oidc_grants[1].client_prefixes == ("acme-",)


def test_a_secret_in_a_file_is_read_each_time(tmp_path: Any) -> None:
    path = tmp_path / "secret"
    settings = OidcSettings(**WHOLE, oidc_client_secret_file=path)  # type: ignore[arg-type]
    for secret in ("one", "two"):
        path.write_text(secret + "\n")
        assert settings.client_secret() == secret
