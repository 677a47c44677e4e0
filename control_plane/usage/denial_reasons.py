"""One denial in a sentence, and what can be done about it. Pure."""

from contract.denials import Denial


def reason(denial: Denial) -> str:
    """Why, for somebody who has never seen a limit of this house."""
    limit = f"the limit {denial.policy}" if denial.policy else "a limit"
    at = f" at {denial.endpoint}" if denial.endpoint else ""
    asked = f"{denial.cost:,} asked" if denial.cost != 1 else "1 asked"
    used = f": {denial.used:,} of {denial.limit:,} were used, {asked}" if denial.used is not None else f": {asked}"
    whole = f" of {denial.limit:,}" if denial.limit is not None else ""
    wait = "" if denial.retry_after_s is None else f". It would have passed {denial.retry_after_s:,.0f} s later"
    sentences = {
        "used_up": f"{limit}{whole}{at} was used up{used}{wait}",
        "too_few_left": f"{limit}{whole}{at} had less left than was asked for{used}{wait}",
        "cost_above_limit": f"the request{at} asked for {denial.cost:,}, more than {limit}{whole} can ever hold",
        "cannot_decide": f"nobody could tell what was left of {limit}{at}: the store was away, or its shares unproven",
        "reduced_capacity": f"the backend{at} had too much to do, and {limit} was lowered by its load{wait}",
        "missing_api_key": "no API key was sent, and this installation wants one",
        "unknown_api_key": "the API key that was sent is unknown, expired or revoked",
        "client_suspended": "the client is suspended",
        "blocked": f"a block ({denial.reason_class or 'other'}) holds the client, its key, its address or the endpoint",
    }
    said = sentences[denial.cause]
    degraded = ", decided without the region's store" if denial.degraded and denial.cause != "cannot_decide" else ""
    return said[0].upper() + said[1:] + degraded + "."


def remedy(denial: Denial) -> str:
    """What can be done, by which command or route."""
    client = f"/v1/clients/{denial.client}" if denial.client else "the plan `anonymous`"
    override = (
        f"raise it for this client (PUT {client}/overrides/{denial.policy})"
        if denial.client
        else f"raise it in {client}"
    )
    remedies = {
        "used_up": f"Wait, {override}, or give back what was counted (POST {client}/reset)."
        if denial.client
        else f"Wait, {override}, or let the caller send its API key.",
        "too_few_left": f"Ask for less at once, wait, or {override}.",
        "cost_above_limit": f"Ask for less at once, or {override}: waiting does not help.",
        "cannot_decide": "See docs/runbooks/store-errors.md; the limit's on_store_failure says what happens meanwhile.",
        "reduced_capacity": "Look at the backend (GET /v1/backends); its factor can be set by hand for a while.",
        "missing_api_key": "The caller has to send its key; or set TIDEGATE_MISSING_KEY=anonymous.",
        "unknown_api_key": "Compare the key's beginning with GET /v1/keys?prefix=; issue a new one if it has ended.",
        "client_suspended": f"Make it active (PATCH {client} with status active), if that is meant.",
        "blocked": "Find the block (GET /v1/blocks), and lift it (DELETE /v1/blocks/{block}) if it is not meant.",
    }
    return remedies[denial.cause]
