"""`python -m stanchion.cli`: the same as `stanchion`."""

from stanchion.cli.main import main

main()
