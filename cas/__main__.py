"""`python -m cas`: the command line."""

from cas.cli.main import run

if __name__ == "__main__":
    run()
