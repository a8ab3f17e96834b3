#!/usr/bin/env python
"""Asks Flower's health server (--health-server-address) at HOST:PORT; exit code 0 if it serves."""

import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

with grpc.insecure_channel(sys.argv[1]) as channel:
    try:
        answer = health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(), timeout=15
        )
    except grpc.RpcError as error:
        sys.exit(f"no answer from {sys.argv[1]}: {error.code().name}")
sys.exit(0 if answer.status == health_pb2.HealthCheckResponse.SERVING else "not serving")
