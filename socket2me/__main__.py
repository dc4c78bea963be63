"""The entry of the `socket2me` command. To load its parts takes a moment, in which Ctrl-C may come."""

import signal


def main() -> None:
    """Run the command. Ctrl-C ends it without a traceback from the start; `cli/commands.py` says until when."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from socket2me.cli import main as command

    command()


if __name__ == "__main__":
    main()
