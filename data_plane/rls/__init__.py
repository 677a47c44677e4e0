"""Envoy's rate limit service protocol, version 3, over gRPC: its filter asks a node as it stands.

From the wire inwards: ``server`` and ``protocol`` (sockets); ``http2`` on ``control`` and ``sending`` (a
connection, without I/O), with ``headers`` and ``compression``; ``grpc`` (unary calls); ``service`` (what is answered).
``mapping`` says what descriptors mean, ``deciding`` decides several of them together; ``answers`` and ``template``
write what Envoy reads. Protocol: envoyproxy/data-plane-api, envoy/service/ratelimit/v3.
"""
