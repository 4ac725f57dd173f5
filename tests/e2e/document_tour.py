"""One server on which the commands of a document are run, in their order, and what was said and done there so far.

Only the addresses of the listeners and the path of `chatroom` are put into a command.
"""

import json
import os
import re
import shlex

from facts import ok
from processes import wait_until

CHATROOM = os.environ["CHATROOM_BIN"]
ADMIN = "chatroom.admin.v1.AdminService"
CHAT = "chatroom.v1.ChatService"
PERMISSION_DENIED = 7
# Where the documents' commands take the listeners to be.
PLACES = {"chat": "127.0.0.1:50051", "admin": "127.0.0.1:50052", "metrics": "127.0.0.1:9464"}

# So that there is time to take a drain back.
LONG_NOTICE = {"CHATROOM_DRAIN_NOTICE": "60s", "CHATROOM_DRAIN_DEADLINE": "90s"}


class Tour:
    """A server of its own, with mallory and three others in its lobby unless it is to be empty."""

    def __init__(self, stage, text, empty=False):
        """`text` is that of all documents."""
        stage.serve(environment=LONG_NOTICE)
        self.stage, self.text, self.server = stage, text, stage.server
        self.said, self.moves, self.rehearsals = [], [], []
        kinds = () if empty else (("go", "mallory"), ("python", "ann"), ("go", "bob"), ("node", "eve"))
        self.present = [stage.client(kind, name=name) for kind, name in kinds]
        self.mallory = self.present[0] if self.present else None
        self.server.arrived(len(self.present))

    def names(self):
        return sorted(client.name for client in self.present)

    def runs(self, command):
        """Runs it as written, and returns what it wrote to stdout."""
        line = command.line
        for listener, address in PLACES.items():
            line = line.replace(address, self.server.address(listener))
        line = re.sub(r"^chatroom\b", lambda _: shlex.quote(CHATROOM), line)
        return self.does("bash", "-c", line)

    def answers(self, command):
        """Runs it; what it answers is JSON."""
        return json.loads(self.runs(command))

    def does(self, *command):
        """Runs a command that is in no document."""
        tool = self.stage.tool(*command)
        tool.ends(0)
        return tool.out

    def everyone_hears(self, message):
        self.said.append(message)
        for client in self.present:
            client.hears(*self.said)

    def settles(self):
        """Waits until those only are in who stay: a call has ended for its client a moment before it is taken out."""

        def all_but_the_present_have_left():
            arrivals, departures = (len(self.server.logged(message)) for message in ("new user", "user left"))
            return arrivals - departures == len(self.present)

        wait_until("all visitors have left", all_but_the_present_have_left)

    def status_of(self, path):
        address = self.server.address("metrics")
        return self.does("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", f"http://{address}{path}")

    def leaves_an_audit(self, action):
        def records():
            return [record for record in self.server.logged("audit") if record.get("action") == action]

        record = wait_until(f"an audit line of {action}", records)[-1]
        complete = all(record.get(word) for word in ("who", "whom", "result"))
        ok(f"… and that is an audit line with who, what, whom, result: {action}", complete, f"{record}")

    def ends(self):
        if self.rehearsals:
            ok("a kick is shown as a dry run, then for real", self.rehearsals == [True, False], f"{self.rehearsals}")
        for client in self.present:
            client.hangs_up()
            client.ends(0)
            client.hears(*self.said)
        if self.present:
            names = ", ".join(self.names())
            ok(f"{names} heard all {len(self.said)} messages of it and nothing else, and end OK")
        ok("the server logged no error", not self.server.complaints(), f"{self.server.complaints()}")
        self.server.stop()
