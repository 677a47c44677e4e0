"""What the schema fuzzer cannot know by itself: which refusals of a request that fits its schema are right.

Loaded by schemathesis (``SCHEMATHESIS_HOOKS``), never imported by tests.
"""

import re

import schemathesis

# A request may fit its schema and yet name a plan that does not exist, contradict its own path, or find its name taken.
# JSON Schema cannot say that; what it can say (type, pattern, length, range, presence) must never be the reason.
MEANT = frozenset({404, 409, 412, 422, 503})
BOUND = "/v1/load"
"""Reports of load name backends; a reporter may speak for its own only."""
OF_THE_SCHEMA = re.compile(
    r"^(Input should|Field required|String should|Value should|List should|Dictionary should|unknown field|is not JSON"
    r"|Extra inputs|Unable to|is out of range|must match)"
)


@schemathesis.check
def valid_data_is_refused_for_its_meaning(ctx, response, case):  # type: ignore[no-untyped-def]
    """In the place of ``positive_data_acceptance``, which knows no meaning."""
    meta = case.meta
    if meta is None or not meta.generation.mode.is_positive or response.status_code < 400:
        return
    meant = MEANT | {401} | ({403} if case.operation.path == BOUND else set())
    assert response.status_code in meant, f"valid data was answered {response.status_code}"
    if response.status_code != 422:
        return
    errors = response.json().get("errors", [])
    assert errors, "a 422 names every wrong field"
    for error in errors:
        assert error["field"], f"an error without a field: {error}"
        assert not OF_THE_SCHEMA.match(error["message"]), f"the schema should say: {error}"
