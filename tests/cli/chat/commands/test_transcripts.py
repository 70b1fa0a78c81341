"""Whole transcripts: what is typed and what is shown, over every command, on the scripted backend."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pensieve.cli.chat.commands.all import TABLE
from pensieve.conversation.choices import Choices
from pensieve.conversation.store import ConversationStore
from pensieve.inference.script import Fail, Say, Script, Turn
from pensieve.messages import TextPart, say
from talks import Talk, talking

Start = Callable[..., Talk]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts chats in one folder; all are closed at the end."""
    monkeypatch.chdir(tmp_path)
    with ExitStack() as stack:
        yield lambda *scripts, system="": stack.enter_context(talking(tmp_path / "home", *scripts, system=system))


def squeezed(text: str) -> str:
    """The text with each run of blanks as one, and times of the day left out."""
    return re.sub(r"\d+ (s|min) ago", "now", re.sub(r" +", " ", text))


def test_help_shows_every_command(start: Start) -> None:
    """Each with its summary, from the table."""
    shown = start().say("/help")
    for command in TABLE.commands:
        assert f"/{command.name} {command.usage}".rstrip() in shown
        assert command.summary in shown
    assert "Ctrl-D" in shown


def test_help_explains_one_command(start: Start) -> None:
    """With its aliases, and the nearest name for one that is none."""
    talk = start()
    assert talk.say("/help exit") == "/exit\nLeave; the conversation is kept.\nalso: /quit, /q, /bye"
    assert "did you mean /save?" in talk.say("/help saev") or "did you mean" in talk.say("/help histroy")


def test_an_unknown_command_is_told_and_not_sent(start: Start) -> None:
    """With the nearest one, and with how to send it as text."""
    talk = start()
    shown = talk.say("/histroy 5")
    assert (
        shown == "there is no command /histroy: did you mean /history? /help shows them all; //histroy sends it as text"
    )
    assert talk.backend.counts.accepted == 0
    assert talk.say("//histroy 5") == "One."
    assert talk.backend.requests[0].messages == (say("user", "/histroy 5"),)


def test_history_shows_what_was_said(start: Start) -> None:
    """Questions and answers in order, or the last of them."""
    talk = start()
    assert talk.say("/history") == "error: nothing was said yet in this conversation; /list shows older ones"
    assert talk.say("first", "second") == "One.\nTwo."
    assert talk.say("/history") == "> first\nOne.\n> second\nTwo."
    assert talk.say("/history 1") == "(1 older turn)\n> second\nTwo."
    assert "is not a number" in talk.say("/history all")


def test_clear_begins_anew_and_keeps_the_old_one(start: Start) -> None:
    """Which can be opened again."""
    talk = start()
    talk.say("first")
    assert talk.say("/clear") == "a new conversation; the old one is kept, /open 1 goes back to it"
    talk.say("second")
    assert talk.backend.requests[-1].messages == (say("user", "second"),)
    assert talk.say("/open 1") == "going on with 1: first (1 turn)\n> first\nOne."


def test_undo_and_fork_go_back_and_forth(start: Start) -> None:
    """Nothing is lost by it."""
    talk = start()
    talk.say("first", "second")
    assert talk.say("/undo") == "taken back: second (/fork 2 brings it back)"
    talk.say("third")
    assert talk.backend.requests[-1].messages == (say("user", "first"), say("assistant", "One."), say("user", "third"))
    assert squeezed(talk.say("/fork")) == (
        "TURN WHERE QUESTION\n1 this branch first\n2 another branch end second\n3 here end third"
    )
    assert talk.say("/fork 2", "/history") == "going on after: second\n> first\nOne.\n> second\nTwo."
    assert "this conversation has no turn 9" in talk.say("/fork 9")


