"""`python -m worker.cli`: how `outwait up` and `outwait demo` start their processes."""

from worker.cli import main

main()
