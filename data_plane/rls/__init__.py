"""Envoy's rate limit service protocol, version 3, over gRPC (extra ``rls``): its filter asks a node as it stands.

``mapping`` says what descriptors mean, ``deciding`` decides those of a request together, ``answers`` writes what Envoy
reads, ``service`` and ``server`` are the gRPC end. Protocol: envoyproxy/data-plane-api, envoy/service/ratelimit/v3.
"""
