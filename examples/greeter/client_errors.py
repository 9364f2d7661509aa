"""Greeter, and what can go wrong: in the request, on the server, on the way."""

import sys

import dynserve

# A contract that is ahead of the server's: nobody there says goodbye yet.
NEWER = """
syntax = "proto3";
package helloworld;

service Greeter { rpc SayGoodbye(Guest) returns (Guest); }
message Guest { string name = 1; }
"""


def refuse_locally(address: str) -> None:
    with dynserve.connect(address) as client:
        greeter = client.service("helloworld.Greeter")
        try:
            greeter.SayHello(nme="Ada")
        except dynserve.MessageError as error:  # nothing was sent
            print("Not sent:", error)


def refuse_remotely(address: str) -> None:
    with dynserve.connect(address, NEWER) as client:  # with a contract reflection is not asked
        greeter = client.service("helloworld.Greeter")
        try:
            greeter.SayGoodbye(name="Ada")
        except dynserve.StatusError as error:
            print(f"Refused: {error.code().name}, {error.details()}")


def reach_nobody() -> None:
    with dynserve.connect("localhost:1") as client:
        try:
            client.service("helloworld.Greeter")  # asks the server what it serves
        except dynserve.StatusError as error:
            print("Nobody there:", error.code().name)  # the details depend on the system


def main(address: str = "localhost:50051") -> None:
    refuse_locally(address)
    refuse_remotely(address)
    reach_nobody()


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (dynserve.DynserveError, dynserve.StatusError) as error:
        sys.exit(str(error))
