"""A coding agent's session as requests: 20 turns with tools, a sub-agent, a second session, an abort and a resend.

The shapes (keys, kinds of blocks, order, what moves and what changes from turn to turn) are those of real agents, as
measured; every word is ours. What the assistant says is written here too, so that all servers read the same.
"""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass, field
from typing import Any

Block = dict[str, Any]
VOCABULARY = (
    "the file keeps a list of every change and its reason so that a reader finds what moved between two versions "
    "when a test fails look at the smallest input first then run one part alone before you touch anything else "
    "paths are given from the root of the project and lines are counted from one a command that waits for input "
    "never ends answer with what you know and say what you do not know names tell what a value is in which unit"
)
FULL_SCALE = 1.0
"""Sizes of a real agent: about 12,000 tokens before the first answer."""
REMINDER = "<session-note>The user may send more while you work.</session-note>"


def prose(seed: str, num_characters: int) -> str:
    """Sentences of ours, about that long, the same for the same seed."""
    draw = random.Random(seed)
    vocabulary = VOCABULARY.split()
    sentences: list[str] = []
    while sum(map(len, sentences)) < num_characters:
        words = draw.choices(vocabulary, k=draw.randint(6, 18))
        sentences.append(" ".join(words).capitalize() + ".")
    return " ".join(sentences)[:num_characters].rstrip()


@dataclass
class Request:
    """One request: where it goes, what it says, and whether the client hangs up before the answer begins."""

    name: str
    body: dict[str, Any]
    session: str
    is_count: bool = False
    is_aborted: bool = False


Wave = tuple[Request, ...]
"""Requests that are sent at the same time; the next wave waits for all of them."""


@dataclass(frozen=True)
class Parameter:
    """One argument of a tool."""

    name: str
    schema: dict[str, Any]
    is_required: bool = True


TEXT = {"type": "string"}
COUNT = {"type": "integer", "minimum": 1, "maximum": 2_000}
SWITCH = {"type": "boolean", "default": False}
ITEMS = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "properties": {"content": TEXT, "status": {"type": "string", "enum": ["open", "under way", "done"]}},
        "required": ["content", "status"],
        "additionalProperties": False,
    },
}
TOOLS: dict[str, tuple[Parameter, ...]] = {
    "Agent": (Parameter("task", TEXT), Parameter("kind", {"type": "string", "enum": ["search", "plan"]})),
    "Ask": (Parameter("questions", ITEMS),),
    "Edit": (Parameter("path", TEXT), Parameter("old", TEXT), Parameter("new", TEXT), Parameter("all", SWITCH, False)),
    "FetchPage": (Parameter("address", TEXT | {"pattern": "^https?://"}), Parameter("question", TEXT)),
    "Find": (Parameter("pattern", TEXT), Parameter("path", TEXT, False), Parameter("limit", COUNT, False)),
    "FindTool": (Parameter("query", TEXT), Parameter("limit", COUNT, False)),
    "List": (Parameter("pattern", TEXT), Parameter("path", TEXT, False)),
    "Notebook": (Parameter("path", TEXT), Parameter("cell", COUNT), Parameter("source", TEXT)),
    "Plan": (Parameter("items", ITEMS),),
    "Read": (Parameter("path", TEXT), Parameter("from", COUNT, False), Parameter("lines", COUNT, False)),
    "Run": (Parameter("command", TEXT), Parameter("timeout", {"type": "number", "exclusiveMinimum": 0}, False)),
    "Write": (Parameter("path", TEXT), Parameter("content", TEXT)),
}
"""In the order of their names, as agents send them."""
DEFERRED = ("FetchPage", "Notebook")
SUB_AGENT_TOOLS = ("Find", "List", "Read")
TOOL_CHARACTERS, SYSTEM_CHARACTERS, ENVIRONMENT_CHARACTERS, RESULT_CHARACTERS = 2_400, 6_500, 9_000, 2_500


