# noqa: INP001 - a script of the chart, not a module of ours
"""`helm test`: the control plane is ready, and gives nothing to who shows no token."""

import sys

import httpx

base, refusal = sys.argv[1], int(sys.argv[2])
ready = httpx.get(base + "/readyz", timeout=10)
without_token = httpx.get(base + "/v1/regions", timeout=10)
print("/readyz", ready.status_code, "/v1/regions without a token", without_token.status_code)  # noqa: T201
sys.exit((ready.status_code, without_token.status_code) != (200, refusal))
