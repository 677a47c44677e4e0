# noqa: INP001 - a script of the chart, not a module of ours
"""`helm test`: the control plane is ready, and gives nothing to who shows no token."""

import sys

import httpx

base, refusal = sys.argv[1], int(sys.argv[2])
# Network policies know a new pod only after a moment.
client = httpx.Client(transport=httpx.HTTPTransport(retries=6), timeout=10)
ready = client.get(base + "/readyz")
without_token = client.get(base + "/v1/regions")
print("/readyz", ready.status_code, "/v1/regions without a token", without_token.status_code)  # noqa: T201
sys.exit((ready.status_code, without_token.status_code) != (200, refusal))
