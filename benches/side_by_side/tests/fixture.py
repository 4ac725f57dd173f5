"""Results files made by hand."""

from ..results import Results

SERVERS = [
    {"name": "chatroom", "title": "chatroom", "missing": None, "version": None},
    {"name": "floor", "title": "raw sockets", "missing": None, "version": None},
    {"name": "nats", "title": "NATS", "missing": "not installed", "version": None},
]


def run(server, number=1, cpu=100.0, case="1000-paced-64", **changed):
    """A run in which all went well, but for what is changed."""
    tool = {
        "deliveries_per_second": 50_000.0, "latency_us": {"p50": 900, "p99": 4_000}, "lost": 0, "duplicates": 0,
        "connections": 1_000, "rooms": 1, "rate": 50.0, "orders": 1, "failed": {},
        "server": {"cpu_ns_per_delivery": cpu, "idle_bytes_per_connection": 15_872},
    }  # fmt: skip
    record = {"case": case, "server": server, "round": number, "exit": 0, "failure": None, "scrapes_failed": 0}
    tool |= {key: changed.pop(key) for key in list(changed) if key in tool}
    return record | {"tool": tool} | changed


def results(*runs):
    machine = {"cpu": "CPU", "cores": 2, "kernel": "6.1", "rustc": "rustc 1.9", "commit": "abc", "date": "today",
               "load_average": 0.1}  # fmt: skip
    return Results({"machine": machine, "settings": {"rounds": 3, "seconds": 3.0}, "servers": SERVERS, "runs": list(runs)})
