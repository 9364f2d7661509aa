"""Sums, called: a stream of requests is anything that can be iterated over."""

import sys

import dynserve


def main(address: str = "localhost:50051") -> None:
    with dynserve.connect(address) as client:
        service = client.service("sum_stream.SumService")

        response = service.CalculateSum({"number": number} for number in (1, 2, 39))
        print("The sum is", response.sum)

        try:
            service.CalculateSum([{"number": 2147483647}, {"number": 1}])
        except dynserve.StatusError as error:
            print(f"{error.code().name}: {error.details()}")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (dynserve.DynserveError, dynserve.StatusError) as error:
        sys.exit(str(error))
