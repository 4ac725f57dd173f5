"""Scenarios of health: what load balancers' and operators' tools see of it.

Does not know: why the server serves or not.
"""

import json
import os

from facts import exit_code, ok
from processes import wait_until
from stage import GRPCURL

HEALTH = "grpc.health.v1.Health"
NOT_FOUND = 5


def grpcurls_see_health_by_reflection(stage):
    listing = stage.tool(*GRPCURL, "ADDR", f"{HEALTH}/List")
    listing.ends(0)
    statuses = json.loads(listing.out)["statuses"]
    serving = {name: {"status": "SERVING"} for name in ("", "hello.ChatRoom", "chatroom.v1.ChatService")}
    ok("List has the server and its two chat services, all SERVING", statuses == serving, listing.out)
    unknown = stage.tool(*GRPCURL, "-d", '{"service":"no.Service"}', "ADDR", f"{HEALTH}/Check")
    unknown.ends(exit_code(NOT_FOUND))
    ok("Check of an unknown service is NOT_FOUND")


def a_watch_hears_of_the_stop(stage):
    address = stage.server.address()
    known, unknown = (stage.process(f"watch of {service}", *GRPCURL, "-d", json.dumps({"service": service}), address,
                                    f"{HEALTH}/Watch") for service in ("hello.ChatRoom", "no.Service"))
    wait_until("both watches have an answer", lambda: "SERVING" in known.out and "SERVICE_UNKNOWN" in unknown.out)
    ok("Watch says SERVING, and SERVICE_UNKNOWN of an unknown service, and both stay open",
       known.exit_code is None and unknown.exit_code is None)
    stage.server.terminate()
    wait_until("the watch hears of the stop", lambda: "NOT_SERVING" in known.out)
    stage.server.ends(0, seconds=10)
    ok("a watch hears NOT_SERVING at SIGTERM, and does not keep the server from ending")


def chatroom_health_is_a_health_check(stage):
    health = [os.environ["CHATROOM_BIN"], "health", "--addr", stage.server.address()]
    well = stage.tool(*health, "--service", "hello.ChatRoom")
    well.ends(0)
    ok("chatroom health exits 0 with one line", well.out.endswith("is SERVING\n") and well.out.count("\n") == 1, well.out)
    stage.server.terminate()
    stage.server.ends(0, seconds=10)
    gone = stage.process("health", *health)
    gone.ends(1)
    ok("and 1 with one line when the server has gone", not gone.out and gone.err.count("\n") == 1, gone.err)


SCENARIOS = [grpcurls_see_health_by_reflection, a_watch_hears_of_the_stop, chatroom_health_is_a_health_check]
