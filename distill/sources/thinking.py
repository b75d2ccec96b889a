"""What a reasoning model thinks before it answers, and what it wraps its answer in, left out of its text.

    answer_after_thinking("<think>[1] looks good</think>[2] > [1]")        # "[2] > [1]"
    answer_in_tag("[1] looks good. <answer>[2] > [1]</answer>", "answer")   # "[2] > [1]"
    unwrapped("The best one is \\boxed{B}")                                 # "The best one is B"

Models mark their thoughts in many ways, and servers pass on all of the marks, some, or only the last one:

    <think> </think>, <thinking>, <thought>, <reasoning>, <reflection>, <scratchpad>, <seed:think>, in any case
    [THINK] [/THINK];  ◁think▷ ◁/think▷;  <|begin_of_thought|> <|end_of_thought|>;  <|START_THINKING|> <|END_THINKING|>
    <|channel|>analysis<|message|> ... <|channel|>final<|message|>, and the same without its control tokens
"""

import re

NAMES = r"(?:seed:)?(?:think|thinking|thoughts?|reasoning|reason|reflection|scratchpad|analysis)"
MARKS = re.compile(
    rf"(?P<opens><{NAMES}(?:\s[^<>]*)?>|\[{NAMES}\]|◁{NAMES}▷|<\|(?:begin|start)_?(?:of_?)?{NAMES}\|>)"
    rf"|(?P<closes></{NAMES}\s*>|\[/{NAMES}\]|◁/{NAMES}▷|<\|end_?(?:of_?)?{NAMES}\|>)",
    re.IGNORECASE,
)
CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>")
ENDS = re.compile(r"<\|(?:end|return|start|call)\|>")
# Only the control tokens are missing; "analysis of ..." is a text like any other
BARE_CHANNEL = re.compile(r"\s*(?:assistant\s*)?analysis(?=\s*[A-Z\[(<\n]|\s*[^\W\da-z_]|\s*$)")
BARE_FINAL = re.compile(r"assistantfinal|assistant\s+final(?![A-Za-z])")
# Where "assistant" is missing, too: thoughts also speak of the final answer
LONE_FINAL = re.compile(
    r"^[ \t]*final(?=[ \t]*$|[ \t]*[^\sa-z])"
    r"|(?<![A-Za-z])final(?=\s*(?:\[\d+\]\s*>|(?:(?:grade:\s*)?\d|[A-Z])\.?\s*\Z))",
    re.MULTILINE,
)
BOX = re.compile(r"(?:\\?\bboxed|\\(?:text|textbf|mathrm|mathbf))\s*\{([^{}]*)\}")
WRAPPERS = (
    (re.compile(r"```(?:[A-Za-z]\w+[ \t]*(?=\n))?"), ""),  # a code fence and its language
    (BOX, r"\1"),
    (BOX, r"\1"),  # one may be in another
    (
        re.compile(r"</?(?:(?:final_?)?answer|output|result|ranking|best|choice|grade|score|rating)>", re.IGNORECASE),
        "\n",
    ),
)


def answer_after_thinking(text: str) -> str:
    """Return a text without thoughts; empty if it ends while the model still thinks."""
    return _outside_marks(_final_channel(text)).strip()


def _final_channel(text: str) -> str:
    """Return the last message of the channel `final`, if the text has channels.

    Without control tokens, it is all that follows the first `assistantfinal`, or else the last `final` by itself.
    """
    channels = list(CHANNEL.finditer(text))
    if channels:
        finals = [channel.end() for channel in channels if channel[1] == "final"]
        return ENDS.split(text[finals[-1] :], maxsplit=1)[0] if finals else ""
    if not BARE_CHANNEL.match(text):
        return text
    if final := BARE_FINAL.search(text):
        return text[final.end() :]
    ends = [final.end() for final in LONE_FINAL.finditer(text)]
    return text[ends[-1] :] if ends else ""


def _outside_marks(text: str) -> str:
    """Return what is outside of marks; before a closing mark that was never opened, everything is thought."""
    kept: list[str] = []
    start, thinking = 0, False
    for mark in MARKS.finditer(text):
        if mark["opens"]:
            if not thinking:
                kept.append(text[start : mark.start()])
            thinking = True
        else:
            if not thinking:
                kept.clear()
            start, thinking = mark.end(), False
    if not thinking:
        kept.append(text[start:])
    return "".join(kept)


def answer_in_tag(text: str, tag: str) -> str:
    """Return what is in the last <tag> of a text, outside of thoughts; all that is outside if it has no such tag."""
    text = answer_after_thinking(text)
    opened = list(re.finditer(rf"<{re.escape(tag)}>", text, re.IGNORECASE))
    inside = text[opened[-1].end() :] if opened else text
    return re.split(rf"</{re.escape(tag)}\s*>", inside, maxsplit=1, flags=re.IGNORECASE)[0].strip()


def unwrapped(text: str) -> str:
    """Return a text without code fences and TeX's boxes; what is in an answer's tags has lines of its own."""
    for wrapper, inside in WRAPPERS:
        text = wrapper.sub(inside, text)
    return text
