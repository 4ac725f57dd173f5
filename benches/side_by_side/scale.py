"""What `make bench-scale` runs: the same deliveries per second over more and more connections, and more and more rooms."""

from dataclasses import replace

from . import table
from .metrics import CPU, MEMORY, P99
from .plan import CHATROOM, OURS, RAW_SOCKETS, Case
from .results import Spread

DELIVERIES_PER_SECOND = 50_000
ROOM_CONNECTIONS = 10_000
# Beyond the defaults, and for rooms that all come from one address: all loads are run with the same settings.
LIMITS = ("--max-transports", "19000", "--max-rooms", "10001", "--max-rooms-per-client", "10001")
SERVERS = (replace(CHATROOM, command=CHATROOM.command + LIMITS), RAW_SOCKETS)


def over_connections(connections):
    rate = DELIVERIES_PER_SECOND / connections
    return Case(f"{connections}-connections", f"{connections:,} connections", connections, rate=rate)


def over_rooms(rooms):
    # One publisher in each; a message has as many receivers as its room.
    rate = DELIVERIES_PER_SECOND * rooms / ROOM_CONNECTIONS
    title = f"{rooms:,} {'room' if rooms == 1 else 'rooms'}"
    return Case(f"{rooms}-rooms", title, ROOM_CONNECTIONS, rooms, rate=rate, rooms=rooms)


CONNECTIONS = tuple(over_connections(n) for n in (10, 100, 1_000, 10_000, 18_000))
ROOMS = tuple(over_rooms(n) for n in (1, 10, 100, 1_000, 10_000))
CASES = CONNECTIONS + ROOMS


def servers_of(case):
    """The floor has one room, so it has no part in the cases that are about them."""
    return SERVERS if case in CONNECTIONS else SERVERS[:1]


def markdown(results, picture):
    parts = ["# Scale", table.conditions(results), NOTES]
    if picture:
        parts.append(f"![CPU per delivery and memory per connection, over connections and over rooms]({picture})")
    parts += ["## Connections", connections_table(results), "## Rooms", rooms_table(results)]
    parts += [f"## What {table.MARK} marks", table.remarks(results, CASES)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


NOTES = f"""\
About {DELIVERIES_PER_SECOND:,} deliveries per second of 64 bytes in each case, so that what differs is how many connections or rooms there are.
The {ROOM_CONNECTIONS:,} connections of the second table are spread over the rooms evenly, and one in each publishes; in {ROOM_CONNECTIONS:,} rooms
everyone is alone. *raw sockets* is the floor (`benches/servers/floor.rs`); it has one room. Ratios are those of one round: median (lowest–highest).
"""


def connections_table(results):
    heads = ["", *(f"{metric.title}, {server['title']}" for metric in (CPU, P99, MEMORY) for server in results.servers)]
    heads.insert(1 + len(results.servers), "÷")
    rows = []
    for case in CONNECTIONS:
        cells = {
            metric: [table.value_cell(results, case, server, metric) for server in results.servers]
            for metric in (CPU, P99, MEMORY)
        }
        own, floor = ((case.name, server.name) for server in SERVERS)
        ratio = written(results.ratio(own, floor, CPU))
        rows.append([case.title, *cells[CPU], ratio, *cells[P99], *cells[MEMORY]])
    return table.table(heads, rows)


def rooms_table(results):
    ours = results.servers[0]
    rows = []
    for case in ROOMS:
        ratio = results.ratio((case.name, OURS), (ROOMS[0].name, OURS), CPU)
        cells = [table.value_cell(results, case, ours, metric) for metric in (CPU, P99, MEMORY)]
        cells.insert(1, written(ratio))
        rows.append([case.title, f"{ROOM_CONNECTIONS // case.rooms:,}", *cells])
    return table.table(
        ["", "connections in each", CPU.title, f"÷ {ROOMS[0].title}", P99.title, MEMORY.title], rows
    )


def written(spread: Spread | None):
    return spread.written() if spread else "–"
