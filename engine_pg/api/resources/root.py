"""The entry point: what this is, how much there is of it, and where to go on."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from engine_pg.api.call import Call
from engine_pg.api.types.defaults import PRODUCT_VERSION
from engine_pg.api.wire.document import Document, reference
from engine_pg.ids import BLANK_TEMPLATE_ID

SUMMARY: Final = """
select now() as at,
  (select count(*) from host) as hosts, (select count(*) from host where status = 'up') as hosts_up,
  (select count(*) from vm) as vms, (select count(*) from vm where host_id is not null) as vms_up,
  (select count(*) from app_user) as users,
  (select count(distinct user_id) from api_token where expires_at > now()) as users_active
"""
_LINKS: Final = (
    "clusters", "datacenters", "events", "hosts", "jobs", "macpools", "schedulingpolicies",
    "templates", "users", "vms",
)  # fmt: skip


def _counted(active: int, total: int) -> Document:
    return {"active": active, "total": total}


async def read(request: Request) -> Response:
    """Answer with the entry point."""
    call = Call(request)
    async with call.services.db.read() as tx:
        counts = await tx.first(SUMMARY)
    assert counts is not None
    blank = reference(call.base, "templates", BLANK_TEMPLATE_ID)
    user = reference(call.base, "users", call.identity.user_id)
    document: Document = {
        "product_info": {
            "name": "engine_pg",
            "vendor": "engine_pg",
            "version": PRODUCT_VERSION,
        },
        "special_objects": {"blank_template": blank},
        "summary": {
            "hosts": _counted(counts["hosts_up"], counts["hosts"]),
            "storage_domains": _counted(0, 0),
            "users": _counted(counts["users_active"], counts["users"]),
            "vms": _counted(counts["vms_up"], counts["vms"]),
        },
        "time": counts["at"],
        "authenticated_user": user,
        "effective_user": user,
        "link": [{"rel": rel, "href": f"{call.base}/{rel}"} for rel in _LINKS],
    }
    return call.answer("api", document)
