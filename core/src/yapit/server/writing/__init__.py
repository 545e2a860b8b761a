"""The routes for which models write: chat, completions and responses."""

from litestar import Router
from litestar.handlers import HTTPRouteHandler

from yapit.server.writing import chat, completions, responses

ROUTES: list[HTTPRouteHandler | Router] = [*chat.ROUTES, *completions.ROUTES, *responses.ROUTES]
