"""`python -m outwait`: the command line. Our own processes are started so."""

from outwait.cli import main

main()
