"""Stands in for the module of kafka-python's tests that its archive lacks: servers that the tests
start. Here the broker runs already, and its address comes in KAFKA_URI."""


class ExternalService:
    """A server that somebody else starts and stops."""

    def __init__(self, host, port):
        self.host = host
        self.port = port

    def open(self):
        pass

    def stop(self):
        pass

    def dump_logs(self):
        pass


class SpawnedService:
    """A test that asks for a server of its own fails with this sentence."""

    def __init__(self, *_arguments):
        raise RuntimeError("this test wants to start a server of its own")
