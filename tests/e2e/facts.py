"""Facts that a scenario sees to hold; those of all scenarios are counted together.

Promises: each that holds is one line `ok <fact>`, the first that does not ends its scenario.
Does not know: what there is to prove, and how it is seen.
"""

from processes import Failed

passed = 0


def ok(fact, holds=True, otherwise=""):
    global passed
    if not holds:
        raise Failed(f"not so: {fact}; {otherwise}" if otherwise else f"not so: {fact}")
    passed += 1
    print("ok", fact, flush=True)


def exit_code(status):
    """How grpcurl, and our clients after its example, tell the status of a call."""
    return 64 + status
