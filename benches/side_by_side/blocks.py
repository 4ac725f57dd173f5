"""The parts of documents that `make bench` replaces: each between two comments."""

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"


def updated(text, block):
    """The document with another block; ValueError when it has no place for one."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in after or END in after:
        raise ValueError(f"the document needs {BEGIN} and {END}, once each and in this order")
    return f"{before}{BEGIN}\n{block.strip()}\n{END}{after}"
