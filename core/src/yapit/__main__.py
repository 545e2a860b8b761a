"""`python -m yapit` is the command `yapit`."""

from yapit.cli import main

main()
