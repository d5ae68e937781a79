"""`python -m demo`."""

from .run import main

raise SystemExit(main())
