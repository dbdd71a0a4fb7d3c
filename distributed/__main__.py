"""`python -m distributed`, the same program as `headrace`."""

from headrace import main

if __name__ == "__main__":
    raise SystemExit(main())
