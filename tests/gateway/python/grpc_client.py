"""Calls the server in grpc_server.py through whatever is at the address given, and says what came of it, a line each."""
import sys, threading
import grpc

SIZE = 8 * 1024 * 1024
address, what = sys.argv[1:3]
channel = grpc.insecure_channel(
    address,
    options=[
        ("grpc.max_receive_message_length", SIZE),
        ("grpc.max_send_message_length", SIZE),
        ("grpc.enable_retries", 0),
        ("grpc.enable_http_proxy", 0),
    ],
)
TIME = 20


def say(*words):
    print(*words, flush=True)


def failure(call):
    try:
        call()
        return "no failure"
    except grpc.RpcError as error:
        return f"{error.code().name} {error.details()}"


def unary():
    metadata = (("x-told", "yes"), ("x-own-bin", b"\x00\x01\xfe"))
    answer, call = channel.unary_unary("/test.Test/Unary").with_call(b"hello", timeout=TIME, metadata=metadata)
    first, last = dict(call.initial_metadata()), dict(call.trailing_metadata())
    say("unary", answer, call.code().name)
    say("metadata", first["x-initial"], first["x-bytes-bin"], last["x-trailing"], last["x-back-bin"])
    say("empty", channel.unary_unary("/test.Test/Unary")(b"", timeout=TIME))


def streams():
    collected = channel.stream_unary("/test.Test/Collects")((bytes([65 + n]) for n in range(20)), timeout=TIME)
    say("collected", collected)
    counted = channel.unary_stream("/test.Test/Counts")(b"100", timeout=TIME)
    say("counted", sum(int(number) for number in counted))
    heard = threading.Semaphore(1)

    def pieces():
        # Each waits for the answer to the one before.
        for number in range(50):
            heard.acquire()
            yield str(number).encode()

    talked = []
    for answer in channel.stream_stream("/test.Test/Talks")(pieces(), timeout=TIME):
        talked.append(int(answer))
        heard.release()
    say("talked", talked == list(range(50)))


def errors():
    say(failure(lambda: channel.unary_unary("/test.Test/Fails")(b"sorry", timeout=TIME)))
    say(failure(lambda: channel.unary_unary("/test.Test/Unknown")(b"", timeout=TIME)))
    say(failure(lambda: list(channel.unary_stream("/test.Test/Counts")(b"no number", timeout=TIME))))


def deadline():
    # A deadline that ends before the call has arrived shows nothing: then the next one is longer.
    for number in range(6):
        call = channel.unary_unary("/test.Test/Waits").future(str(number).encode(), timeout=0.5 * 2**number)
        failed = failure(call.result)
        if "x-arrived" in dict(call.initial_metadata()):
            break
    say("call", number)
    say(failed)


def cancel():
    call = channel.unary_stream("/test.Test/Endless")(b"", timeout=TIME)
    numbers = [int(next(call)) for _ in range(3)]
    call.cancel()
    say("cancelled", numbers, failure(lambda: next(call)))


def large():
    data = bytes(range(256)) * (4 * 1024 * 4)
    say("large", len(data), channel.unary_unary("/test.Test/Unary")(data, timeout=TIME) == data)


def many():
    calls = [channel.unary_unary("/test.Test/Unary").future(str(n).encode(), timeout=TIME) for n in range(100)]
    calls += [channel.unary_unary("/test.Test/Unary").future(str(n).encode(), timeout=TIME) for n in range(100, 200)]
    say("many", [int(call.result()) for call in calls] == list(range(200)))


def killed():
    call = channel.unary_stream("/test.Test/Endless")(b"", timeout=TIME)
    say("begun", int(next(call)))
    sys.stdin.readline()

    def rest():
        for _ in call:
            pass

    say("killed", failure(rest).split(" ")[0])
    say("after", failure(lambda: channel.unary_unary("/test.Test/Unary")(b"", timeout=TIME)).split(" ")[0])


{name: globals()[name] for name in ["unary", "streams", "errors", "deadline", "cancel", "large", "many", "killed"]}[what]()
