"""Start here: `python -m engine_pg` and the installed command `engine-pg` are the same."""

import sys


def main() -> None:
    """Run the command line; Ctrl-C ends it quietly, from the first import on."""
    try:
        from engine_pg.cli.main import run

        run()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