def test_undo_takes_back_several_turns(start: Start) -> None:
    """Until there is none."""
    talk = start()
    talk.say("first", "second")
    assert talk.say("/undo 0") == "error: /undo takes a number above 0"
    assert (
        talk.say("/undo 3").splitlines()[-1] == "error: nothing was said yet in this conversation: ask something first"
    )
    assert talk.say("third") == "Three."
    assert talk.backend.requests[-1].messages == (say("user", "third"),)


def test_retry_asks_again(start: Start) -> None:
    """The old answer stays a branch."""
    talk = start()
    assert talk.say("first", "/retry") == "One.\nTwo."
    assert talk.backend.requests[-1].messages == (say("user", "first"),)
    assert talk.say("/history") == "> first\nTwo."


def test_a_failed_answer_is_told_and_retry_sends_it(start: Start) -> None:
    """What came of it is not lost either."""
    broken = Turn(steps=(Say("half"), Fail("BackendFailure", {"problem": "it broke"})))
    talk = start(Script(turns=(broken, Turn(steps=(Say("whole"),)))))
    assert talk.say("first") == "half\nerror: it broke (/retry asks again)"
    assert talk.say("/history") == "> first\nhalf\n(stopped)"
    assert talk.say("/retry", "/history") == "whole\n> first\nwhole"


def test_a_crash_is_seen_and_explained(start: Start) -> None:
    """The answer is begun anew by itself."""
    crash = Fail("WorkerCrashed", {"model": "scripted", "exit_status": "killed"})
    talk = start(Script(turns=(Turn(steps=(Say("half"), crash)), Turn(steps=(Say("whole"),)))))
    assert talk.say("first") == "half\nwarning: the worker of scripted ended (killed): trying once more\nwhole"


def make_writable(talk: Talk, *, is_writable: bool) -> None:
    """Let the file take things or not, as a disk that is full or read-only."""
    pragma = f"PRAGMA query_only = {'OFF' if is_writable else 'ON'}"
    talk.loop.run(talk.archive.do(lambda store: store._database._connection.execute(pragma)))


def test_questions_that_cannot_be_kept_wait_and_are_counted(start: Start) -> None:
    """None takes the place of another; what to do is said each time."""
    talk = start()
    talk.say("first")
    make_writable(talk, is_writable=False)
    assert talk.say("second").endswith("look at the file, its folder and the disk (/retry asks again)")
    both = "2 questions wait that could not be kept: /retry asks the first of them, /undo takes the last back"
    assert talk.say("third").endswith(f"({both})")
    assert "waiting 2 questions" in squeezed(talk.say("/info"))
    make_writable(talk, is_writable=True)
    one = "(1 question waits that could not be kept: /retry asks it, /undo takes it back)"
    assert talk.say("/retry") == f"Two.\n{one}"
    assert talk.say("/edit better") == "Three."
    assert talk.say("/history").count("> ") == 3
    assert "> better" in talk.say("/history")


def test_questions_that_wait_are_taken_back_or_kept_when_the_chat_ends(start: Start, tmp_path: Path) -> None:
    """Unanswered, as branches; or shown, where they still cannot be kept."""
    talk = start()
    talk.say("first")
    make_writable(talk, is_writable=False)
    (tmp_path / "one.txt").write_text("words of a file")
    talk.say("second", "third", "/attach one.txt", "fourth")
    assert talk.say("/undo") == "taken back: fourth, with one.txt (it was not kept)"
    *_, warned, second, third = talk.leave().splitlines()
    assert warned.endswith("2 questions could not be kept:")
    assert (second, third) == ("second", "third")
    make_writable(talk, is_writable=True)
    assert talk.leave() == ""
    with ConversationStore(talk.archive.path) as store:
        assert [turn.text for turn in store.open(1).turns] == ["first\n\nOne.", "second", "third"]


