"""`python -m billing_core COMMAND`: see CONTRACT section 3."""

from billing_core.cli import main

raise SystemExit(main())
