"""What both wings need to pass data and wake-ups between threads; and what we rely on where no lock is held.

With the GIL, one call of C code that runs no Python code is one step. Without it, these are what is left of that:

*One step*
    - Of a deque: ``append``, ``appendleft``, ``pop``, ``popleft`` (Python's docs, "collections", "deque objects":
      "thread-safe"), and ``remove``, which holds the deque's own lock in CPython.
    - Of a list: ``append``, ``pop()``, ``clear``, ``copy``, and ``remove`` where the items' ``__eq__`` is C code
      (Python's docs, "Thread Safety Guarantees", "list objects").
    - Of a dict: to look up, set, or take out an item by a key whose ``__eq__`` is C code, ``len``, ``clear``, ``copy``,
      and ``list(it)`` (same page, "dict objects").
    - Of a set: ``add``, ``discard``, ``in``, ``len``, ``clear``, ``copy``. Built-in types "use internal locks" that
      behave like the GIL (Python's docs, "Python support for free threading", "Thread safety").
    - To read or write an attribute. A read gives the old value or the new one.

*Not one step*
    - To walk any of them, also by ``tuple(a_set)``: another thread may change it meanwhile. We walk a copy.
    - ``x += 1``. A number is written by one thread alone, or under a lock.
    - To look and then act. Whoever looks without a lock only tells what was so a moment ago, or looks again. If two
      threads come upon something at once that is to be logged once, it may be logged twice.
    - To take something out: ``taken, x.it = x.it, None``. Two threads may both get it, and what a third writes between
      the two steps is lost. Whoever gets it out of a list, by ``pop()``, has it alone.

*Never taken back*
    An attribute such as ``closed``, which only changes from false to true, may be written and read by any thread. Who
    finds it false has come a moment early, and must be able to bear that.

*Order*
    Two threads each write one thing and then read the other's, as a thread does that leaves a gate and then looks
    whether it is too late. At least one of them must see what the other wrote. A lock that both take guarantees it.
    Where there is none, we rely on this: without the GIL, CPython ends each change of an attribute, a list, a deque or
    a set by releasing that object's own lock, which is a sequentially consistent exchange
    (``Include/internal/pycore_critical_section.h``).

Python describes these locks of its own, and does not promise them. ``make test-freethreaded`` holds them against it.
"""
