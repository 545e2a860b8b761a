"""OpenTelemetry spans of the HTTP edge, by Litestar's own integration; an extra: `pip install yapit[otel]`."""

from litestar.types import Middleware

from yapit.errors import SettingsError


def middleware() -> Middleware:
    """Return the middleware; where spans go is what OpenTelemetry's own variables say (`OTEL_EXPORTER_OTLP_…`).

    Raises:
        SettingsError: the packages for it are not installed.
    """
    try:
        from litestar.plugins.opentelemetry import OpenTelemetryConfig
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise SettingsError("server.tracing needs further packages: pip install 'yapit[otel]'") from error
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: "yapit"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return OpenTelemetryConfig(tracer_provider=provider, exclude_spans=["receive", "send"]).middleware
