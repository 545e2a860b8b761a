"""The routes that manage models: what there is, what is fetched, loaded and removed."""

from litestar import Router

from yapit.server.managing import changing, downloading, events, keeping, listing, ollama, single
from yapit.server.managing.answering import refuse
from yapit.server.managing.ollama import refuse_as_ollama

ROUTES = [
    Router(
        "/",
        route_handlers=[
            *listing.ROUTES,
            *keeping.ROUTES,
            *downloading.ROUTES,
            *changing.ROUTES,
            *events.ROUTES,
            *single.ROUTES,
        ],
        exception_handlers={Exception: refuse},
    ),
    Router("/", route_handlers=ollama.ROUTES, exception_handlers={Exception: refuse_as_ollama}),
]
