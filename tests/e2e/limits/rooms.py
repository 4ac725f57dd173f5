"""Thousands of rooms, from one client and from many."""

import collections
import os

import http2
import services
from report import fact, figure
from server import Server

LONG = bool(os.environ.get("LIMITS_LONG"))
# The table that one client tries to fill; 10,000 is the default.
ONE_TABLE, PUBLISHES = (10_000, 11_000) if LONG else (2000, 2500)
# --max-rooms-per-client's default.
ROOMS_PER_CLIENT = 100
OTHER = "127.0.0.2"
# The room table of the second check, and enough addresses to fill it more than twice.
TABLE, ADDRESSES = 500, 11
# Longer than one client takes to make its rooms.
IDLE = 8 if LONG else 4


def one_client_creates_rooms():
    with Server(max_rooms=ONE_TABLE, room_idle=f"{IDLE}s") as server:
        for turn in ("", ", a second time"):
            with http2.Transport(server.chat) as transport:
                requests = (services.publish(f"mine-{number}", "x") for number in range(PUBLISHES))
                found = tally(services.publish_all(transport, requests))
            figure(f"one client publishes to {PUBLISHES} rooms{turn}", found)
            made = found.get("OK", 0)
            fact(f"one client creates at most {ROOMS_PER_CLIENT} rooms{turn}", made <= ROOMS_PER_CLIENT, f"{made}")
            fact(f"its other publishes get TOO_MANY_ROOMS{turn}", found.get("TOO_MANY_ROOMS", 0) == PUBLISHES - made)
            with http2.Transport(server.chat) as transport:
                again = tally(services.publish_all(transport, [services.publish("more", "x")]))
                fact(f"another transport from the same address creates no more{turn}", again == {"TOO_MANY_ROOMS": 1}, again)
                lobby = services.join(transport, "lobby")
                fact(f"it joins the lobby{turn}", services.is_in(transport.answers[lobby]),
                     transport.answers[lobby].headers.get("grpc-message", ""))
                if made:
                    mine = services.join(transport, "mine-0")
                    fact(f"it joins a room that exists{turn}", services.is_in(transport.answers[mine]))
            with http2.Transport(server.chat, OTHER) as transport:
                found = tally(services.publish_all(transport, [services.publish("theirs", "x")]))
                fact(f"another client publishes to a new room{turn}", found == {"OK": 1}, found)
                call = services.join(transport, "theirs-too")
                fact(f"another client joins a new room{turn}", services.is_in(transport.answers[call]))
            gone = server.settles("chatroom_rooms", 0, IDLE + 15)
            fact(f"no room is left after the idle time{turn}", gone == 0, f"{gone:g}")


def many_clients_fill_the_room_table():
    with Server(max_rooms=TABLE) as server:
        with http2.Transport(server.chat, "127.0.9.9") as transport:
            kept = services.join(transport, "kept")
            transport.data(kept, http2.message(services.text("before")))
            for turn in ("", ", a second time"):
                fill_the_table(server, turn)
            transport.data(kept, http2.message(services.text("after")))
            transport.wait(lambda: len(transport.answers[kept].messages()) >= 2, 5)
            heard = [message[2:].decode() for message in transport.answers[kept].messages()]
            fact("a room with a member is never evicted", heard == ["before", "after"], f"{heard}")


def fill_the_table(server, turn):
    found = collections.Counter()
    for number in range(ADDRESSES):
        source = f"127.0.{1 + number // 100 + 2 * bool(turn)}.{1 + number % 100}"
        with http2.Transport(server.chat, source) as transport:
            requests = (services.publish(f"{'again-' * bool(turn)}{number}-{i}", "x") for i in range(ROOMS_PER_CLIENT))
            found += tally(services.publish_all(transport, requests))
    all_in = ADDRESSES * ROOMS_PER_CLIENT
    fact(f"{ADDRESSES} clients create {all_in} rooms one after the other in a table of {TABLE}{turn}", found["OK"] == all_in, dict(found))
    rooms = server.metric("chatroom_rooms")
    fact(f"the table holds at most {TABLE} and the lobby{turn}", rooms <= TABLE + 1, f"{rooms:g}")
    with http2.Transport(server.chat, OTHER) as transport:
        call = services.join(transport, f"newcomer{bool(turn):d}")
        fact(f"a newcomer joins a new room when the table is full{turn}", services.is_in(transport.answers[call]),
             transport.answers[call].headers.get("grpc-message", ""))
        lobby = services.join(transport, "lobby")
        fact(f"a newcomer joins the lobby when the table is full{turn}",
             services.is_in(transport.answers[lobby]), transport.answers[lobby].headers.get("grpc-message", ""))
        gone = transport.call(services.LIST_EVENTS, services.list_events(f"{'again-' * bool(turn)}0-0"))
        fact(f"the longest-empty room was evicted{turn}", gone.has_reason("ROOM_NOT_FOUND"), f"status {gone.status}")


def tally(answers):
    """Counts answers by "OK", a known reason, or the status."""
    reasons = ("TOO_MANY_ROOMS", "ROOM_BUSY")
    words = lambda answer: next((r for r in reasons if answer.has_reason(r)), "OK" if answer.status == 0 else
                                f"status {answer.status}")
    return collections.Counter(map(words, answers))


CHECKS = [one_client_creates_rooms, many_clients_fill_the_room_table]