def test_an_answer_that_could_not_be_kept_is_kept_when_the_chat_ends(start: Start) -> None:
    """Or it is said that it could not."""
    talk = start()
    talk.loop.run(talk.session.put("first"))
    make_writable(talk, is_writable=False)
    talk.say("/retry")
    assert talk.leave().endswith("An answer could not be kept: copy it from above if you want it")
    make_writable(talk, is_writable=True)
    assert talk.leave() == ""
    with ConversationStore(talk.archive.path) as store:
        assert [turn.text for turn in store.open(1).turns] == ["first\n\nOne."]


def test_a_system_text_that_could_not_be_kept_is_kept_with_the_next_question(start: Start) -> None:
    """The model is told so meanwhile."""
    talk = start()
    talk.say("first")
    make_writable(talk, is_writable=False)
    assert "look at the file" in talk.say("/system Be kind.")
    make_writable(talk, is_writable=True)
    talk.say("second")
    assert talk.backend.requests[-1].messages[0] == say("system", "Be kind.")
    with ConversationStore(talk.archive.path) as store:
        assert store.open(1).system == "Be kind."


def test_what_to_do_is_said_once_and_in_the_words_of_the_chat(start: Start) -> None:
    """Behind a crash, a conversation that is not here or that was deleted elsewhere, and a failure beside a wait."""
    crash = Fail("WorkerCrashed", {"model": "scripted", "exit_status": "killed"})
    broken = Turn(steps=(Fail("BackendFailure", {"problem": "it broke"}),))
    talk = start(Script(turns=(Turn(steps=(crash,), contains="first"), broken)))
    ended = "error: the worker of scripted ended (killed); it restarts by itself (/retry asks again)"
    assert talk.say("first").splitlines()[-1] == ended
    for command in ("/open 9", "/delete 9"):
        assert talk.say(command) == "error: conversation 9 is not here: /list shows what is"
    make_writable(talk, is_writable=False)
    talk.say("second")
    make_writable(talk, is_writable=True)
    one = "(1 question waits that could not be kept: /retry asks it, /undo takes it back)"
    assert talk.say("third") == f"error: it broke {one}"
    talk.say("/undo")
    with ConversationStore(talk.archive.path) as store:
        store.delete(1)
    assert talk.say("fourth").endswith("/new begins another, and /retry then asks there")


def test_edit_puts_the_question_otherwise(start: Start) -> None:
    """In the line, or in an editor; what was left as it was is not sent."""
    talk = start()
    assert talk.say("first", "/edit better") == "One.\nTwo."
    assert talk.backend.requests[-1].messages == (say("user", "better"),)
    talk.replies.append("best")
    assert talk.say("/edit") == "(editing better)\nThree."
    assert talk.say("/edit") == "(editing best)\nthe question was left as it was"


def test_compact_lets_a_summary_stand_for_what_was_said(start: Start) -> None:
    """The history keeps everything."""
    talk = start(Script.saying("One.", "They counted to one.", "Two."))
    assert talk.say("first", "/compact", "second") == "One.\nThey counted to one.\nTwo."
    assert [message.text for message in talk.backend.requests[-1].messages[1:]] == ["They counted to one.", "second"]
    shown = talk.say("/history")
    summed = "(from here on a summary stands for what is above it)\nThey counted to one."
    assert shown == f"> first\nOne.\n{summed}\n> second\nTwo."


def test_a_summary_is_no_question_to_edit(start: Start) -> None:
    """That is said before an editor is opened, whose text would be lost."""
    talk = start()
    talk.say("first", "/compact")
    told = "error: the last turn is a summary: /undo takes it back, /compact makes another"
    assert (talk.say("/edit"), talk.say("/edit other words")) == (told, told)


def test_copy_takes_the_answer_or_its_code(start: Start) -> None:
    """And says how much."""
    talk = start(Script.saying("Look:\n```python\nprint(1)\n```\nDone."))
    assert talk.say("/copy") == "error: there is no answer to copy yet"
    talk.say("first")
    assert talk.say("/copy", "/copy code") == "copied 34 characters\ncopied 9 characters"
    assert talk.screen.copied == ["Look:\n```python\nprint(1)\n```\nDone.", "print(1)\n"]


