"""What a signed JWT says, once everything about it holds. Pure: keys and time are arguments."""

from typing import Any

from joserfc import jwt
from joserfc.errors import ExpiredTokenError, InvalidClaimError, JoseError, MissingClaimError
from joserfc.jwk import KeySet
from joserfc.jws import extract_compact

from control_plane.errors import UnauthenticatedError

ALGORITHMS = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519",
)  # fmt: skip
"""Signatures by the provider's private key alone: with ``none`` or ``HS256`` anybody could sign."""
LEEWAY_S = 60
MAX_JWT_LENGTH = 16 * 1024
Claims = dict[str, Any]


def key_id(token: str) -> str | None:
    """Which key signed it, by its own word. Raises :class:`UnauthenticatedError` for what is signed by none of ours."""
    if len(token) > MAX_JWT_LENGTH or not token.isascii():
        raise UnauthenticatedError("The JWT is too long, or is none.")
    try:
        header = extract_compact(token.encode()).headers()
    except (JoseError, ValueError):
        raise UnauthenticatedError("The JWT cannot be read.") from None
    if header.get("alg") not in ALGORITHMS:
        raise UnauthenticatedError(f"The JWT's algorithm is not one of {', '.join(ALGORITHMS)}.")
    kid = header.get("kid")
    return kid if isinstance(kid, str) else None


def verified(token: str, keys: KeySet, *, issuer: str, audience: str, now_s: float) -> Claims:
    """The claims of a JWT that ``issuer`` signed for ``audience`` and that is in force, with a minute's leeway.

    Raises :class:`UnauthenticatedError`, which says what does not hold and never what the token says.
    """
    key_id(token)
    try:
        claims = jwt.decode(token, keys, algorithms=ALGORITHMS).claims
        rules = jwt.JWTClaimsRegistry(
            now=int(now_s),
            leeway=LEEWAY_S,
            iss={"essential": True, "value": issuer},
            sub={"essential": True},
            aud={"essential": True, "value": audience},
            exp={"essential": True},
            iat={"essential": True},
        )
        rules.validate(claims)
    except ExpiredTokenError:
        raise UnauthenticatedError("The JWT has expired.") from None
    except MissingClaimError as error:
        raise UnauthenticatedError(f"The JWT lacks {error.description}") from None
    except InvalidClaimError as error:
        raise UnauthenticatedError(_WRONG.get(error.claim, f"The JWT's {error.claim} does not hold.")) from None
    except (JoseError, TypeError, ValueError):  # a type that the header's `crit` must not have
        raise UnauthenticatedError("The JWT is not signed by a key of the provider.") from None
    return claims


_WRONG = {
    "iss": "The JWT comes from another issuer.",
    "aud": "The JWT is meant for another audience.",
    "nbf": "The JWT is not in force yet.",
    "iat": "The JWT was issued in the future: compare the clocks.",
}
