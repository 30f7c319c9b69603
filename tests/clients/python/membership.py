"""What a member of a group tells about itself: see ../README.md. Knows no Kafka client."""

import signal
import sys

# A poll is at most this long: the member looks then whether it has been told to leave.
POLL_SECONDS = 0.5


class Membership:
    """The partitions that one member holds and the records that it has yet to commit."""

    def __init__(self):
        self.leaving = False
        self.held = set()
        self.uncommitted = {}
        signal.signal(signal.SIGTERM, self._leave)

    def _leave(self, _signal, _frame):
        self.leaving = True

    def assigned(self, partitions):
        self.held |= set(partitions)
        self._show()

    def revoked(self, partitions):
        """Also for partitions that were lost: what was read of them is somebody else's now."""
        self.held -= set(partitions)
        for partition in partitions:
            self.uncommitted.pop(partition, None)
        self._show()

    def read(self, partition, offset):
        print("record", partition, offset)
        self.uncommitted[partition] = offset + 1

    def offsets(self):
        """What to commit. A member killed after the commit has told what it read."""
        sys.stdout.flush()
        return dict(self.uncommitted)

    def committed(self):
        """All that was read so far."""
        for partition, offset in self.uncommitted.items():
            print("committed", partition, offset, flush=True)
        self.uncommitted.clear()

    def refused(self, error):
        """A commit that comes while the group changes; it is repeated when the change is known."""
        print("refused", str(error).replace("\n", " "), flush=True)

    def _show(self):
        print("assigned", ",".join(map(str, sorted(self.held))), flush=True)
