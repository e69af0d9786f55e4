"""What people say to the robot. Training and held-out phrases share words, never sentences.

``train`` is a grammar of some hundred thousand sentences. ``held_out`` was written by hand, in other constructions and
with words the grammar lacks, and is never trained on. ``plain`` is one fixed sentence per task.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from dit_policy_ros.errors import WorldError, one_of

TASKS = ("transfer", "insertion", "red", "green", "blue")

PLAIN: Mapping[str, str] = {
    "transfer": "hand the cube to the left arm",
    "insertion": "insert the peg into the socket",
    **{colour: f"hand the {colour} cube to the left arm" for colour in ("red", "green", "blue")},
}

_COLOUR_WORDS: Mapping[str, tuple[str, ...]] = {
    "red": ("red", "red", "red", "red", "crimson", "scarlet", "reddish", "ruby"),
    "green": ("green", "green", "green", "green", "emerald", "lime", "greenish", "grass-coloured"),
    "blue": ("blue", "blue", "blue", "blue", "navy", "azure", "bluish", "cobalt"),
}
_CUBE = ("cube", "block", "box", "cube", "brick", "die", "square", "object", "one", "piece")
_ONE = ("the {c}", "the {c}", "the {c}", "that {c}", "this {c}", "the {c} that lies there", "the {c} on the table")
"""What is named without its colour; relative clauses must not stand for colours."""
_POLITE = (
    "",
    "",
    "",
    "please ",
    "can you ",
    "could you please ",
    "robot, ",
    "now ",
    "I want you to ",
    "I'd like you to ",
)
_GIVE = (
    "hand {x} to the left {arm}",
    "pass {x} to the left {arm}",
    "give {x} to the left {arm}",
    "transfer {x} to the left {arm}",
    "move {x} over to the left {arm}",
    "hand over {x}",
    "pass {x} across to your left {arm}",
    "hand {x} from right to left",
    "take {x} with the right {arm} and hand it to the left",
    "pick up {x} and pass it to the left {arm}",
    "pick {x}, then give it to the other {arm}",
    "grab {x} and transfer it to the left {arm}",
    "lift {x} with your right {arm} and let the left one take it",
    "let the left {arm} have {x}",
    "put {x} in the left {arm}",
    "bring {x} to the left {arm}",
    "get {x} into the left {arm}",
    "deliver {x} to the left {arm}",
    "offer {x} to the left {arm}",
    "shift {x} to the left {arm}",
    "use both arms: the right one lifts {x}, the left one takes it",
    "start the handover of {x}",
)
_GIVE_STATED = (
    "the left {arm} should get {x}",
    "the left {arm} needs {x}",
    "the left {arm} is to have {x}",
    "the right {arm} passes {x} to the left",
    "the right {arm} lifts {x} and the left {arm} holds on to it",
    "{x} goes to the left {arm}",
    "{x} should be in the left {arm}",
    "{x} from the right {arm} to the left",
    "we need {x} on the left",
    "a handover of {x}",
)
_STATED_SHARE = 0.3
_ARM = ("arm", "hand", "gripper", "arm", "side", "manipulator")
_NOT_OTHERS = (
    "",
    "",
    "",
    ", not the {o} one",
    ", leave the {o} one alone",
    " and ignore the {o} {c}",
    " but don't touch the {o} {c}",
    ", the {o} {c} stays on the table",
)
_OTHERS_FIRST = ("", "", "", "", "not the {o} one: ", "forget the {o} {c}, ", "leave the {o} {c} where it is and ")
_INSERT = (
    "insert {p} into {s}",
    "put {p} into {s}",
    "push {p} into {s}",
    "plug {p} into {s}",
    "slide {p} inside {s}",
    "stick {p} in {s}",
    "fit {p} into {s}",
    "place {p} inside {s}",
    "guide {p} into {s}",
    "drive {p} all the way into {s}",
    "get {p} into {s}",
    "assemble {p} and {s}",
    "join {p} with {s}",
    "couple {p} and {s}",
    "connect {p} to {s}",
    "fill {s} with {p}",
    "make {p} fit {s}",
    "have {p} sit in {s}",
    "pick up {p} and {s} and insert one into the other",
    "take {p} and {s} and put them together",
    "raise {p}, raise {s}, and join them",
    "bring {p} and {s} together in the air",
    "use both arms to insert {p} into {s}",
    "hold {s} with the left {arm} and push {p} in with the right",
    "perform the insertion of {p} into {s}",
    "start the insertion",
    "perform the peg insertion",
    "begin the assembly of {p} and {s}",
)
_INSERT_STATED = (
    "peg in hole: {p} goes into {s}",
    "{p} goes into {s}",
    "{p} should be in {s}",
    "{s} is where {p} goes",
    "{s} should get {p}",
    "we need {p} inside {s}",
    "an insertion: {p} and {s}",
    "the left {arm} takes {s}, the right {arm} puts {p} into it",
    "the right {arm} pushes {p} into {s}",
)
_THE = ("the", "the", "the", "this", "your", "our")
_PEG = ("peg", "peg", "red peg", "stick", "red stick", "rod", "pin", "plug", "red bar", "red part")
_SOCKET = ("socket", "socket", "blue socket", "hole", "blue hole", "tube", "sleeve", "blue box", "blue part")
_MANNER = (
    "",
    "",
    "",
    "",
    "",
    " now",
    " carefully",
    ", slowly",
    " with both arms",
    " above the table",
    " for me",
    ", thank you",
    " again",
    " as you have learnt",
)

HELD_OUT: Mapping[str, tuple[str, ...]] = {
    "transfer": (
        "would you kindly carry the cube across to the left hand",
        "your right arm picks the cube up, your left arm receives it",
        "swap the block from the right gripper into the left gripper",
        "left arm, take the cube that the right arm gives you",
        "do the handover with the cube",
        "the cube belongs in the left hand, send it there",
        "start the cube transfer",
        "make the two arms exchange the block, ending left",
    ),
    "insertion": (
        "get that peg seated in its socket",
        "the peg has to end up inside the socket, do it mid-air",
        "mate the peg with the socket",
        "do the insertion task with both arms",
        "lift both parts and press the peg home into the socket",
        "let us see you thread the peg through the socket",
        "one arm holds the socket while the other inserts the peg",
        "peg, meet socket: insert it fully",
    ),
    **{
        colour: (
            f"would you kindly carry the {colour} cube across to the left hand",
            f"it is the {colour} block that the left arm is waiting for",
            f"your right arm picks the {colour} cube up, your left arm receives it",
            f"of the three cubes, I need the {colour} one handed over",
            f"{colour}, to the left",
            f"find whatever is {colour} and send it to the left gripper",
            f"make sure the {colour} cube ends up in the left hand",
            f"there are three blocks; the left hand wants the {colour}",
            f"swap the {colour} block from the right gripper into the left gripper",
            f"do the handover with the {colour} cube this time",
        )
        for colour in ("red", "green", "blue")
    },
}

NAMING: Mapping[str, tuple[str, ...]] = {
    "transfer": (),
    "insertion": (),
    # All colours: with another one's name gone, "not the red one" would ask for anything.
    **dict.fromkeys(
        _COLOUR_WORDS,
        tuple(sorted({part for words in _COLOUR_WORDS.values() for word in words for part in word.split("-")})),
    ),
}
"""Words that a sentence of a task means nothing without."""

PHRASE_SETS = ("plain", "train", "held_out")


def draw(task: str, phrase_set: str, seed: int, turn: int = 0) -> str:
    """Returns one sentence for a task.

    Args:
        turn: counts the sentences of one episode, so that a later one is drawn anew.

    Raises:
        WorldError: unknown task or phrase set.
    """
    if task not in TASKS:
        raise WorldError(one_of("Task", task, TASKS))
    check_phrase_set(phrase_set)
    rng = np.random.default_rng([seed, 11, turn] if turn else [seed, 11])
    if phrase_set == "plain":
        return PLAIN[task]
    if phrase_set == "held_out":
        return str(rng.choice(HELD_OUT[task]))
    return _insertion_sentence(rng) if task == "insertion" else _handover_sentence(task, rng)


def check_phrase_set(name: str) -> None:
    """Raises WorldError unless there is a phrase set of this name."""
    if name not in PHRASE_SETS:
        raise WorldError(one_of("Phrase set", name, PHRASE_SETS))


def _handover_sentence(task: str, rng: np.random.Generator) -> str:
    cube = str(rng.choice(_CUBE))
    if task == "transfer":
        # Where one cube lies, its colour need not be named; a sentence that names one asks for that colour anywhere.
        cube = str(rng.choice(("cube", "cube", "block", "box", "object", "brick", "piece", "die")))
        wanted = str(rng.choice(_ONE)).format(c=cube)
        before, after = "", ""
    else:
        colour = str(rng.choice(_COLOUR_WORDS[task]))
        wanted = str(
            rng.choice((f"the {colour} {cube}", f"the {cube} that is {colour}", f"the {colour} coloured {cube}"))
        )
        other = str(rng.choice([name for name in ("red", "green", "blue") if name != task]))
        before = str(rng.choice(_OTHERS_FIRST)).format(o=other, c=cube)
        after = str(rng.choice(_NOT_OTHERS)).format(o=other, c=cube) if not before else ""
    core = _core(_GIVE, _GIVE_STATED, rng).format(x=wanted, arm=rng.choice(_ARM))
    return before + core + str(rng.choice(_MANNER)) + after


def _insertion_sentence(rng: np.random.Generator) -> str:
    peg, socket = (f"{rng.choice(_THE)} {rng.choice(names)}" for names in (_PEG, _SOCKET))
    core = _core(_INSERT, _INSERT_STATED, rng).format(p=peg, s=socket, arm=rng.choice(_ARM))
    return core + str(rng.choice(_MANNER))


def _core(asked: tuple[str, ...], stated: tuple[str, ...], rng: np.random.Generator) -> str:
    """A pattern; what is stated is not asked for politely."""
    if rng.random() < _STATED_SHARE:
        return str(rng.choice(stated))
    return str(rng.choice(_POLITE)) + str(rng.choice(asked))
