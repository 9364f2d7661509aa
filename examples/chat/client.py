"""Chat, called: each message waits for the answer to the one before."""

import sys
from queue import SimpleQueue

import dynserve


def main(address: str = "localhost:50051") -> None:
    with dynserve.connect(address) as client:
        service = client.service("chat.ChatService")
        # gRPC iterates over the requests on a thread of its own; a queue passes them to it.
        requests: SimpleQueue[dict[str, str] | None] = SimpleQueue()
        answers = service.Chat(iter(requests.get, None))
        for text in ("hello", "what do you say?", "goodbye"):
            requests.put({"message": text})
            print(next(answers).message)
        requests.put(None)  # the end of the requests, and so of the call
        print("The end:", answers.code().name)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (dynserve.DynserveError, dynserve.StatusError) as error:
        sys.exit(str(error))
