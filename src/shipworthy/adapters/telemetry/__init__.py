"""Where observations go: log lines, metrics, traces. Importing this loads neither prometheus-client nor opentelemetry."""
