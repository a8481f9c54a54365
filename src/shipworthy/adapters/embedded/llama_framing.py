"""How a conversation is laid before a model that was never taught to converse.

A base model continues text. So the conversation becomes the next entry of a list of questions with one-line answers, a few
worked ones first; the answer ends where its line does. It is given to llama.cpp as a chat template, so requests and
answers keep the chat shape. The worked examples were chosen by trying about twenty layouts at temperature 0: a text, a
question and its answer show that what stands before a question is to be read, and the answer starts on a line of its
own because a small model that must begin after a trailing space begins with a digit.
"""

from __future__ import annotations

from typing import Literal

Framing = Literal["auto", "chat", "few-shot"]
Framed = Literal["chat", "few-shot"]

STOP = ("\n",)

_EXAMPLES = """\
Text: The library opens at nine in the morning and closes at six. Lending is free of charge.
Question: When does the library open?
Answer:
The library opens at nine in the morning.

Question: Which planet is the largest in the solar system?
Answer:
Jupiter is the largest planet in the solar system.

Question: Who wrote the play Romeo and Juliet?
Answer:
William Shakespeare wrote Romeo and Juliet.

Question: What is the chemical symbol for iron?
Answer:
The chemical symbol for iron is Fe.

Question: What is four plus four?
Answer:
Four plus four is eight.

"""

# Line breaks inside a message become spaces: one entry, one line. A message may be a text or a list of typed parts.
FEW_SHOT_TEMPLATE = (
    "{%- macro line(content) -%}"
    "{%- if content is string -%}{{ content | replace('\\r', ' ') | replace('\\n', ' ') | trim }}"
    "{%- elif content -%}{%- for part in content -%}{%- if part.text -%}"
    "{{ part.text | replace('\\r', ' ') | replace('\\n', ' ') | trim }}{{ ' ' if not loop.last }}"
    "{%- endif -%}{%- endfor -%}{%- endif -%}"
    "{%- endmacro -%}"
    "{{ " + repr(_EXAMPLES) + " }}"
    "{%- for message in messages -%}"
    "{%- if message.role == 'user' -%}{{ 'Question: ' + line(message.content) + '\\n' }}"
    "{%- elif message.role == 'assistant' -%}{{ 'Answer:\\n' + line(message.content) + '\\n\\n' }}"
    "{%- else -%}{{ 'Text: ' + line(message.content) + '\\n' }}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ 'Answer:\\n' }}{%- endif -%}"
)


def choose(asked: Framing, *, has_chat_template: bool) -> Framed:
    """The framing for a model: what was asked, else chat for one that brings a chat template."""
    if asked != "auto":
        return asked
    return "chat" if has_chat_template else "few-shot"
