"""Factors of backends: the operator's, and the reports of regions."""

from datetime import UTC, datetime

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.errors import ConflictError, NotFoundError
from control_plane.publishing.writer import ConfigWrite
from control_plane.routes import repository
from control_plane.routes.models import BackendLoadRow, BackendRow
from control_plane.routes.schemas import (
    BackendDetail,
    BackendView,
    ClassLoadView,
    ManualFactorReplace,
    ManualFactorView,
    RegionFactorView,
)
from control_plane.routes.service import MANUAL_FACTOR, end_manual, manual_of, to_document
from control_plane.web.etags import Preconditions
from tidegate.contract.load import BackendLoad


def require_manual(row: BackendRow, now: datetime) -> ManualFactorView:
    """The manual factor. Raises :class:`NotFoundError` without one."""
    found = manual_of(row, now)
    if found is None:
        raise NotFoundError(f"The backend {row.backend} has no manual factor.")
    return found


def set_manual(
    write: ConfigWrite,
    row: BackendRow,
    body: ManualFactorReplace | ManualFactorView,
    preconditions: Preconditions,
    now: datetime,
) -> ManualFactorView:
    """Put an operator's factor in force. Raises :class:`ConflictError` if the backend has no policy."""
    before = manual_of(row, now)
    preconditions.check(before)
    if row.adaptive is None:
        raise ConflictError(
            f"The backend {row.backend} is under no adaptive policy, and without one nodes apply no factor: "
            "name one in the backend's `adaptive` first."
        )
    row.manual_factor, row.manual_expires_at, row.manual_reason = body.factor, body.expires_at, body.reason
    write.publish(to_document(row))
    view = ManualFactorView(factor=body.factor, expires_at=body.expires_at, reason=body.reason)
    write.record(MANUAL_FACTOR, row.backend, before, view)
    return view


def clear_manual(write: ConfigWrite, row: BackendRow, preconditions: Preconditions, now: datetime) -> None:
    """End an operator's factor. Raises :class:`NotFoundError` without one."""
    preconditions.check(require_manual(row, now))
    end_manual(write, row, now)
    write.publish(to_document(row))


async def detail(session: AsyncSession, row: BackendRow, view: BackendView, now: datetime) -> BackendDetail:
    """A backend with its manual factor, and its factor in each region."""
    loads = await repository.loads_of(session, row.backend)
    return BackendDetail(**view.model_dump(), manual=manual_of(row, now), factors=[region_view(load) for load in loads])


def region_view(row: BackendLoadRow) -> RegionFactorView:
    """A region's report on a backend."""
    load = msgspec.convert(row.state, BackendLoad)
    return RegionFactorView(
        region=row.region,
        factor=load.factor,
        reason=load.reason,
        since=datetime.fromtimestamp(load.since, UTC),
        signal=load.signal,
        load=load.load,
        reporters=load.reporters,
        classes=[ClassLoadView.model_validate(one) for one in load.classes],
        policy=load.policy,
        decided_by=load.decided_by,
        reported_at=row.reported_at,
    )
