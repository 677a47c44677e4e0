"""Service of adaptive policies."""

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adaptive.models import AdaptivePolicyRow
from control_plane.adaptive.schemas import PolicyFields, PolicyView
from control_plane.errors import FieldError, InvalidError
from control_plane.publishing.repository import DocumentKey
from control_plane.publishing.writer import ConfigWrite
from control_plane.resources import NamedRows, Resource
from tidegate.contract.load import AdaptivePolicy, policy_violations


class AdaptivePolicies(Resource[AdaptivePolicyRow, PolicyFields, PolicyView]):
    """Adaptive policies by name."""

    noun = "adaptive policy"
    rows = NamedRows(AdaptivePolicyRow, AdaptivePolicyRow.policy)

    def view(self, row: AdaptivePolicyRow) -> PolicyView:
        """Show a policy."""
        return PolicyView.model_validate({"policy": row.policy, **row.settings})

    async def save(
        self, write: ConfigWrite, name: str, body: PolicyFields, current: AdaptivePolicyRow | None
    ) -> AdaptivePolicyRow:
        """Make or change a policy."""
        row = current or AdaptivePolicyRow(policy=name)
        row.settings = body.model_dump(exclude={"policy"})
        policy = to_document(row)
        errors = [FieldError(violation.field, violation.message) for violation in policy_violations(policy)]
        if errors:
            raise InvalidError(errors)
        write.session.add(row)
        write.publish(policy)
        return row

    async def remove(self, write: ConfigWrite, row: AdaptivePolicyRow) -> None:
        """Delete an unused policy."""
        await write.session.delete(row)
        write.withdraw(DocumentKey("adaptive_policy", row.policy))


def to_document(row: AdaptivePolicyRow) -> AdaptivePolicy:
    """The document of a policy."""
    return msgspec.convert({"policy": row.policy, **row.settings}, AdaptivePolicy)


async def unknown_policy(session: AsyncSession, name: str | None) -> list[FieldError]:
    """The faults of naming this policy; none if it exists, or no policy is named."""
    if name is None or await AdaptivePolicies.rows.find(session, name) is not None:
        return []
    return [FieldError("adaptive", f"there is no adaptive policy named {name}")]
