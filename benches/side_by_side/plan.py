"""What `make bench` runs: the loads, the servers, and the goals that the results are held against.

A goal is a ratio, ours to the other's, unless it is `OURS`: then it is our own value.
"""

from dataclasses import dataclass, field

from .metrics import CPU, MEMORY, P50, P99, THROUGHPUT, Metric

OURS, FLOOR, NATS, NAIVE = "chatroom", "floor", "nats", "naive"
METRICS = (CPU, THROUGHPUT, P50, P99, MEMORY)


@dataclass(frozen=True)
class Server:
    name: str
    title: str
    # What the load tool is to speak.
    protocol: str
    # Its command; {bin} is where the release binaries are, {venv} where Python's packages are, {host} and {port}
    # where to listen. {admin_port} and {metrics_port} are free, too.
    command: tuple[str, ...]
    # Whether /metrics is scraped once per second.
    scraped: bool = False


CHATROOM_COMMAND = (
    "{bin}/chatroom", "serve", "--listen", "{host}:{port}",
    "--admin-listen", "{host}:{admin_port}", "--metrics-listen", "{host}:{metrics_port}",
)  # fmt: skip
CHATROOM = Server(OURS, "chatroom", "hello", CHATROOM_COMMAND, scraped=True)
RAW_SOCKETS = Server(FLOOR, "raw sockets", "framed", ("{bin}/examples/floor", "--listen", "{host}:{port}"))
# A further entry is a further column: chatroom with TLS belongs here as soon as it has flags for that.
SERVERS = (
    CHATROOM,
    RAW_SOCKETS,
    Server(NATS, "NATS", "nats", ("{venv}/bin/nats-server", "-a", "{host}", "-p", "{port}")),
    Server(NAIVE, "naive tonic", "hello", ("{bin}/examples/naive", "--listen", "{host}:{port}")),
)


@dataclass(frozen=True)
class Case:
    """A load with one size of message."""

    load: str
    title: str
    connections: int
    publishers: int = 1
    size: int = 64
    # Messages per second of all publishers together, or how many each has under way (ten with 26 have the 256 of the
    # goals, and with 6 the 64); neither where nobody speaks.
    rate: float | None = None
    window: int | None = None
    rooms: int = 1
    # By metric, and then by server.
    goals: dict[Metric, dict[str, float]] = field(default_factory=dict)

    @property
    def name(self):
        return self.load if self.idle else f"{self.load}-{self.size}"

    @property
    def idle(self):
        return self.publishers == 0

    def has(self, metric):
        return metric.of_idle == self.idle

    def arguments(self, seconds):
        """The load tool's."""
        given = ["--connections", self.connections, "--publishers", self.publishers, "--size", self.size]
        if self.rate is not None:
            given += ["--rate", f"{self.rate:g}"]
        if self.window is not None:
            given += ["--window", self.window]
        if self.rooms > 1:
            given += ["--rooms", self.rooms]
        # One local address has some 28,000 ports, and those of the run before are not free at once.
        given += ["--sources", 4]
        given += ["--duration", "2s"] if self.idle else ["--duration", f"{seconds:g}s", "--warmup", "1s"]
        return [str(argument) for argument in given]


def cpu_goals(floor, nats, naive):
    return {CPU: {FLOOR: floor, NATS: nats, NAIVE: naive}}


SATURATED = {THROUGHPUT: {FLOOR: 0.8, NATS: 4, NAIVE: 3}}
PROMPT = {P99: {FLOOR: 1.3, NATS: 1, NAIVE: 1}}
SMALL = {MEMORY: {OURS: 16 * 1024, NATS: 0.3, NAIVE: 0.5}}

CASES = (
    *(
        case
        for size, of_size in ((64, "64 B"), (1024, "1 KiB"))
        for case in (
            Case("100-saturated", f"100 saturated, {of_size}", 100, 10, size, window=26,
                 goals=cpu_goals(1.3, 0.15, 0.12) | SATURATED),
            Case("1000-saturated", f"1,000 saturated, {of_size}", 1_000, 10, size, window=6,
                 goals=cpu_goals(1.2, 0.2, 0.28) | SATURATED),
            Case("1000-paced", f"1,000 at 50 msg/s, {of_size}", 1_000, 1, size, rate=50,
                 goals=cpu_goals(1.6, 0.6, 0.7) | PROMPT),
        )
    ),
    Case("10000-paced", "10,000 at 5 msg/s, 64 B", 10_000, 1, rate=5, goals=cpu_goals(1.1, 0.5, 0.7)),
    Case("10000-idle", "10,000 idle", 10_000, 0, goals=SMALL),
)  # fmt: skip
# Those that the README shows.
README_CASES = ("100-saturated-64", "1000-saturated-64", "1000-paced-64", "10000-idle")