def tool(name: str, scale: float) -> Block:
    """A tool's definition."""
    parameters = TOOLS[name]
    properties = {
        parameter.name: parameter.schema | {"description": prose(f"{name}.{parameter.name}", int(160 * scale))}
        for parameter in parameters
    }
    schema = {
        "$schema": "https://json-schema.example/draft/2020-12/schema",
        "type": "object",
        "properties": properties,
        "required": [parameter.name for parameter in parameters if parameter.is_required],
        "additionalProperties": False,
    }
    made = {"name": name, "description": prose(name, int(TOOL_CHARACTERS * scale)), "input_schema": schema}
    return made | ({"defer_loading": True} if name in DEFERRED else {})


@dataclass
class Conversation:
    """One agent's side: what it sends with every request, and what has been said."""

    session: str
    system: str
    tools: list[Block]
    scale: float
    environment: str = ""
    messages: list[Block] = field(default_factory=list)
    num_sent: int = 0

    def ask(self, *blocks: Block) -> None:
        """The user, or a tool, says something."""
        self.messages.append({"role": "user", "content": list(blocks)})
        if len(self.messages) == 1 and self.environment:
            self.note(self.environment)

    def note(self, text: str) -> None:
        """The client says something beside the talk."""
        self.messages.append({"role": "system", "content": text})

    def reply(self, *blocks: Block) -> None:
        """The assistant has said something; its thinking is hidden, and comes back empty with its signature."""
        hidden = {"type": "thinking", "thinking": "", "signature": f"signed-{len(self.messages)}"}
        self.messages.append({"role": "assistant", "content": [hidden, *blocks]})

    def request(self, name: str, max_tokens: int) -> Request:
        """The next request, with all that changes from one to the next without telling the model anything."""
        self.num_sent += 1
        messages = copy.deepcopy(self.messages)
        for message in messages[:-1]:
            simplify(message)
        last = messages[-1]
        if isinstance(last["content"], str):
            last["content"] = [text(last["content"])]
        last["content"][-1]["cache_control"] = {"type": "ephemeral"}
        countdown = f"<total_tokens>{200_000 - 977 * self.num_sent} tokens left</total_tokens>"
        body = {
            "model": "local-model",
            "max_tokens": max_tokens,
            "stream": True,
            "system": self._system(),
            "tools": copy.deepcopy(self.tools),
            "messages": [*messages, {"role": "system", "content": countdown}],
            "thinking": {"type": "adaptive", "display": "omitted"},
            "output_config": {"effort": "high"},
            "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
            "metadata": {"user_id": f'{{"device_id": "d", "session_id": "{self.session}"}}'},
            "temperature": 0,
        }
        return Request(name, {key: value for key, value in body.items() if value != []}, self.session)

    def _system(self) -> list[Block]:
        billing = f"x-anthropic-billing-header: version=1.2.3.{self.num_sent:03x}; entrypoint=replay;"
        mark = {"cache_control": {"type": "ephemeral"}}
        identity = "You are an agent that works on code in a terminal."
        return [text(billing), text(identity) | mark, text(self.system) | mark]


def simplify(message: Block) -> None:
    """A message that is no longer the last loses its mark, and one block of text becomes plain text."""
    content = message["content"]
    if isinstance(content, list) and len(content) == 1 and content[0]["type"] == "text":
        message["content"] = content[0]["text"]


def text(words: str) -> Block:
    """A block of text."""
    return {"type": "text", "text": words}


def call(number: int, name: str, **arguments: Any) -> Block:
    """A call; its id is its own in the whole conversation."""
    return {"type": "tool_use", "id": f"toolu_{number:02d}", "name": name, "input": arguments}


def result(number: int, content: str | list[Block], *, is_error: bool = False) -> Block:
    """What a tool gave back."""
    made = {"type": "tool_result", "tool_use_id": f"toolu_{number:02d}", "content": content}
    return made | ({"is_error": True} if is_error else {})


