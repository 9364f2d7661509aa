"""Greeter, called with compressed requests: of all calls of a client, or of one call."""

import sys

from grpc import Compression

import dynserve


def main(address: str = "localhost:50051") -> None:
    with dynserve.connect(address, compression=Compression.Gzip) as client:
        greeter = client.service("helloworld.Greeter")
        reply = greeter.SayHello(name="Ada" * 10_000)
        print(f"{len(reply.message)} characters: {reply.message[:15]}...")
        # A few bytes only get longer by compression.
        print(greeter.SayHello(name="Ada", compression=Compression.NoCompression).message)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (dynserve.DynserveError, dynserve.StatusError) as error:
        sys.exit(str(error))
