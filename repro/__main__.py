"""`python -m repro` is `repro`; torchrun starts it in this form."""

from repro.cli import main

main()