def test_kept_conversations_are_listed_found_named_and_deleted(start: Start) -> None:
    """After asking."""
    talk = start()
    talk.say("the first one", "/new", "another question", "/rename Gull")
    assert squeezed(talk.say("/list")).replace("\n ", "\n").lstrip() == (
        "ID TITLE TURNS MODEL CHANGED\n* 2 Gull 1 turn scripted now\n1 the first one 1 turn scripted now"
    )
    assert squeezed(talk.say("/search first")).splitlines()[1].startswith("1 now the first one")
    assert talk.say("/search nowhere") == "error: nothing was found: fewer or other words may help"
    assert talk.say("/delete 1").splitlines()[-1] == "nothing was deleted"
    talk.replies.append("y")
    assert talk.say("/delete 1") == "Delete the first one with 1 turn? It cannot be brought back. y\ndeleted"
    assert "1 the first one" not in squeezed(talk.say("/list"))
    assert talk.say("/open 1").startswith("error: ")


def test_a_conversation_that_another_program_deleted_is_told(start: Start) -> None:
    """What was typed waits for the next one."""
    talk = start()
    talk.say("first")
    with ConversationStore(talk.archive.path) as store:
        store.delete(1)
    assert "another program deleted this conversation" in talk.say("second")
    assert talk.say("/new", "/retry").splitlines()[-1] == "Two."
    assert talk.backend.requests[-1].messages == (say("user", "second"),)


def test_who_answered_before_is_told(start: Start) -> None:
    """Where it is another one now."""
    talk = start()
    talk.say("first")
    with ConversationStore(talk.archive.path) as store:
        store.append(1, [say("user", "Well?")], model="other")
    assert "(other answered there, scripted does now; /model changes that)" in talk.say("/open 1")


def test_another_model_takes_over_in_mid_conversation(start: Start) -> None:
    """It is sent all that was said; the old one stays where the new one is not here."""
    talk = start(Script.saying("One."), Script(model="other", turns=(Turn(steps=(Say("From the other."),)),)))
    talk.say("first")
    assert talk.say("/model") == "scripted, own worker (script)"
    assert "nobody is not here" in talk.say("/model nobody")
    shown = talk.say("/model other").splitlines()
    assert shown[-1] == "other answers now, own worker"
    assert any(line.startswith("other is there after") for line in shown)
    assert talk.say("second") == "From the other."
    assert talk.backends["other"].requests[-1].messages[:2] == (say("user", "first"), say("assistant", "One."))
    assert talk.backends["scripted"].is_closed
    assert talk.say("/model other") == "other answers already"
    assert [turn.model for turn in talk.session.turns] == ["scripted", "other"]


def test_what_the_model_is_told_can_be_changed(start: Start) -> None:
    """By a text, a preset's name, or to nothing."""
    talk = start(system="Be brief.")
    assert talk.say("/system") == "Be brief."
    talk.say("/system Be kind.", "first")
    assert talk.backend.requests[-1].messages[0] == say("system", "Be kind.")
    assert talk.say("/system concise") == "the preset concise holds from now on"
    assert talk.say("/system none", "/system") == (
        "the model is told nothing from now on\nthe model is told nothing; /system TEXT tells it something"
    )


def test_a_preset_brings_words_and_sampling(start: Start) -> None:
    """With its variables; the next preset puts other ones in their place."""
    talk = start()
    assert talk.say("/preset translator language=Latin") == "the preset translator holds from now on"
    talk.say("first")
    request = talk.backend.requests[-1]
    assert "into Latin" in request.messages[0].text
    assert request.sampling.temperature == 0.2
    talk.say("/preset default", "second")
    assert talk.backend.requests[-1].sampling.temperature is None
    assert squeezed(talk.say("/preset")).count("\n") == 6
    assert "did you mean coder?" in talk.say("/preset cder")


