"""Long work: jobs that survive a restart, their journal, and which flow each kind runs."""
