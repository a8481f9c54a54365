"""The estimate is a ceiling: whatever a provider may bill for a request is held before anything is sent."""

from __future__ import annotations

import base64

import pytest
from msgspec.structs import replace

from shipworthy.kit.calls import a_chat, a_model, a_provider, decoded
from shipworthy.model.chat import Request
from shipworthy.model.money import Component, Price
from shipworthy.model.route import Lineup
from shipworthy.stages.estimate import ceiling_cost, ceiling_input, ceiling_output, estimate

MODEL = a_model(a_provider("x", None))
SOUND = {"type": "input_audio", "input_audio": {"data": base64.b64encode(bytes(60_000)).decode(), "format": "mp3"}}
FILE = {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64," + "A" * 8_000}}
STORED = {"type": "file", "file": {"file_id": "file-1"}}
FILM = {"type": "video_url", "video_url": {"url": "https://films.example/long.mp4"}}


def with_part(part: dict[str, object]) -> Request:
    return decoded({"model": "support", "messages": [{"role": "user", "content": [part]}]})


@pytest.mark.parametrize("part", [SOUND, FILE, STORED, FILM], ids=["sound", "file", "stored file", "film"])
def test_media_that_no_count_of_bytes_bounds_may_fill_the_context(part: dict[str, object]) -> None:
    assert ceiling_input(with_part(part), Lineup([MODEL])) >= MODEL.context_tokens_max


def test_an_earlier_spoken_answer_is_known_to_the_provider_only() -> None:
    said = {"role": "assistant", "audio": {"id": "audio_1"}}
    assert ceiling_input(decoded({"model": "m", "messages": [said]}), Lineup([MODEL])) >= MODEL.context_tokens_max


def test_each_embedded_medium_may_fill_a_context() -> None:
    body = {
        "model": "m",
        "input": [{"image": "https://pictures.example/a.png"}, {"image": "https://pictures.example/b.png"}],
    }
    assert ceiling_input(decoded(body), Lineup([MODEL])) >= 2 * MODEL.context_tokens_max


def test_text_and_token_arrays_are_bounded_by_their_bytes() -> None:
    assert ceiling_input(a_chat("Good morning."), Lineup([MODEL])) < 200
    assert ceiling_input(decoded({"model": "m", "input": [[1, 2, 3], [4, 5]]}), Lineup([MODEL])) < 200


def test_a_prediction_that_is_wrong_is_billed_as_output() -> None:
    predicted = a_chat(prediction={"type": "content", "content": "x" * 500})
    assert ceiling_output(predicted, 100) >= 600


def test_what_is_free_holds_nothing() -> None:
    """So that a model that costs nothing serves on when a budget is spent to the last nano-dollar."""
    free = replace(MODEL, price=Price({Component.INPUT: 0, Component.OUTPUT: 0}, "test"))
    assert estimate(a_chat(), Lineup([free]), 1_000).amount_nano == 0
    assert ceiling_cost(MODEL, 1, 0, 0) > 0