def test_numbers_that_were_chosen_are_told_whole(start: Start) -> None:
    """A seed has many digits; and what is no number is none."""
    talk = start()
    assert talk.say("/set seed null") == "error: seed: null is not a number"
    talk.say("/set seed 1234567890", "/set max_tokens 1234567", "first", "/new")
    assert "as chosen: seed 1234567890, max_tokens 1234567;" in talk.say("/open 1")


def test_parameters_are_set_and_shown(start: Start) -> None:
    """Within their bounds."""
    talk = start()
    assert talk.say("/set temperature 0.9", "/set max-tokens=50") == (
        "temperature is 0.9 from now on\nmax_tokens is 50 from now on"
    )
    talk.say("first")
    assert (talk.backend.requests[-1].sampling.temperature, talk.backend.requests[-1].max_tokens) == (0.9, 50)
    assert "temperature 0.9 set" in squeezed(talk.say("/params"))
    assert talk.say("/set temperature 99") == "error: temperature: 99.0 is out of range: 0 to 5"
    assert talk.say("/set temperature warm") == "error: temperature: warm is not a number"
    assert "there is no parameter warmth" in talk.say("/set warmth 1")
    talk.say("/set temperature none", "second")
    assert talk.backend.requests[-1].sampling.temperature is None


def test_a_conversation_brings_its_preset_and_parameters_back(start: Start) -> None:
    """In another chat, with one line that says so; what was not chosen is as that chat's settings say."""
    first = start()
    first.say("/preset translator language=Latin", "/set top_k 3", "/think off", "hello")
    later = start(system="Be brief.")
    told = "as chosen: preset translator, temperature 0.2, top_k 3, thinking off; /params shows all"
    assert told in later.say("/open 1").splitlines()
    later.say("again")
    first_request, request = first.backend.requests[-1], later.backend.requests[-1]
    assert (request.sampling, request.thinking) == (first_request.sampling, first_request.thinking)
    assert "into Latin" in request.messages[0].text
    assert "preset translator" in squeezed(later.say("/info"))


def test_what_was_chosen_stays_with_its_own_conversation(start: Start) -> None:
    """Another one that is opened is asked as the settings say, and a choice is kept at once."""
    talk = start()
    talk.say("first", "/new", "/set temperature 0.9", "second")
    assert "as chosen" not in talk.say("/open 1")
    talk.say("third")
    assert talk.backend.requests[-1].sampling.temperature is None
    talk.say("/set max_tokens 7")
    assert talk.say("/set max_tokens default") == "max_tokens is as your settings say from now on"
    assert talk.say("/set temperature none") == "temperature is left to the model from now on"
    assert "as chosen: temperature 0.9;" in talk.say("/open 2")
    with ConversationStore(talk.archive.path) as store:
        assert store.open(1).choices == Choices(none=("temperature",))


def test_a_preset_that_is_gone_is_told_and_breaks_nothing(start: Start, tmp_path: Path) -> None:
    """Its words and its sampling were kept with the conversation."""
    (tmp_path / "home" / "prompts").mkdir(parents=True)
    (file := tmp_path / "home" / "prompts" / "sailor.md").write_text("---\ntemperature: 1.5\n---\nAhoy.")
    talk = start()
    talk.say("/preset sailor", "first")
    file.unlink()
    shown = talk.say("/open 1")
    assert "as chosen: preset sailor, temperature 1.5;" in shown
    assert "warning: the preset sailor is not here any more" in shown
    talk.say("second")
    assert talk.backend.requests[-1].messages[0].text == "Ahoy."
    assert talk.backend.requests[-1].sampling.temperature == 1.5