class Session:
    """Plays the conversations and collects the waves of requests."""

    def __init__(self, scale: float, max_tokens: int) -> None:
        self._scale = scale
        self._max_tokens = max_tokens
        self.waves: list[Wave] = []

    def conversation(self, session: str, system: str, names: tuple[str, ...], environment: str = "") -> Conversation:
        """An agent that has said nothing yet."""
        tools = [tool(name, self._scale) for name in names]
        return Conversation(session, self.prose(system, SYSTEM_CHARACTERS), tools, self._scale, environment)

    def prose(self, seed: str, num_characters: int) -> str:
        """Text in the session's scale."""
        return prose(seed, int(num_characters * self._scale))

    def found(self, seed: str) -> str:
        """What a tool that reads gives back: numbered lines."""
        lines = self.prose(seed, RESULT_CHARACTERS).split(". ")
        return "\n".join(f"{number:>5}\t{line}" for number, line in enumerate(lines, 1))

    def send(self, *requests: Request) -> None:
        """One wave."""
        self.waves.append(requests)

    def next(self, conversation: Conversation, name: str) -> Request:
        """The conversation's next request."""
        return conversation.request(name, self._max_tokens)


def session(scale: float = FULL_SCALE, max_tokens: int = 16) -> list[Wave]:
    """All waves of the session; `scale` shortens its texts, `max_tokens` bounds each answer."""
    play = Session(scale, max_tokens)
    environment = "Environment\n" + play.prose("environment", ENVIRONMENT_CHARACTERS)
    agent = play.conversation("session-1", "rules", tuple(TOOLS), environment)
    agent.ask(text(REMINDER), text("Why does the import of a broken list lose its last line?"))
    play.send(play.next(agent, "1 question"), title_request(agent))
    count = play.next(agent, "count")
    count.is_count = True
    play.send(count)
    first_task(play, agent)
    second_task(play, agent)
    third_task(play, agent)
    fourth_task(play, agent)
    second_session(play, environment)
    agent.reply(text("It is all in the summary above."))
    agent.ask(text("And what would you do next?"))
    play.send(play.next(agent, "20 first session again"))
    return play.waves


def title_request(agent: Conversation) -> Request:
    """What an interactive agent asks beside its first turn: no tools, and an answer that fits a schema."""
    schema = {"type": "object", "properties": {"title": TEXT}, "required": ["title"], "additionalProperties": False}
    body = {
        "model": "small-model",
        "max_tokens": 32,
        "stream": True,
        "system": [text("Give the talk a title of at most six words.")],
        "messages": [{"role": "user", "content": [text("Why does the import lose its last line?")]}],
        "output_config": {"format": {"type": "json_schema", "schema": schema}},
        "temperature": 0,
    }
    return Request("1 title", body, agent.session)


def first_task(play: Session, agent: Conversation) -> None:
    """A call, two calls at once, an edit, an answer."""
    agent.reply(text("I look at the importer."), call(1, "Read", path="src/importer.py"))
    agent.ask(result(1, play.found("importer")))
    play.send(play.next(agent, "2 one result"))
    agent.reply(call(2, "Find", pattern="last_line"), call(3, "List", pattern="tests/*.py"))
    agent.ask(result(2, [text(play.found("matches"))]), result(3, "tests/test_importer.py\ntests/test_lists.py"))
    play.send(play.next(agent, "3 two results"))
    agent.reply(
        text("The loop ends too early."), call(4, "Edit", path="src/importer.py", old="lines[:-1]", new="lines")
    )
    agent.ask(result(4, "1 place changed"))
    play.send(play.next(agent, "4 edited"))
    agent.reply(call(5, "Run", command="python -m pytest tests/test_importer.py", timeout=60.5))
    agent.ask(result(5, play.found("failure"), is_error=True))
    play.send(play.next(agent, "5 a tool failed"))
    agent.reply(text("One test expects the old behaviour; shall I change it?"))


