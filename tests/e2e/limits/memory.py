"""The logs of all rooms together."""

import os

import http2
import services
from chatroom.v1 import chat_pb2 as v1
from report import fact, figure, mib
from server import Server, eventually

LONG = bool(os.environ.get("LIMITS_LONG"))
# One room's retention of 16 MiB, in messages so long that overheads do not matter; the busy room gets some meanwhile.
TEXT_BYTES, ROOM_MESSAGES, PARTS = 4000, 4300, 5
LONG_TEXT = "x" * 60_000
ROOMS, BUDGET, BUSY_MESSAGES = (40, 256 * 2**20, 8) if LONG else (16, 64 * 2**20, 18)
# Segments in flight; and the allocator, and what filling a room needs beside its log.
LOG_OVERSHOOT = 4 * 2**20
RSS_OVERSHOOT, RSS_MORE = 1.3, 48 * 2**20
OVERHEAD_MAX = 1.3


def all_logs_stay_within_the_budget():
    with Server(retention_total_bytes=BUDGET, room_idle="8s") as server:
        for turn in ("", ", a second time"):
            server.forget_peak()
            highest = 0
            for room in range(ROOMS):
                for _ in range(PARTS):
                    services.fill(server.chat, f"idle-{room}", ROOM_MESSAGES // PARTS, TEXT_BYTES)
                    services.fill(server.chat, "busy", BUSY_MESSAGES, TEXT_BYTES)
                highest = max(highest, server.metric("chatroom_log_bytes"))
            with http2.Transport(server.chat) as transport:
                rooms = {room.name: room for room in list_rooms(transport)}
            words = f"{ROOMS} rooms of {mib(ROOM_MESSAGES * TEXT_BYTES)}"
            fact(f"chatroom_log_bytes stays within {mib(BUDGET)} with {words}{turn}", highest <= BUDGET + LOG_OVERSHOOT,
                 mib(highest))
            growth = server.growth()
            most = BUDGET * RSS_OVERSHOOT + RSS_MORE
            fact(f"resident memory stays within it{turn}", growth <= most, f"grew by {mib(growth)}, at most {mib(most)}")
            kept = {name: room.last_position.offset - room.oldest_position.offset for name, room in rooms.items()}
            figure("messages kept", kept)
            busy = rooms["busy"]
            fact(f"the busy room keeps its whole history{turn}", busy.oldest_position.offset <= 1,
                 f"{busy.oldest_position.offset} to {busy.last_position.offset}")
            first = kept.get("idle-0", 0)
            fact(f"the idlest room is trimmed first{turn}", first < ROOM_MESSAGES // 10, f"{first} messages kept")
            if not turn:
                left = server.settles("chatroom_log_bytes", 0, 20)
                fact("nothing is retained after the rooms' idle time", left == 0, mib(left))


def list_rooms(transport):
    answer = transport.call(services.LIST_ROOMS, services.list_rooms())
    (payload,) = answer.messages()
    return v1.ListRoomsResponse.FromString(payload).rooms


def log_bytes_match_what_is_retained():
    count = 92
    with Server(room_idle="2s") as server:
        for turn in ("", ", a second time"):
            with http2.Transport(server.chat) as transport:
                # One at a time, so that each is its own batch.
                services.publish_all(transport, (services.publish("few", LONG_TEXT) for _ in range(count)), ahead=1)
            held, counted = count * len(LONG_TEXT), server.metric("chatroom_log_bytes")
            fact(f"{count} messages of {len(LONG_TEXT)} bytes are counted as about {mib(held)}{turn}",
                 held * 0.9 <= counted <= held * OVERHEAD_MAX, f"{mib(counted)}")
            eventually(lambda: server.metric("chatroom_rooms"), lambda rooms: rooms == 0, 15)
            with http2.Transport(server.chat) as transport:
                services.publish_all(transport, (services.publish("short", "x" * 64) for _ in range(1000)), ahead=1)
            messages, counted = server.metric("chatroom_log_messages"), server.metric("chatroom_log_bytes")
            figure(f"bytes counted for a text of 64 bytes in a batch of its own{turn}", f"{counted / messages:.0f}")
            eventually(lambda: server.metric("chatroom_rooms"), lambda rooms: rooms == 0, 15)


CHECKS = [all_logs_stay_within_the_budget, log_bytes_match_what_is_retained]
