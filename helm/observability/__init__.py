"""Grafana dashboards as code: ``python -m helm.observability`` writes the JSON that the control plane's chart ships."""