def second_task(play: Session, agent: Conversation) -> None:
    """A tool that was left out is looked for and used; a note comes in between."""
    agent.ask(text("Yes. Look up first how the format is described."))
    agent.note("The list of tasks has not been used for a while; ignore this if it is of no use.")
    play.send(play.next(agent, "6 note in between"))
    agent.reply(call(6, "FindTool", query="fetch a page"))
    agent.ask(result(6, [{"type": "tool_reference", "tool_name": "FetchPage"}]))
    play.send(play.next(agent, "7 tool found"))
    agent.reply(call(7, "FetchPage", address="http://docs.example/lists", question="How does a list end?"))
    agent.ask(result(7, play.found("page")))
    play.send(play.next(agent, "8 found tool used"))
    agent.reply(text("A list ends with its last line."), call(8, "Edit", path="tests/t.py", old="2", new="3"))
    agent.ask(result(8, "1 place changed"))
    play.send(play.next(agent, "9 edited"))
    agent.reply(text("Done: the test expects all lines now."))


def third_task(play: Session, agent: Conversation) -> None:
    """A sub-agent with rules of its own works beside the main one."""
    helper = play.conversation("session-1", "rules of the helper", SUB_AGENT_TOOLS)
    helper.ask(text("Find every caller of the importer. " + play.prose("task", 600)))
    agent.ask(text("Who else calls the importer? Meanwhile run all the tests."))
    play.send(play.next(agent, "10 third question"))
    agent.reply(
        call(9, "Agent", task="Find every caller of the importer.", kind="search"), call(10, "Run", command="m")
    )
    agent.ask(result(9, "It has started."), result(10, play.found("tests")))
    play.send(play.next(agent, "11 beside helper"), play.next(helper, "11 helper"))
    helper.reply(call(1, "Find", pattern="import_list"))
    helper.ask(result(1, play.found("callers")))
    agent.reply(text("All tests pass."), call(11, "Plan", items=[{"content": "callers", "status": "open"}]))
    agent.ask(result(11, "noted"))
    play.send(play.next(agent, "12 beside helper"), play.next(helper, "12 helper"))
    helper.reply(call(2, "Read", path="src/cli.py"))
    helper.ask(result(2, play.found("cli")))
    agent.reply(call(12, "Read", path="src/lists.py", lines=200))
    agent.ask(result(12, play.found("lists")))
    play.send(play.next(agent, "13 beside helper"), play.next(helper, "13 helper"))
    agent.reply(text("The helper has found two callers."))


def fourth_task(play: Session, agent: Conversation) -> None:
    """A long result whose request is given up while it is read, the same request again, and the day changes."""
    agent.ask(text("Write down what we changed."))
    play.send(play.next(agent, "14 fourth question"))
    agent.reply(call(13, "Run", command="git diff"))
    agent.ask(result(13, play.found("diff") + "\n" + play.found("more of the diff")))
    given_up = play.next(agent, "15 given up")
    given_up.is_aborted = True
    play.send(given_up)
    again = copy.deepcopy(given_up)
    again.name, again.is_aborted = "15 sent again", False
    play.send(again)
    agent.reply(call(14, "Write", path="CHANGES.md", content=play.prose("changes", 500)))
    agent.ask(result(14, "written"))
    agent.note("The date has changed. It is now the next day.")
    play.send(play.next(agent, "16 a new day"))
    agent.reply(text("I read it once more."), call(15, "Read", path="CHANGES.md"))
    agent.ask(result(15, play.prose("changes", 500)))
    play.send(play.next(agent, "17 read"))
    agent.reply(text("It is written down. " + play.prose("summary", 400)))


def second_session(play: Session, environment: str) -> None:
    """The same agent in the same folder, asked something else."""
    agent = play.conversation("session-2", "rules", tuple(TOOLS), environment)
    agent.ask(text(REMINDER), text("Which tests are slow?"))
    play.send(play.next(agent, "18 second session"))
    agent.reply(call(1, "Run", command="python -m pytest --durations=5"))
    agent.ask(result(1, play.found("durations")))
    play.send(play.next(agent, "19 second session"))
