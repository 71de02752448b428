"""`python -m convjax`: the command, where it is not on the path."""

from convjax.cli import main

if __name__ == "__main__":
    main()
