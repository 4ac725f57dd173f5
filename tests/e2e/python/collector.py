"""A collector of traces on grpcio: OTLP as OpenTelemetry publishes it, one line of JSON for each span that arrives.

Usage: collector.py. Its first line is `listening on ADDR`. It ends with its stdin.
"""

import concurrent.futures
import json
import sys

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    def Export(self, request, context):
        for resource_spans in request.resource_spans:
            resource = attributes(resource_spans.resource.attributes)
            for span in (span for scope in resource_spans.scope_spans for span in scope.spans):
                tell({
                    "name": span.name,
                    "trace": span.trace_id.hex(),
                    "id": span.span_id.hex(),
                    "parent": span.parent_span_id.hex(),
                    "attributes": attributes(span.attributes),
                    "resource": resource,
                })
        return trace_service_pb2.ExportTraceServiceResponse()


def attributes(pairs):
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


def tell(span):
    # One write: exports may come on several threads.
    sys.stdout.write(json.dumps(span, default=str) + "\n")
    sys.stdout.flush()


def main():
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(max_workers=2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Collector(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"listening on 127.0.0.1:{port}", flush=True)
    sys.stdin.read()
    server.stop(grace=None)


if __name__ == "__main__":
    main()
