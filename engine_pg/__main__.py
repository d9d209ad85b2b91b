"""Start here: `python -m engine_pg` and the installed command `engine-pg` are the same."""

from engine_pg.cli.main import run


def main() -> None:
    """Run the command line."""
    run()


if __name__ == "__main__":
    main()
