"""`/metrics`: Litestar's own Prometheus metrics of the HTTP edge, and the engine's."""

from typing import Any

from litestar import Request, Response, get
from litestar.plugins.prometheus import PrometheusConfig, PrometheusController
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from yapit.server.services import services

MIDDLEWARE = PrometheusConfig(app_name="yapit", prefix="yapit_http", group_path=True, exclude=["/metrics"]).middleware


class Metrics(PrometheusController):
    """Litestar's controller, whose answer is followed by what the engine has measured."""

    tags = ("health",)

    @get(media_type="text/plain")
    async def get(self, request: Request[Any, Any, Any]) -> Response[bytes]:
        """Return the metrics as Prometheus reads them."""
        edge: Response[bytes] = await PrometheusController.get.fn(self)
        body = edge.content + generate_latest(services(request).engine.meters.registry)
        return Response(body, headers={"content-type": CONTENT_TYPE_LATEST})


ROUTES = [Metrics]
