"""What `concurrency/poller.py` counts on of eventlet's hub: this fails if eventlet changes it."""

import subprocess
import sys
import textwrap

import pytest


def run(program):
    """Run a program in a process of its own, as the worker does: patched, on a hub of its own."""
    head = """
        import os, socket
        os.environ["EVENTLET_TESTS"] = "1"  # no announcement
        import eventlet
        eventlet.monkey_patch()
        from eventlet.patcher import original
        import greenlet
        from socket2me_flask.concurrency import poller
        ours, theirs = original("socket").socketpair()
        ours.setblocking(False)

        def until(holds):
            for _ in range(500):
                if holds():
                    return
                eventlet.sleep(0.01)
    """
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(head) + textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_a_socket_that_can_be_read_calls_back():
    """Once for each change; with what happened; and no more once it is removed."""
    out = run("""
        seen = []
        watcher = poller.Poller()
        watcher.add(ours.fileno(), seen.append, poller.ON_CHANGE)
        theirs.send(b"x")
        until(lambda: seen)
        eventlet.sleep(0.01)
        assert len(seen) == 1 and seen[0] & poller.READABLE, seen
        theirs.close()
        until(lambda: len(seen) > 1)
        assert seen[-1] & poller.HUNG_UP, seen
        watcher.remove(ours.fileno())
        watcher.remove(ours.fileno())
        print("done")
    """)
    assert out == "done\n"


def test_keys_have_turns():
    """However many sockets of one key are ready, one of another waits for one callback of them."""
    out = run("""
        socketpair = original("socket").socketpair
        pairs = [socketpair() for _ in range(50)]
        watcher = poller.Poller()
        poller.TURN_SECONDS = -1  # each callback is a turn of its own
        seen = []
        for number, (ours, theirs) in enumerate(pairs):
            key = "another" if number == 49 else "many"
            watcher.add(ours.fileno(), lambda events, key=key: seen.append(key), poller.ON_CHANGE, key=key)
            theirs.send(b"x")
        while len(seen) < 50:
            eventlet.sleep(0.001)
        assert "another" in seen[:2] and seen.count("many") == 49, seen
        print("done")
    """)
    assert out == "done\n"


def test_a_key_that_is_ready_already_does_not_hide_another():
    """What is reported while others wait for their turn is served before all of those were."""
    out = run("""
        socketpair = original("socket").socketpair
        pairs = [socketpair() for _ in range(50)]
        watcher = poller.Poller()
        poller.TURN_SECONDS = -1
        seen = []

        def see(events):
            seen.append("many")
            if len(seen) == 5:
                theirs.send(b"x")

        watcher.add(ours.fileno(), lambda events: seen.append("another"), poller.ON_CHANGE, key="another")
        for each, peer in pairs:
            watcher.add(each.fileno(), see, poller.ON_CHANGE, key="many")
            peer.send(b"x")
        while len(seen) < 51:
            eventlet.sleep(0.001)
        print(seen.index("another"))
    """)
    assert 5 <= int(out) < 10


def test_a_callback_that_fails_harms_no_other():
    """It is logged, and the others are called."""
    out = run("""
        watcher = poller.Poller()
        watcher.add(ours.fileno(), lambda events: 1 / 0, poller.ON_CHANGE)
        watcher.add(theirs.fileno(), lambda events: print("called"), poller.ON_CHANGE)
        ours.send(b"x")
        theirs.send(b"x")
        eventlet.sleep(0.05)
    """)
    assert out == "called\n"


def test_a_green_thread_is_resumed_where_it_was_suspended():
    """By a callback on the hub's own green thread; and a wait for a socket ends by itself."""
    out = run("""
        def wait():
            current.append(greenlet.getcurrent())
            poller.switch_to_hub()
            print("resumed")

        current = []
        waiting = eventlet.spawn(wait)
        eventlet.sleep(0)
        watcher = poller.Poller()
        watcher.add(ours.fileno(), lambda events: current[0].switch(), poller.ON_CHANGE)
        theirs.send(b"x")
        waiting.wait()
        ours.recv(1)
        try:
            poller.wait_until(ours.fileno(), "read", 0.01)
        except TimeoutError:
            print("timed out")
        poller.wait_until(ours.fileno(), "write", 0.01)
    """)
    assert out == "resumed\ntimed out\n"


def test_a_hub_watch_calls_back_until_it_is_cancelled():
    """For writing, as long as there is room."""
    out = run("""
        calls = []
        watch = poller.HubWatch("write", ours.fileno(), calls.append)
        eventlet.sleep(0.01)
        watch.cancel()
        watch.cancel()
        count = len(calls)
        eventlet.sleep(0.01)
        assert count and len(calls) == count
        print("done")
    """)
    assert out == "done\n"


def test_a_report_is_not_brought_to_another_socket_with_the_same_number():
    """What was reported of a socket that is closed by now is dropped."""
    out = run("""
        seen = []
        watcher = poller.Poller()
        poller.TURN_SECONDS = -1  # each callback is a turn of its own

        def close_the_other(events):
            watcher.remove(theirs.fileno())
            watcher.add(theirs.fileno(), lambda events: seen.append("another"), poller.ON_CHANGE & ~poller.READABLE)

        ours.send(b"x")
        theirs.send(b"x")
        watcher.add(ours.fileno(), close_the_other, poller.ON_CHANGE)
        watcher.add(theirs.fileno(), lambda events: seen.append("the first"), poller.ON_CHANGE)
        for _ in range(5):
            eventlet.sleep(0.01)
        print(seen)
    """)
    assert out in ("[]\n", "['the first']\n")  # whichever epoll reports first


@pytest.mark.parametrize("error", ["SystemExit", "KeyboardInterrupt", "eventlet.Timeout"])
def test_no_exception_of_a_callback_ends_the_watching(error):
    """Not one that is no `Exception` either."""
    out = run(f"""
        failed, called = [], []

        def fail(events):
            failed.append(events)
            raise {error}

        watcher = poller.Poller()
        watcher.add(ours.fileno(), fail, poller.ON_CHANGE)
        theirs.send(b"x")
        until(lambda: failed)
        watcher.add(theirs.fileno(), called.append, poller.ON_CHANGE)
        ours.send(b"x")
        until(lambda: called)
        print("called" if failed and called else "not called")
    """)
    assert out == "called\n"
