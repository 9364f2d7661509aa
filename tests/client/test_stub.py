"""Stubs as a person at a prompt sees them."""

from __future__ import annotations

import asyncio
import copy
import pydoc
from pathlib import Path
from typing import Any

import pytest

import dynserve
from dynserve import Schema
from dynserve.client.stub import Stub

SOURCE = """
    syntax = "proto3";
    package zoo;
    // Keeps animals.
    service Zoo {
      // Feeds one.
      // Every day.
      rpc Feed(Meal) returns (Animal);
      rpc Watch(stream Meal) returns (stream Animal);
    }
    message Meal {
      // What it eats.
      string food = 1;
      repeated Animal guests = 2;
      map<string, Size> sizes = 3;
      Size size = 4;
      bytes raw = 5;
    }
    message Animal {}
    enum Size { SMALL = 0; }
"""
schema = Schema.load(SOURCE, cache=False)

SERVICE_DOC = """\
service zoo.Zoo
    Keeps animals.

Feed(zoo.Meal) -> zoo.Animal
    Feeds one.
    Every day.

Watch(stream zoo.Meal) -> stream zoo.Animal"""

METHOD_DOC = """\
Feed(zoo.Meal) -> zoo.Animal
    Feeds one.
    Every day.

Fields of zoo.Meal:
    food: string
        What it eats.
    guests: repeated zoo.Animal
    sizes: map<string, zoo.Size>
    size: zoo.Size
    raw: bytes"""


def stubs() -> list[Any]:
    """A stub of each world."""
    sync = dynserve.connect("localhost:1", schema=schema).service("zoo.Zoo")

    async def main() -> Any:
        return await dynserve.aio.connect("localhost:1", schema=schema).service("zoo.Zoo")

    return [sync, asyncio.run(main())]


@pytest.mark.parametrize("stub", stubs(), ids=["sync", "async"])
def test_a_stub_shows_its_methods(stub: Any) -> None:
    """By dir(), repr() and help(), with types and the comments of the .proto."""
    assert dir(stub) == ["Feed", "Watch"]
    assert repr(stub) == "<Stub zoo.Zoo: Feed, Watch>"
    assert repr(stub.Watch) == "<method zoo.Zoo/Watch: stream-stream>"
    assert stub.__doc__ == SERVICE_DOC
    assert stub.Feed.__doc__ == METHOD_DOC
    assert "Keeps animals." in pydoc.plain(pydoc.render_doc(stub))
    assert "What it eats." in pydoc.plain(pydoc.render_doc(stub.Feed))
    assert stub.Feed is stub.Feed
    assert stub.Feed.info is schema.method("zoo.Zoo/Feed")


def test_the_classes_have_docstrings_of_their_own() -> None:
    """What an instance says of itself is not said of its class."""
    assert (Stub.__doc__ or "").startswith("Calls the methods of a service")
    assert "target: ``HOST:PORT``" in (dynserve.connect.__doc__ or "")
    assert "await client.service" in (dynserve.aio.connect.__doc__ or "")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("feed", "zoo.Zoo has no method 'feed'; did you mean 'Feed'?"),
        ("Nope", "zoo.Zoo has no method 'Nope'"),
        ("__wrapped__", "__wrapped__"),
    ],
)
def test_a_method_that_is_not_there_has_its_nearest(name: str, text: str) -> None:
    """As an AttributeError, which is what Python expects."""
    with pytest.raises(AttributeError) as caught:
        getattr(stubs()[0], name)
    assert str(caught.value) == text


def test_a_stub_can_be_copied() -> None:
    """Python makes the copy before it has anything in it."""
    assert repr(copy.copy(stubs()[0])) == "<Stub zoo.Zoo: Feed, Watch>"


def test_clients_show_their_target() -> None:
    """For logs and prompts."""
    client = dynserve.connect("localhost:1", schema=schema)
    assert repr(client) == "<Client localhost:1>"
    assert repr(dynserve.aio.connect("localhost:1")) == "<AsyncClient localhost:1>"
    client.close()


def test_sources_are_compiled_when_they_are_needed(tmp_path: Path) -> None:
    """Once, whoever asks first; services are those that the sources declare."""
    path = tmp_path / "zoo.proto"
    client = dynserve.connect("localhost:1", str(path))
    path.write_text(SOURCE)
    assert client.services() == ("zoo.Zoo",)
    client.load("zoo.Meal", "whatever.you.like")
    assert client.schema is client.schema
    assert client.schema.message("zoo.Meal")(food="x").food == "x"

    async def main() -> Any:
        async with dynserve.aio.connect("localhost:1", str(path)) as on_loop:
            return await on_loop.services(), dir(await on_loop.service("zoo.Zoo"))

    assert asyncio.run(main()) == (("zoo.Zoo",), ["Feed", "Watch"])


def test_waiting_for_a_connection() -> None:
    """Until there is one, or no longer than is said."""
    client = dynserve.connect("127.0.0.1:1", schema=schema)
    with client, pytest.raises(TimeoutError) as caught:
        client.wait_until_ready(0.05)
    assert str(caught.value) == "127.0.0.1:1 could not be reached in 0.05 s"

    async def main() -> None:
        async with dynserve.aio.connect("127.0.0.1:1", schema=schema) as on_loop:
            with pytest.raises(TimeoutError) as caught:
                await on_loop.wait_until_ready(0.05)
            assert str(caught.value) == "127.0.0.1:1 could not be reached in 0.05 s"

    asyncio.run(main())
