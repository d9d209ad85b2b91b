"""The entry point: what this is, how much there is of it, and where to go on."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from engine_pg.api.accounts.replicated import Account, logged_in
from engine_pg.api.call import Call
from engine_pg.api.types.defaults import PRODUCT_VERSION
from engine_pg.api.wire.document import Document, reference
from engine_pg.ids import BLANK_TEMPLATE_ID
from engine_pg.inventory.rows import Host, Vm

_LINKS: Final = (
    "clusters", "datacenters", "events", "hosts", "jobs", "macpools", "schedulingpolicies",
    "templates", "users", "vms",
)  # fmt: skip


def _counted(active: int, total: int) -> Document:
    return {"active": active, "total": total}


async def read(request: Request) -> Response:
    """Answer with the entry point."""
    call = Call(request)
    hosts, vms, users = call.view.of(Host), call.view.of(Vm), call.view.of(Account)
    now = call.services.reads.replica.moment()
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
            "hosts": _counted(hosts.count("status", "up"), len(hosts)),
            "storage_domains": _counted(0, 0),
            "users": _counted(logged_in(call.view, now), len(users)),
            "vms": _counted(sum(vms.counts("host_id").values()), len(vms)),
        },
        "time": now,
        "authenticated_user": user,
        "effective_user": user,
        "link": [{"rel": rel, "href": f"{call.base}/{rel}"} for rel in _LINKS],
    }
    return call.answer("api", document)
