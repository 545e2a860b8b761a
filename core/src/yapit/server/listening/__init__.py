"""The routes for which models listen: transcriptions and translations."""

from litestar import Router
from litestar.handlers import HTTPRouteHandler

from yapit.server.listening import routes

ROUTES: list[HTTPRouteHandler | Router] = [*routes.ROUTES]
