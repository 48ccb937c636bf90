"""One-place mailboxes: the reader serves the senders in turn, and always gets their newest item."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class Mailboxes(Generic[K, T]):
    """Hands items from several threads to one, newest first and never queued.

    A sender that was just served is the last to be served again, so a fast one does not keep a slow
    one waiting for longer than the work on one item of each of the others.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        # In the order of service.
        self._items: OrderedDict[K, T | None] = OrderedDict()
        self._at_work: K | None = None
        self._closed = False

    def add(self, sender: K) -> None:
        """Opens an empty mailbox."""
        with self._changed:
            self._items[sender] = None

    def put(self, sender: K, item: T) -> bool:
        """Leaves an item; returns whether an older one was dropped for it.

        A sender without a mailbox is ignored: it has been removed.
        """
        with self._changed:
            if sender not in self._items:
                return False
            dropped = self._items[sender] is not None
            self._items[sender] = item
            self._changed.notify_all()
            return dropped

    def take(self) -> tuple[K, T] | None:
        """Waits for an item and removes it; None once the mailboxes are closed.

        Also says that the work on the item before is done.
        """
        with self._changed:
            self._at_work = None
            self._changed.notify_all()
            while not self._closed:
                for sender, item in self._items.items():
                    if item is not None:
                        self._items[sender] = None
                        self._items.move_to_end(sender)
                        self._at_work = sender
                        return sender, item
                self._changed.wait()
            return None

    def remove(self, sender: K) -> None:
        """Ends a mailbox, drops what is in it, and waits for the end of the work on its last item.

        Not to be called by the reader.
        """
        with self._changed:
            self._items.pop(sender, None)
            self._changed.wait_for(lambda: self._at_work != sender)

    def close(self) -> None:
        """Ends every `take`, now and later."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
