"""Numbers, called: a stream of responses is an iterator."""

import sys

import dynserve

FOREVER = 2**31 - 1


def main(address: str = "localhost:50051") -> None:
    with dynserve.connect(address) as client:
        service = client.service("number_stream.NumberService")

        for response in service.GetNumbers(limit=3):
            print(response.number)

        with service.GetNumbers(limit=FOREVER) as responses:  # whoever leaves early cancels
            print("First of many:", next(responses).number)

        try:
            for _ in service.GetNumbers(limit=FOREVER, timeout=0.1):
                pass
        except dynserve.StatusError as error:
            print("After 0.1 seconds:", error.code().name)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (dynserve.DynserveError, dynserve.StatusError) as error:
        sys.exit(str(error))
