"""A real OpenID Connect provider (panva's certified ``oidc-provider``, by npm), and a browser that signs in at it."""

import contextlib
import json
import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import parse_qs, urljoin, urlsplit

import httpx
from joserfc.jwk import ECKey, RSAKey

from testing.npm import install, program
from tidegate.stack.ports import free_ports

PACKAGE = Path(__file__).parent / "oidc_provider"
AUDIENCE = "https://tidegate.example"
PUBLIC_URL = "https://control-plane"
CLIENT_SECRET = "the-secret-of-the-console-client"
STARTS_IN_S = 20.0
_FORM = re.compile(r'<form[^>]*action="([^"]+)"')
_FIELD = re.compile(r'<input[^>]*type="hidden"[^>]*name="([^"]+)" value="([^"]*)"')
Jwk = dict[str, object]


def private_key(kid: str, alg: str = "ES256") -> Jwk:
    """A new key of the provider's."""
    made = ECKey.generate_key("P-256") if alg.startswith("ES") else RSAKey.generate_key(2048)
    return {**made.as_dict(private=True), "kid": kid, "alg": alg, "use": "sig"}


class OidcProvider:
    """The provider as a process that can go away and come back, with other keys too."""

    def __init__(self, log: Path) -> None:
        (self.port,) = free_ports(1)
        self.issuer = f"http://127.0.0.1:{self.port}"
        self.keys: list[Jwk] = [private_key("first")]
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def runs(self) -> bool:
        """Whether it was started, and not stopped since."""
        return self._process is not None

    def start(self, keys: Sequence[Jwk] | None = None, **options: object) -> None:
        """Serve, with ``keys`` from now on; the first of them signs."""
        self.keys = list(keys) if keys is not None else self.keys
        told = {
            "port": self.port, "redirectUri": f"{PUBLIC_URL}/console/oidc/callback", "audience": AUDIENCE,
            "keys": self.keys, **options,
        }  # fmt: skip
        node = program("node")
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [node, "provider.mjs", json.dumps(told)], cwd=PACKAGE, stdout=log, stderr=log
            )
        ends = time.monotonic() + STARTS_IN_S
        while True:
            with contextlib.suppress(httpx.TransportError):
                httpx.get(f"{self.issuer}/.well-known/openid-configuration", trust_env=False).raise_for_status()
                return
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < ends, self._log.read_text()
            time.sleep(0.05)

    def stop(self) -> None:
        """Go away."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self, keys: Sequence[Jwk] | None = None, **options: object) -> None:
        """Go away and come back."""
        self.stop()
        self.start(keys, **options)

    def ci_token(self, scope: str = "deploy", audience: str = AUDIENCE) -> str:
        """An access token as a CI job gets it (client credentials, JWT of RFC 9068)."""
        form = {"grant_type": "client_credentials", "scope": scope, "resource": audience}
        secret = ("ci", "the-secret-of-the-ci-client")
        answer = httpx.post(f"{self.issuer}/token", data=form, auth=secret, trust_env=False)
        token: str = answer.raise_for_status().json()["access_token"]
        return token

    def sign_in(self, url: str, account: str) -> str:
        """Follow a browser that was sent to ``url``, logs in and consents; where it is sent back to."""
        with httpx.Client(trust_env=False) as browser:
            answer = browser.get(url)
            for _ in range(20):
                if answer.is_redirect:
                    target = urljoin(str(answer.request.url), answer.headers["location"])
                    if target.startswith(PUBLIC_URL):
                        return target
                    answer = browser.get(target)
                    continue
                action = _FORM.search(answer.text)
                assert action is not None, answer.text
                fields = dict(_FIELD.findall(answer.text))
                fields |= {"login": account, "password": "any"} if fields.get("prompt") == "login" else {}
                answer = browser.post(urljoin(str(answer.request.url), action[1]), data=fields)
        raise AssertionError("the provider sends in circles")


@contextlib.contextmanager
def oidc_provider(log: Path) -> Iterator[OidcProvider]:
    """A provider that runs while the block does."""
    install(PACKAGE)
    provider = OidcProvider(log)
    try:
        provider.start()
        yield provider
    finally:
        provider.stop()


def query_of(url: str) -> dict[str, str]:
    """The members of a URL's query."""
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