def test_choices_go_with_a_branch_and_with_a_file(start: Start) -> None:
    """What is saved and loaded elsewhere is asked in the same way."""
    talk = start()
    talk.say("/preset coder", "first", "/retry", "/fork 1")
    assert "preset coder" in squeezed(talk.say("/info"))
    talk.say("/save kept")
    with ConversationStore(talk.archive.path) as store:
        store.delete(1)
    shown = start().say("/load kept.json").splitlines()
    assert shown == ["loaded first (1 turn)", "as chosen: preset coder, temperature 0.2; /params shows all"]


def test_thinking_is_asked_for(start: Start) -> None:
    """Or not, or within a budget."""
    talk = start()
    assert talk.say("/think on", "/think 500", "/think off") == (
        "thinking: on\nthinking: at most 500 tokens\nthinking: off"
    )
    talk.say("first")
    thinking = talk.backend.requests[-1].thinking
    assert thinking is not None
    assert thinking.mode == "disabled"
    assert "is neither on, off nor a number" in talk.say("/think hard")


def test_info_stats_tokens_and_debug_tell(start: Start) -> None:
    """Of this chat and of all."""
    talk = start(system="Be brief.")
    talk.say("first question")
    info = squeezed(talk.say("/info"))
    assert "model scripted\nwhere own worker\nengine script\ncontext 5 of 32,768 tokens" in info
    assert "conversation 1: first question" in info
    assert "answer tokens 1 1" in squeezed(talk.say("/stats"))
    assert "prompt so far 5" in squeezed(talk.say("/tokens"))
    assert talk.say("/tokens three little words") == "3 tokens"
    assert '"first question"' in talk.say("/debug")
    assert squeezed(start(system="word " * 50).say("/info")).count("word...") == 1
    assert "available" in talk.say("/memory")
    assert "no colours here" in talk.say("/theme dark")


def test_files_are_attached_to_the_next_message(start: Start, tmp_path: Path) -> None:
    """With sizes and tokens, once."""
    (tmp_path / "one.txt").write_text("words of a file")
    (tmp_path / "two.txt").write_text("more")
    talk = start()
    assert talk.say("/attach one.txt").startswith("attached one.txt: 15 bytes, ")
    assert squeezed(talk.say("/attach t*.txt")).startswith("attached two.txt: 4 bytes")
    assert talk.say("/attach") == "attached: one.txt, two.txt; /attach clear takes it out again"
    talk.say("what is in them?", "next")
    parts = talk.backend.requests[0].messages[-1].parts
    assert [getattr(part, "data", b"") for part in parts] == [b"words of a file", b"more", b""]
    assert talk.backend.requests[1].messages[-1].parts == (TextPart("next"),)
    asked = "> what is in them?\n(with one.txt, two.txt)\nOne."
    assert talk.say("/history") == f"{asked}\n> next\nTwo."
    assert asked in talk.say("/undo", "/open 1")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"a\0b", "is not a text: only texts and PDFs"),
        (b"\xff\xfe\xfa", "is not a text in UTF-8"),
        (b"", "is empty"),
        (b"\x89PNG\r\n\x1a\nx", "is an image: /image"),
    ],
)
def test_what_cannot_be_attached_is_refused(start: Start, tmp_path: Path, content: bytes, problem: str) -> None:
    """With what it is."""
    (tmp_path / "odd.bin").write_bytes(content)
    talk = start()
    assert problem in talk.say("/attach odd.bin")
    assert "there is no file nowhere.txt" in talk.say("/attach nowhere.txt")
    assert "no file is called like *.none" in talk.say("/attach *.none")
    assert f"{tmp_path.name} is a folder" in talk.say(f"/attach {tmp_path}")


def test_a_large_file_is_asked_about(start: Start, tmp_path: Path) -> None:
    """And attached with a yes."""
    (tmp_path / "large.txt").write_text("word " * 50)
    script = Script(turns=(Turn(steps=(Say("ok"),), prompt_tokens=50),), context_tokens=100)
    talk = start(script)
    assert talk.say("/attach large.txt").splitlines() == [
        "large.txt takes 50 tokens, 50% of the context. Attach it? ",
        "nothing was attached: large.txt takes 50 tokens, 50% of the context",
    ]
    talk.replies.append("y")
    assert "attached large.txt" in talk.say("/attach large.txt")


