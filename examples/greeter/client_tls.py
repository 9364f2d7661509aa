"""Greeter, called over TLS: the client trusts one certificate, that of server_tls.py."""

import sys

import dynserve


def main(address: str = "localhost:50051", certificate: str = "server.crt") -> None:
    with dynserve.connect(address, tls=certificate) as client:
        greeter = client.service("helloworld.Greeter")
        print(greeter.SayHello(name="Ada").message)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (dynserve.DynserveError, dynserve.StatusError) as error:
        sys.exit(str(error))
