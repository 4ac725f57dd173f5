"""Two servers on a busy day, in short: there is something to see of everything that they count.

Promises: rooms of different sizes talk all the time; each other thing that can happen happens every few seconds, those
that go wrong, too; at the end one of the servers drains, and its clients go to the other.
Does not know: who looks on, and at what.
"""

import itertools
import math
import os
import random
import shlex
import socket
import threading
import time

from stage import TOOLS

CHATROOM = shlex.quote(os.environ["CHATROOM_BIN"])
GO = shlex.quote(str(TOOLS / "bin/go-client"))
# Lines a second that are said in each room, and in which rooms those are who come to stay.
ROOMS = {"lobby": 20, "blue": 8, "red": 3}
MEMBERS = ["lobby", "blue", "lobby", "red", "lobby", "busy"]
# What one says that others are too slow for: more than 1 MiB in a few seconds.
BUSY_LINE, BUSY_RATE = "x" * 1500, 250
LINES = ["hi", "how are you?", "a line of a usual length " * 4, "a paragraph, " * 40, "a page, " * 300]
GRPC = "curl -sS -o /dev/null --max-time 5 --http2-prior-knowledge -H content-type:application/grpc -H te:trailers"


class Load:
    def __init__(self, stage, pace, *options):
        """Whatever can happen does so in any 16 seconds times `pace`."""
        self._pace = pace
        self._stage, self._random, self._over = stage, random.Random(1), threading.Event()
        self.servers = []
        for _ in range(2):
            stage.serve("--preface-deadline", "2s", *options)
            self.servers.append(stage.server)
        self._serving = list(self.servers)
        self._silent, self._number = [], itertools.count()
        self._events = {
            # Every so many seconds, and the first time after so many.
            (1, 0): self._someone_comes_to_stay,
            (2, 0): self._someone_says_hi_and_goes,
            (5, 1): self._someone_is_cut_off,
            (6, 1): self._someone_reads_nothing,
            (7, 2): self._someone_breaks_the_contract,
            (8, 2): self._someone_comes_to_a_wrong_door,
            (9, 3): self._someone_is_kicked,
        }

    def __enter__(self):
        for server in self.servers:
            speakers = [(self._chat(server, "speaker", room), rate, LINES) for room, rate in ROOMS.items()]
            speakers.append((self._chat(server, "feed", "busy"), BUSY_RATE, [BUSY_LINE]))
            # A thread for each server: who speaks to one that is gone is held up.
            threading.Thread(target=self._speak, args=(speakers,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self._over.set()
        for silent in self._silent:
            silent.close()

    def goes_on(self, seconds):
        began = time.monotonic()
        for second in range(seconds):
            for (every, first), happens in self._events.items():
                times, rest = divmod(second - first * self._pace, every * self._pace)
                if times >= 0 and rest == 0:
                    happens(self._serving[times % len(self._serving)])
            time.sleep(max(0.0, began + second + 1 - time.monotonic()))

    def one_server_drains(self):
        draining = self.servers[0]
        draining.terminate()
        draining.ends(0, seconds=60)
        self._serving.remove(draining)

    def _speak(self, speakers):
        """All lines of all speakers, in steps of 20 ms."""
        began, due = time.monotonic(), [0.0] * len(speakers)
        last = began
        while not self._over.wait(0.02):
            now = time.monotonic()
            for number, (speaker, rate, lines) in enumerate(speakers):
                # People speak more and less, in waves of a minute; a feed does not.
                wave = 1 + 0.6 * math.sin((now - began) / 10 + number) * (lines is LINES)
                due[number] = min(50, due[number] + (now - last) * rate * wave)
                speaker.write("".join(self._random.choice(lines) + "\n" for _ in range(int(due[number]))))
                due[number] %= 1
            last = now

    def _chat(self, server, name, room):
        """Someone who listens, and comes back if the server goes away."""
        name = f"{name}-{next(self._number)}"
        chat = f"exec {CHATROOM} chat --addr {server.address()} --room {room} --name {name}"
        return self._stage.process(name, "sh", "-c", f"{chat} >/dev/null")

    def _shell(self, command):
        """Something short that may fail, and that nobody waits for."""
        self._stage.process("visitor", "sh", "-c", command).close_stdin()

    def _someone_comes_to_stay(self, _):
        """One for each server; who is told to leave the first one goes to the second, as a balancer would have it."""
        drains, stays = self._serving[0], self._serving[-1]
        number = next(self._number)
        room = MEMBERS[number % len(MEMBERS)]
        listen = f"for to in {drains.address()} {stays.address()}; do {GO} $to member-{number}; done >/dev/null"
        self._stage.process(f"member-{number}", "sh", "-c", f"export CHATROOM_ROOM={room}; {listen}")
        self._chat(stays, "member", room)

    def _someone_says_hi_and_goes(self, server):
        self._shell(f"echo hi | {CHATROOM} chat --addr {server.address()} --room lobby --name visitor >/dev/null")

    def _someone_is_cut_off(self, server):
        # Killed after a moment, with its call open.
        chat = f"{CHATROOM} chat --addr {server.address()} --room red >/dev/null"
        self._shell(f"sleep 2 | timeout --signal=KILL 1 {chat}")

    def _someone_reads_nothing(self, server):
        stuck = f"{CHATROOM} chat --addr {server.address()} --room busy --name slow"
        self._stage.process("slow", "sh", "-c", f"{stuck} | sleep 3600")

    def _someone_breaks_the_contract(self, server):
        to, chat = server.address(), "hello.ChatRoom/Chat"
        self._shell(f"head -c 70000 /dev/zero | tr '\\0' x | {CHATROOM} chat --addr {to} >/dev/null")
        self._shell(f"printf '\\0\\0\\0\\0\\2\\377\\377' | {GRPC} --data-binary @- http://{to}/{chat}")
        self._shell(f"{CHATROOM} chat --addr {to} --room 'no such name' </dev/null")
        self._shell(f"{GRPC} -d '' http://{to}/hello.Nowhere/Chat")

    def _someone_comes_to_a_wrong_door(self, server):
        self._shell(f"curl -sS --max-time 2 http://{server.address()}/")
        host, port = server.address().split(":")
        self._silent.append(socket.create_connection((host, int(port))))

    def _someone_is_kicked(self, server):
        chat, admin = server.address(), server.address("admin")
        self._shell(f"(sleep 1; {CHATROOM} admin --addr {admin} kick --name mallory) & "
                    f"sleep 3 | {CHATROOM} chat --addr {chat} --room blue --name mallory >/dev/null")