def test_an_image_needs_a_model_that_sees(start: Start, tmp_path: Path) -> None:
    """Else it is refused before anything is sent."""
    (tmp_path / "dot.png").write_bytes(b"\x89PNG\r\n\x1a\nx")
    (tmp_path / "no.png").write_bytes(b"nothing")
    seeing = start(Script(turns=(Turn(steps=(Say("A dot."),)),), capabilities=("images",)))
    assert seeing.say("/image dot.png", "what is it?").splitlines()[-1] == "A dot."
    assert seeing.backend.requests[0].messages[0].parts[0].media_type == "image/png"  # type: ignore[union-attr]
    assert "is not an image" in seeing.say("/image no.png")
    assert "cannot see images" in start().say("/image dot.png")


def test_a_conversation_is_saved_and_loaded(start: Start, tmp_path: Path) -> None:
    """With all its branches; nothing is overwritten unasked."""
    talk = start()
    assert talk.say("/save") == "error: nothing was said yet in this conversation: ask something first"
    talk.say("first words?", "/retry")
    assert talk.say("/save").startswith("wrote first-words.json (")
    before = (tmp_path / "first-words.json").read_bytes()
    assert talk.say("/save first-words").splitlines()[-1].startswith("nothing was written: first-words.json")
    talk.replies.append("y")
    assert talk.say("/save first-words.json").startswith("first-words.json is there already. Overwrite it? y\nwrote ")
    assert (tmp_path / "first-words.json").read_bytes() == before
    known = "first words? is here already, as 1: going on with it (1 turn)"
    assert talk.say("/new", "/load first-words.json").splitlines()[-1] == known
    with ConversationStore(talk.archive.path) as store:
        store.delete(1)
    assert talk.say("/load first-words.json") == "loaded first words? (1 turn)"
    assert talk.say("/history") == "> first words?\nTwo."
    assert len(talk.session.conversation.turns) == 2  # type: ignore[union-attr]
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["first-words.json"]


def test_a_file_that_is_loaded_twice_is_here_once(start: Start, tmp_path: Path) -> None:
    """Gone on with where it was saved; what was said since stays a branch, and a changed file is a new one."""
    talk = start()
    talk.say("first", "/save kept", "second")
    went_on = "(it went on here since: /fork shows how, and leads there)"
    shown = talk.say("/load kept.json").splitlines()
    assert shown == ["first is here already, as 1: going on with it (1 turn)", went_on]
    assert [turn.text for turn in talk.session.conversation.turns] == ["first\n\nOne.", "second\n\nTwo."]  # type: ignore[union-attr]
    file = tmp_path / "kept.json"
    file.write_text(file.read_text().replace("One.", "Eleven."))
    changed = "loaded first (1 turn) as 2, a new one: another state of it is here already"
    assert talk.say("/load kept.json") == changed
    assert talk.say("/load kept.json") == "first is here already, as 2: going on with it (1 turn)"


def test_what_cannot_be_loaded_or_written_is_told(start: Start, tmp_path: Path) -> None:
    """And changes nothing."""
    (tmp_path / "odd.json").write_text("[1, 2")
    talk = start()
    talk.say("first")
    assert "odd.json cannot be imported" in talk.say("/load odd.json")
    assert talk.say("/load none.json") == "error: there is no file none.json"
    assert "is a folder" in talk.say(f"/save {tmp_path}")
    assert "cannot be written" in talk.say("/save nowhere/deep.json")
    assert talk.say("/history") == "> first\nOne."


