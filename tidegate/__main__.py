"""`python -m tidegate` is the `tidegate` command; the stack starts its own parts this way."""

from tidegate.cli import main

if __name__ == "__main__":
    main()
