"""``python -m lab``: the experiments, from a checkout."""

from lab.commands import main

if __name__ == "__main__":
    main()
