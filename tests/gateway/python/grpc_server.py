"""A gRPC server of bytes, without generated code. Says its port, then serves until its standard input ends."""
import sys, threading, time
from concurrent import futures
import grpc

started = threading.Event()


def same(data):
    return data


def unary(request, context):
    context.send_initial_metadata((("x-initial", "first"), ("x-bytes-bin", b"\x00\xff\x01")))
    told = dict(context.invocation_metadata())
    context.set_trailing_metadata((("x-trailing", told.get("x-told", "")), ("x-back-bin", told.get("x-own-bin", b""))))
    return request


def fails(request, context):
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not now: " + request.decode())


def end(context, *words):
    """Set once the call has ended, and said with these words; also where it had by now, when nobody is called back."""
    ended = threading.Event()

    def leave():
        print(*words, flush=True)
        ended.set()

    if not context.add_callback(leave):
        leave()
    return ended


def waits(request, context):
    print("waiting", request.decode(), context.time_remaining() is not None, flush=True)
    gone = end(context, "gone", request.decode())
    # The client sees by these that the call has arrived.
    context.send_initial_metadata((("x-arrived", "yes"),))
    gone.wait(20)
    return b"late"


def collects(requests, context):
    return b"".join(requests)


def counts(request, context):
    for number in range(int(request)):
        yield str(number).encode()


def endless(request, context):
    # A generator is not asked for more once its call has ended: what stands behind its loop may never be reached.
    gone = end(context, "gone")
    number = 0
    while not gone.is_set():
        yield str(number).encode()
        number += 1
        gone.wait(0.01)


def talks(requests, context):
    for request in requests:
        yield request


class Handlers(grpc.GenericRpcHandler):
    def service(self, call):
        name = call.method.rsplit("/", 1)[1]
        handler = {
            "Unary": grpc.unary_unary_rpc_method_handler(unary),
            "Fails": grpc.unary_unary_rpc_method_handler(fails),
            "Waits": grpc.unary_unary_rpc_method_handler(waits),
            "Collects": grpc.stream_unary_rpc_method_handler(collects),
            "Counts": grpc.unary_stream_rpc_method_handler(counts),
            "Endless": grpc.unary_stream_rpc_method_handler(endless),
            "Talks": grpc.stream_stream_rpc_method_handler(talks),
        }
        return handler.get(name)


SIZE = 8 * 1024 * 1024
server = grpc.server(
    futures.ThreadPoolExecutor(max_workers=120),
    options=[("grpc.max_receive_message_length", SIZE), ("grpc.max_send_message_length", SIZE)],
)
server.add_generic_rpc_handlers((Handlers(),))
port = server.add_insecure_port("127.0.0.1:0")
server.start()
print(port, flush=True)
sys.stdin.read()
server.stop(None)
