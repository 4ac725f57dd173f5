"""The documents' text is the script: each command in them that speaks to a server is run as written, in its order, on a
server of the document's own.

Promises: a command that nobody here can judge is a failure, and so is a judge whose command no document has; blocks that
are not run, and lines that are proved elsewhere (`make`, `cargo` and `docker`), are listed. Links, flags, targets of make
and names of metrics that the documents have exist.

CHATROOM_BIN must be called chatroom: `chatroom bench --admin` knows the process of a server by that name.
"""

import pathlib
import re
import tempfile

from document_commands import broken_links, flags_in, script
from document_judges import ALONE, JUDGES
from document_tour import CHATROOM, PLACES, Tour
from facts import ok
from processes import Failed
from stage import HERE

ROOT = (HERE / "../..").resolve()
# Flags in the prose that are other programs'.
FOREIGN_FLAGS = {"--stop-timeout", "--long", "--release", "--lib", "--tool"}
COMMANDS = ("", "serve", "chat", "health", "bench", "admin", "admin list", "admin kick", "admin bans", "admin top")


def documents():
    """By path, all that people read, in order."""
    paths = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "dashboards/README.md")]
    paths += sorted((ROOT / "docs").rglob("*.md"))
    return {path: path.read_text() for path in paths}


def scripts_of(texts):
    """By name, the script of each; nothing in them is left to chance."""
    makefile = (ROOT / "Makefile").read_text()
    scripts = {}
    for name, text in texts.items():
        try:
            scripts[name] = script(text, makefile)
        except Failed as fault:
            raise Failed(f"{name}: {fault}") from None
    commands = [(name, command) for name in scripts for command in scripts[name].commands]
    for name, command in commands:
        if command.subject not in JUDGES:
            where = "tests/e2e/document_judges.py"
            raise Failed(f"{name}: nobody can judge `{command.subject}` (`{command.line}`): {where} has no judge")
    if lost := set(JUDGES) - {command.subject for _, command in commands}:
        raise Failed(f"the documents have lost {sorted(lost)}")
    return scripts


def documents_check_finds_planted_faults(_):
    admin = "chatroom.admin.v1.AdminService"
    planted = {
        "```sh\nfrobnicate --all\n```": "nobody can judge `frobnicate --all`",
        f"```sh\ngrpcurl -plaintext ADDR {admin}/Frob\n```": f"nobody can judge `grpcurl {admin}/Frob`",
        "```sh\nmake run\ncurl http://ADDR/frobs\n```": "nobody can judge `curl /frobs`",
        "```sh\nchatroom admin --json frobnicate\n```": "nobody can judge `chatroom admin frobnicate`",
        "```console\n$ make run\n```": "a block is `console`, not `sh`",
        "```sh not-run\nfrobnicate\n```": 'not `sh not-run="reason"`',
        '```sh not-run=""\nfrobnicate\n```': 'not `sh not-run="reason"`',
        "```sh\nmake frobs\n```": "the Makefile has no target frobs",
        "```sh\nmake run   # build\ncargo run -- chat \\\n  --name ann\n```": "the documents have lost",
        '```sh not-run="no frobnicator here"\nfrobnicate\n```': "the documents have lost",
    }
    for text, expected in planted.items():
        try:
            said = str(scripts_of({"planted.md": text}))
        except Failed as fault:
            said = str(fault)
        block = text.strip("`\n").replace("\n", " ⏎ ")
        ok(f"the check of documents, given {block!r}, says: {expected}", expected in said, f"it says {said}")

    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "planted.md"
        (path.parent / "other.md").write_text("# Some `code`, and words\n")
        text = "[a](other.md#some-code-and-words) [b](#here) [c](other.md#there) [d](gone.md)\n\n## Here\n"
        path.write_text(text)
        found = list(broken_links(path, text))
        ok("the check of links finds a file and a heading that are not there", found == ["other.md#there", "gone.md"], f"{found}")
    found = flags_in("`--frob`, `chatroom serve --frobs 3` and `a--b`\n\n```sh\nfrob --fenced\n```\n")
    ok("the check of flags sees those in the prose", found == {"--frob", "--frobs"}, f"{found}")


def documents_do_what_they_say(stage):
    texts = {str(path.relative_to(ROOT)): text for path, text in documents().items()}
    everything = "\n".join(texts.values())
    scripts = scripts_of(texts)
    for name, found in scripts.items():
        if found.commands:
            print(f"{name}: {len(found.commands)} commands", flush=True)
            tour = Tour(stage, everything, empty={command.subject for command in found.commands} <= ALONE)
            for command in found.commands:
                JUDGES[command.subject](tour, command)
            tour.ends()
    for name, found in scripts.items():
        for line in found.elsewhere:
            print(f"proved elsewhere: {name}: {line}")
        for block, reason in found.not_run:
            print(f"not run: {name}: {' ⏎ '.join(block.splitlines())} ({reason})")


def documents_name_what_exists(stage):
    for path, text in {**documents(), ROOT / "CHANGELOG.md": (ROOT / "CHANGELOG.md").read_text()}.items():
        broken = list(broken_links(path, text))
        ok(f"the links of {path.relative_to(ROOT)} lead somewhere", not broken, f"{broken}")

    def help_of(command):
        tool = stage.tool(CHATROOM, *command.split(), "--help")
        tool.ends(0)
        return tool.out

    everything = "\n".join(documents().values())
    known = {flag for command in COMMANDS for flag in re.findall(r"--[a-z][a-z-]+", help_of(command))} | FOREIGN_FLAGS
    unknown = flags_in(everything) - known
    ok(f"the {len(flags_in(everything))} flags that the documents name exist", not unknown, f"{sorted(unknown)}")

    serve = help_of("serve")
    for listener, address in PLACES.items():
        flag = "--listen" if listener == "chat" else f"--{listener}-listen"
        default = re.search(rf"{flag} .*?default: (\S+)\]", serve, re.DOTALL)[1]
        as_written = f"`{default}`" in everything and default.split(":")[1] == address.split(":")[1]
        ok(f"the {listener} listener of the documents is the default one, {default}", as_written)

    written = re.search(r"`chatroom admin` \((.*?)\)", everything, re.DOTALL)[1]
    written = set(re.findall(r"`(.*?)`", written))
    there = set(re.findall(r"^  ([a-z-]+)  ", help_of("admin"), re.MULTILINE)) - {"help"}
    ok(f"the documents name all commands of chatroom admin: {', '.join(sorted(there))}", written == there, f"{written}")


SCENARIOS = [documents_check_finds_planted_faults, documents_do_what_they_say, documents_name_what_exists]
