# noqa: INP001 - a script of the chart, not a module of ours
"""`helm test`: a node of the region decides, by its store. It asks for nothing (cost 0), so no limit is used up."""

import sys

import httpx

base, region = sys.argv[1:3]
# The Service's name is in no certificate of a public CA. Network policies know a new pod only after a moment.
client = httpx.Client(transport=httpx.HTTPTransport(verify=False, retries=6), timeout=10)
answer = client.post(base + "/v1/check", json={"cost": 0})
print(answer.status_code, answer.text)  # noqa: T201
if answer.status_code == 401 and "X-Tidegate-Token" in answer.text:
    sys.exit(0)  # node.trust: required; it is there, and says so
decision = answer.json()
sys.exit(answer.status_code not in {200, 429} or decision["region"] != region or decision["degraded"])