@pytest.mark.parametrize("name", ["long" * 99, "zero\0byte", "circle.json", "pipe"])
@pytest.mark.parametrize("command", ["/save", "/export md", "/load", "/attach", "/image"])
def test_a_strange_name_is_told(start: Start, tmp_path: Path, command: str, name: str) -> None:
    """As any other that cannot be used; what is no plain file is not replaced by one."""
    (tmp_path / "circle.json").symlink_to("circle.json")
    os.mkfifo(tmp_path / "pipe")
    talk = start(Script(turns=(Turn(steps=(Say("One."),)),), capabilities=("images",)))
    talk.say("first")
    talk.replies.append("y")
    *_, last = talk.say(f"{command} {name}").splitlines()
    assert last.startswith("error: ")
    assert "bug" not in last
    assert (tmp_path / "pipe").is_fifo()


def test_a_link_stays_a_link(start: Start, tmp_path: Path) -> None:
    """What it leads to is written, as long as a name may be."""
    target = tmp_path / ("n" * 250 + ".json")
    target.touch()
    (tmp_path / "link.json").symlink_to(target)
    talk = start()
    talk.say("first")
    talk.replies.append("y")
    assert "wrote link.json" in talk.say("/save link.json")
    assert (tmp_path / "link.json").is_symlink()
    assert target.read_bytes().startswith(b"{")


@pytest.mark.parametrize(
    ("form", "beginning"), [("md", b"# first"), ("txt", b"first"), ("html", b"<!doctype"), ("json", b"{")]
)
def test_a_conversation_is_exported(start: Start, tmp_path: Path, form: str, beginning: bytes) -> None:
    """In each form, said or by the file's ending."""
    talk = start()
    talk.say("first")
    assert talk.say(f"/export {form} out.x", f"/export out.{form}").count("wrote out.") == 2
    content = (tmp_path / "out.x").read_bytes()
    assert content.lower().startswith(beginning)
    assert content == (tmp_path / f"out.{form}").read_bytes()
    assert "is not a form" in talk.say("/export pdf out.pdf")
    assert "something is missing" in talk.say("/export")


def test_every_way_out_leaves(start: Start) -> None:
    """By any name; nothing is read afterwards."""
    for name in ("exit", "quit", "q", "bye"):
        talk = start()
        assert talk.say(f"/{name}") == ""
        assert talk.has_left


def test_commands_complete_what_may_follow_them(start: Start, tmp_path: Path) -> None:
    """Names, files, conversations, models, presets."""
    (tmp_path / "notes.txt").touch()
    (tmp_path / "notes.json").touch()
    talk = start()
    talk.say("first")

    def candidates(line: str) -> list[str]:
        return [candidate.text for candidate in TABLE.complete(talk.desk, line)]

    assert candidates("/at") == ["/attach"]
    assert candidates("/attach no") == ["notes.json", "notes.txt"]
    assert candidates("/load n") == ["notes.json"]
    assert candidates("/image n") == []
    assert candidates("/open fir") == candidates("/fork ") == ["1"]
    assert candidates("/preset co") == candidates("/system co") == ["coder", "concise"]
    assert candidates("/set te") == ["temperature"]
    assert candidates("/think o") == ["on", "off"]
    assert candidates("/export h") == ["html"]


def test_the_last_word_is_completed(start: Start, tmp_path: Path) -> None:
    """Also of a name with blanks; where nothing can be looked up, nothing is offered."""
    (tmp_path / "my letters").mkdir()
    (tmp_path / "my letters" / "to ann.txt").touch()
    talk = start()
    talk.say("first words")

    def candidates(line: str) -> list[str]:
        return [candidate.text for candidate in TABLE.complete(talk.desk, line)]

    assert candidates("/attach my l") == ["letters/"]
    assert candidates("/attach my letters/to a") == ["ann.txt"]
    assert candidates("/export md my letters/t") == ["letters/to ann.txt"]
    assert candidates("/open first w") == []
    assert candidates("/attach ~nobody-of-this-name/a") == candidates("/attach nowhere/a") == []
    assert candidates("/help sa") == ["save"]
    assert candidates("/copy c") == ["code"]
