"""Frames that cost their sender next to nothing, on the chat and the admin listener; and honest clients
that send similar frames.
"""

import asyncio
import contextlib
import os
import time

import frames
import grpc
import http2
import services
from canary import NOISE_FLOOR, Canary, at_most_doubled, compare, probe_waits, probes_at_most_doubled
from flood import attackers
from report import fact, figure, median, mib
from server import Server, eventually, serves

LONG = bool(os.environ.get("LIMITS_LONG"))
WINDOW, ROUNDS = (2.0, 5) if LONG else (0.8, 3)
ATTACKERS = 2
# An attack on both workers must leave half of two cores.
CORES_MAX = 1.0
GROWTH_MAX = 32 * 2**20

# Name, attacker, and its arguments after the address.
CHAT_ATTACKS = [
    ("pairs of open and reset at full speed", frames.open_and_reset, services.CHECK, 500, 0.0),
    ("pairs of open and reset of Chat, 100 every 5 ms", frames.open_and_reset, services.CHAT, 100, 0.005),
    ("WINDOW_UPDATE", frames.window_updates),
    ("PING", frames.pings, True),
    ("PING without reading the ACKs", frames.pings, False),
    (f"SETTINGS that toggle the window of {frames.STREAMS} streams", frames.settings_toggled, services.CHAT),
    ("empty DATA", frames.empty_data, services.CHAT),
    ("PRIORITY", frames.priorities),
    ("single bytes on calls that nothing reads", frames.unread_bytes),
]
ADMIN_ATTACKS = [attack for attack in CHAT_ATTACKS if services.CHAT not in attack] + [
    ("pairs of open and reset of Watch, 100 every 5 ms", frames.open_and_reset, services.WATCH, 100, 0.005),
    (f"SETTINGS that toggle the window of {frames.STREAMS} streams", frames.settings_toggled, services.WATCH),
    ("empty DATA", frames.empty_data, services.WATCH),
]


def cheap_frames_leave_latency_alone():
    with Server() as server, Canary(server) as canary:
        for attack in CHAT_ATTACKS:
            words, rates, cores = attack[0], [], []

            @contextlib.contextmanager
            def under_attack():
                with attackers(attack[1], server.chat, *attack[2:], processes=ATTACKERS, seconds=WINDOW + 3) as counts:
                    # Some attacks open a thousand calls first.
                    eventually(lambda: counts().get("frames", 0), lambda sent: sent > 0, 2)
                    before, cpu, began = counts(), server.cpu(), time.monotonic()
                    yield
                    took, after = time.monotonic() - began, counts()
                    rates.append((after.get("frames", 0) - before.get("frames", 0)) / took)
                    cores.append((server.cpu() - cpu) / took)

            server.forget_peak()
            print(f"..  {words}", flush=True)
            medians = compare(canary, under_attack, WINDOW, ROUNDS)
            figure("frames sent a second, those in sockets' buffers included", f"{median(rates):,.0f}")
            at_most_doubled(words, medians)
            fact(f"{words}: at most {CORES_MAX} of 2 cores are used", median(cores) <= CORES_MAX, f"{median(cores):.2f}")
            growth = server.growth()
            fact(f"{words}: memory is bounded", growth <= GROWTH_MAX, f"grew by {mib(growth)}")
        gauge = eventually(lambda: server.metric("chatroom_transports"), lambda count: count == 6)
        fact("no transport of the attackers is left", gauge == 6, f"{gauge:g}, 6 of them the canary's")
        fact("a new client is served", serves(server.chat))
        faults = canary.finish()
        fact("nothing is lost, repeated or reordered", not faults, faults or "")


def cheap_frames_leave_probes_alone():
    """The admin listener and the probes share a thread."""
    with Server() as server:
        for words, act, *arguments in ADMIN_ATTACKS:
            quiet = probe_waits(server)
            with attackers(act, server.admin, *arguments, processes=ATTACKERS, seconds=30) as counts:
                eventually(lambda: counts().get("frames", 0), lambda sent: sent > 0, 2)
                attacked = probe_waits(server)
                figure(f"admin: frames sent of {words}", f"{counts().get('frames', 0):,}")
            probes_at_most_doubled(f"admin: {words}", quiet, attacked)
            eventually(lambda: median(probe_waits(server, 5)), lambda wait: wait < NOISE_FLOOR)
        answered = eventually(lambda: serves(server.admin), bool)
        fact("an operator is served afterwards", answered)


def honest_loops_still_work():
    """Clients open and drop as many calls as one transport takes, in a loop, beside a call that stays open."""
    with Server() as server:
        for turn in ("", ", a second time"):
            for words, wait in (("after their headers", True), ("at once", False)):
                with http2.Transport(server.chat) as transport:
                    neighbour = services.join(transport, "neighbour")
                    streams = [transport.open(services.CHAT, end=False, more=[("chatroom-room", "dropped")])
                               for _ in range(999)]
                    if wait:
                        transport.wait(lambda: all(transport.answers[s].opened for s in streams))
                        fact(f"999 calls are opened in one loop{turn}",
                             all(services.is_in(transport.answers[s]) for s in streams))
                    transport.send(b"".join(map(http2.reset, streams)))
                    transport.data(neighbour, http2.message(services.text("still here")))
                    transport.wait(lambda: transport.answers[neighbour].messages(), 5)
                    heard = len(transport.answers[neighbour].messages())
                    fact(f"they are dropped {words}, and another call on the transport goes on{turn}", heard == 1,
                         f"GOAWAY {transport.goaway}")
                    again = services.join(transport, "again")
                    fact(f"the next call on that transport opens{turn}", services.is_in(transport.answers[again]))
            left = server.settles("chatroom_connections", 0)
            fact(f"none of them is left{turn}", left == 0, f"{left:g}")
        opened, error = asyncio.run(grpcio_loop(server.chat, 3000))
        fact("grpcio opens and drops 3,000 calls in one loop beside one that stays open", opened == 3000 and not error,
             f"{opened} opened; {error or 'no error'}")
        left = server.settles("chatroom_connections", 0)
        fact("none of them is left", left == 0, f"{left:g}")


async def grpcio_loop(address, count):
    opened, error = 0, None
    async with grpc.aio.insecure_channel(address) as channel:
        chat = channel.stream_stream(services.CHAT)
        stays = chat(metadata=[("chatroom-room", "neighbour")])
        try:
            await stays.initial_metadata()

            async def come_and_go():
                nonlocal opened
                call = chat(metadata=[("chatroom-room", "dropped")])
                await call.initial_metadata()
                opened += 1
                call.cancel()

            async with asyncio.timeout(30):
                await asyncio.gather(*(come_and_go() for _ in range(count)))
                await stays.write(services.text("still here"))
                heard = await stays.read()
                error = None if heard == services.text("still here") else f"the neighbour got {heard!r}"
        except (grpc.aio.AioRpcError, TimeoutError) as failure:
            error = repr(failure)[:300]
        stays.cancel()
    return opened, error


CHECKS = [cheap_frames_leave_latency_alone, cheap_frames_leave_probes_alone, honest_loops_still_work]
