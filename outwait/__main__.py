"""`python -m outwait`: the command line. Our own processes are started so, with `-P`."""

from outwait.cli import main

main()
