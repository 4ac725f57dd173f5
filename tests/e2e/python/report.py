"""What the client programs tell of their calls: lines of JSON on stdout, with statuses as Google's own library reads them.

Does not know: which calls there are.
"""

import json
import sys

from google.rpc import error_details_pb2
from grpc_status import rpc_status


def status_of(call):
    """How it ended; what its status does not tell is empty."""
    bad, info, retry = error_details_pb2.BadRequest(), error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    try:
        status = rpc_status.from_call(call)
    except ValueError:
        status = None  # The details contradict the code: the call has ended otherwise.
    for detail in status.details if status else ():
        for kind in (bad, info, retry):
            detail.Unpack(kind)
    return {
        "code": call.code().name,
        "message": call.details(),
        "field": next((violation.field for violation in bad.field_violations), ""),
        "reason": info.reason,
        "position": info.metadata.get("position", ""),
        "retry": retry.retry_delay.ToTimedelta().total_seconds(),
    }


def emit(line):
    # In one piece: the other threads write, too.
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()
