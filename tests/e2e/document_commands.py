"""The commands that are written in documents, and what else in them can be wrong.

Promises: a block that would not be run, and does not say why, is a failure.
Does not know: what a command is to do.
"""

import json
import pathlib
import re
import shlex
from collections import namedtuple

from processes import Failed

# What is run (the tool, and the method or path that it is for), the line itself, and the object after -d.
Command = namedtuple("Command", "subject line data")
# What one document, or several, has: commands to run, lines that are proved elsewhere, and pairs of a block and its reason.
Script = namedtuple("Script", "commands elsewhere not_run")

FENCED = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]*)(#[^)\s]*)?\)")
INLINE_CODE = re.compile(r"`([^`\n]+)`")


def script(text, makefile):
    """What is to be done with the blocks of a document that are for a shell."""
    found = Script([], [], [])
    for info, block in FENCED.findall(text):
        language, _, reason = info.strip().partition(" ")
        if language in ("", "bash", "shell", "console", "zsh"):
            raise Failed(f"a block is `{language}`, not `sh`, and would not be run: {block}")
        if language != "sh":
            continue
        if reason:
            if not (given := re.fullmatch(r'not-run="([^"]+)"', reason)):
                raise Failed(f'a block is `sh {reason}`, which is not `sh not-run="reason"`: {block}')
            found.not_run.append((block.strip(), given[1]))
            continue
        for line in filter(None, block.replace("\\\n", " ").split("\n")):
            words = shlex.split(line, comments=True)
            if words and words[0] in ("make", "cargo", "docker"):
                found.elsewhere.append(shlex.join(words))
                target = words[1] if words[0] == "make" else None
                if target and not re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE):
                    raise Failed(f"the Makefile has no target {target} (`{line}`)")
            elif words:
                found.commands.append(parsed(line, words))
    return found


def parsed(line, words):
    match words:
        case ["grpcurl", *_, "describe", _]:
            subject = "grpcurl describe"
        case ["grpcurl", *_, method]:
            subject = f"grpcurl {method}"
        case ["buf", "curl", *_, url]:
            subject = f"buf curl {path_of(url)[1:]}"
        case ["curl", *_, url]:
            subject = f"curl {path_of(url)}"
        case ["chatroom", "admin", *rest]:
            subject = f"chatroom admin {next((word for word in rest if not word.startswith('-')), '')}"
        case ["chatroom", command, *_]:
            subject = f"chatroom {command}"
        case _:
            subject = line
    return Command(subject, line, documents(words[words.index("-d") + 1]) if "-d" in words else {})


def documents(text):
    """The JSON document in a text, or the list of those that are there one after the other."""
    found, decoder = [], json.JSONDecoder()
    while text := text.strip():
        document, end = decoder.raw_decode(text)
        found.append(document)
        text = text[end:]
    return found if len(found) > 1 else found[0]


def path_of(url):
    return re.sub(r"^https?://[^/]+", "", url)


def broken_links(path, text):
    """The links of a document to files that are not there, or to headings that those do not have."""
    for target, anchor in LINK.findall(FENCED.sub("", text)):
        if re.match(r"[a-z]+:", target):
            continue
        file = (path.parent / target) if target else path
        if not file.exists():
            yield target
        elif anchor and anchor[1:] not in headings(text if file == path else pathlib.Path(file).read_text()):
            yield target + anchor


def headings(text):
    """As links name them: GitHub's way."""
    titles = re.findall(r"^#+ (.*)$", FENCED.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def flags_in(text):
    """The flags that a document names in its prose."""
    return {flag for code in INLINE_CODE.findall(FENCED.sub("", text)) for flag in re.findall(r"(?<!\S)--[a-z][a-z-]+", code)}
