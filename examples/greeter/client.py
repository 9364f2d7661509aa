"""Greeter, called: a method of a stub takes the fields of its request by name."""

import sys

import dynserve


def main(address: str = "localhost:50051") -> None:
    with dynserve.connect(address) as client:
        greeter = client.service("helloworld.Greeter")
        print(greeter.SayHello(name="Ada").message)
        print(greeter.SayHelloAgain(name="Ada").message)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (dynserve.DynserveError, dynserve.StatusError) as error:
        sys.exit(str(error))
