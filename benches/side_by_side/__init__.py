"""chatroom beside what else there is, under one load tool: `make bench` and `make bench-scale`.

Promises: the servers take turns, each comparison is made within one round of turns, and a run that failed, lost something
or saw several orders is shown and marked, never left out.
"""
